"""How models write tool calls: recognised by the chat template, read back into its prompt, and
written as a grammar where a call is required.

Templates whose form is not known here, or that have none, get the generic one: the tools are
described in the system message, in Hermes' form.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from innkeeper.core import Message, ToolUse
from innkeeper.errors import InvalidRequestError

_JSON_BLANKS = r"(\n {0,12}| )?"
"""As in ``engine.grammar``: without a bound a model may write blanks for ever."""
_MISTRAL_ID_CHARS = 9
ARGS_MARK = "[ARGS]"
HARMONY = "harmony"


class ToolFormat(NamedTuple):
    """One way to write calls: ``opening``, a call or a list of calls, ``closing``."""

    name: str
    opening: str
    closing: str = ""
    arguments: str = "arguments"
    """The key of a call's arguments."""
    is_list: bool = False
    """One opening mark stands before a JSON list of calls."""
    marks: tuple[str, ...] = ()
    """Which of these a template has, of which this is the form."""
    without: tuple[str, ...] = ()
    """Those that tell other forms apart."""


GENERIC = ToolFormat("generic", "<tool_call>", "</tool_call>")
_FORMATS = (
    ToolFormat(HARMONY, "<|channel|>commentary to=functions.", marks=("<|channel|>",)),
    ToolFormat("mistral-args", "[TOOL_CALLS]", arguments=ARGS_MARK, marks=(ARGS_MARK,)),
    ToolFormat("mistral", "[TOOL_CALLS]", is_list=True, marks=("[TOOL_CALLS]",)),
    ToolFormat("granite", "<|tool_call|>", is_list=True, marks=("<|tool_call|>",)),
    ToolFormat(
        "hermes",
        "<tool_call>",
        "</tool_call>",
        marks=("<tool_call>",),
        without=("<function=", "<arg_key>"),
    ),
    ToolFormat(
        "llama3", "", arguments="parameters", marks=("<|python_tag|>", '"parameters": dictionary')
    ),
)
FORMATS = {form.name: form for form in (GENERIC, *_FORMATS)}


def recognise(template: str | None) -> ToolFormat:
    """The format that ``template`` teaches its model; ``GENERIC`` if none is known."""
    text = template or ""
    if "tools" in text:
        for form in _FORMATS:
            if any(mark in text for mark in form.marks) and not any(
                mark in text for mark in form.without
            ):
                return form
    return GENERIC


def messages_for(
    form: ToolFormat, messages: Sequence[Message], tools: ToolUse | None
) -> tuple[Message, ...]:
    """``messages`` as the template of ``form`` reads them: arguments as objects, ids as it wants
    them; for ``GENERIC`` everything about tools as text."""
    if form is GENERIC:
        return _described(messages, tools)
    return tuple(_with_objects(form, message) for message in messages)


def shown_special(form: ToolFormat) -> tuple[str, ...]:
    """Special tokens that calls are marked with."""
    if form.name == HARMONY:
        return ()
    every = (form.opening or "<|python_tag|>", form.closing)
    return (*every, ARGS_MARK, "[CALL_ID]") if form.arguments == ARGS_MARK else every


def opening_of(form: ToolFormat, tools: ToolUse) -> str:
    """What a prompt ends with so that a call must follow.

    Raises: InvalidRequestError where the form marks names with a token that no grammar can write.
    """
    if _names_by_token(form):
        if len(_wanted(tools)) != 1:
            raise InvalidRequestError(
                "this model's tool calls can only be required by name",
                field="tool_choice",
                hint='name one tool, or use "auto"',
            )
        end = " <|constrain|>json<|message|>" if form.name == HARMONY else ARGS_MARK
        return f"{form.opening}{_wanted(tools)[0]}{end}"
    return form.opening + "\n" if form.closing else form.opening


def _names_by_token(form: ToolFormat) -> bool:
    return form.name == HARMONY or form.arguments == ARGS_MARK


def _wanted(tools: ToolUse) -> list[str]:
    return [name for name in tools.names if tools.only in (None, name)]


def grammar(form: ToolFormat, tools: ToolUse) -> str:
    """Lark for what follows ``opening_of``: one call, or several where they may come at once."""
    names = _wanted(tools)
    if _names_by_token(form):
        (tool,) = (t for t in tools.tools if t["function"]["name"] == names[0])
        return f"start: %json {json.dumps(_schema(tool))}"
    rules = [f"call: {' | '.join(f'call_{i}' for i in range(len(names)))}"]
    for i, tool in enumerate(t for t in tools.tools if t["function"]["name"] in names):
        head = f'{{"name": {json.dumps(tool["function"]["name"])}, "{form.arguments}": '
        rules.append(f'call_{i}: {_literal(head)} arguments_{i} "}}"')
        rules.append(f"arguments_{i}: %json {json.dumps(_schema(tool))}")
    return "\n".join([f"start: {_sequence(form, tools.is_parallel)}", *rules])


def _sequence(form: ToolFormat, is_parallel: bool) -> str:
    opening = form.opening + "\n"
    if form.is_list:
        return '"[" call (", " call)* "]"' if is_parallel else '"[" call "]"'
    if not form.closing:
        return "call"
    end = _literal("\n" + form.closing)
    more = f" ({_literal(chr(10) + opening)} call {end})*" if is_parallel else ""
    return f"call {end}{more}"


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _schema(tool: dict[str, Any]) -> dict[str, Any]:
    schema = tool["function"].get("parameters") or {"type": "object", "properties": {}}
    return {**schema, "x-guidance": {"whitespace_pattern": _JSON_BLANKS}}


# --- messages ------------------------------------------------------------------------------------


def _with_objects(form: ToolFormat, message: Message) -> Message:
    extra = dict(message.extra)
    if form.name == HARMONY and "tool_calls" in extra and not message.content:
        extra["thinking"] = extra.pop("reasoning_content", "")
    if "tool_calls" in extra:
        extra["tool_calls"] = [_call_with_object(form, call) for call in extra["tool_calls"]]
    if form.name.startswith("mistral") and "tool_call_id" in extra:
        extra["tool_call_id"] = _mistral_id(extra["tool_call_id"])
    return Message(message.role, message.content, extra)


def _call_with_object(form: ToolFormat, call: dict[str, Any]) -> dict[str, Any]:
    function = {**call["function"], "arguments": arguments_object(call)}
    changed = {**call, "function": function}
    if form.name.startswith("mistral"):
        changed["id"] = _mistral_id(call.get("id"))
    return changed


def arguments_object(call: dict[str, Any]) -> Any:
    """A call's arguments, which OpenAI writes as JSON in a string, as templates want them."""
    given = call["function"].get("arguments")
    if not isinstance(given, str):
        return given or {}
    try:
        return json.loads(given or "{}")
    except ValueError:
        return given


def _mistral_id(call_id: object) -> str:
    """Its template refuses ids of any other length."""
    text = str(call_id or "")
    if len(text) == _MISTRAL_ID_CHARS and text.isalnum():
        return text
    return hashlib.sha256(text.encode()).hexdigest()[:_MISTRAL_ID_CHARS]


def _described(messages: Sequence[Message], tools: ToolUse | None) -> tuple[Message, ...]:
    turns: list[Message] = []
    for message in messages:
        if message.role == "tool":
            text = f"<tool_response>\n{message.content or ''}\n</tool_response>"
            if turns and turns[-1].role == "user" and turns[-1].extra.get("tool_response"):
                text = f"{turns.pop().content}\n{text}"
            turns.append(Message("user", text, {"tool_response": True}))
        elif message.extra.get("tool_calls"):
            turns.append(Message(message.role, _as_text(message)))
        else:
            turns.append(message)
    if tools is None:
        return tuple(turns)
    about = _description(tools)
    if turns and turns[0].role == "system":
        first = turns.pop(0)
        about = f"{first.content}\n\n{about}" if first.content else about
    return (Message("system", about), *turns)


def _as_text(message: Message) -> str:
    calls = [
        {"name": call["function"]["name"], "arguments": arguments_object(call)}
        for call in message.extra["tool_calls"]
    ]
    written = [
        f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>" for call in calls
    ]
    return "\n".join([message.content, *written] if message.content else written)


def _description(tools: ToolUse) -> str:
    listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools.tools)
    return (
        "You can call these functions, each described as JSON with a schema of its arguments:\n"
        f"<tools>\n{listed}\n</tools>\n"
        "To call one, write nothing but its name and arguments as JSON between tags, like this:\n"
        '<tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>\n'
        "You will be given the result in the next message, between <tool_response> tags."
    )
