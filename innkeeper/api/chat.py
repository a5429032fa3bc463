"""``/v1/chat/completions``: OpenAI's chat with Oobabooga's fields."""

import contextlib
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from innkeeper.api import character, reasoning, requests, tools, values
from innkeeper.api.completions import include_usage
from innkeeper.api.envelope import Envelope
from innkeeper.api.replies import Choice, collect, finish_reason, piece_text
from innkeeper.core import GenerateRequest, Message, TokenLogprob
from innkeeper.core.frames import Delta
from innkeeper.errors import InvalidRequestError
from innkeeper.prompt import instruct
from innkeeper.serving import Generate

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_MAX_MESSAGES = 100_000
_MAX_TOP_LOGPROBS = 100
MAX_TEMPLATE_CHARS = 256 * 1024
_MAX_TEXT_CHARS = 64 * 1024 * 1024
_read_truncation = values.choice("auto", "disabled")
_KEPT = ("name", "tool_call_id", "reasoning_content")
_TEMPLATE_NAMES = ("enable_thinking", "reasoning_effort", "preserve_thinking")

ROUTE_FIELDS = (
    "chat_template",
    "chat_template_kwargs",
    "instruction_template",
    "instruction_template_str",
    "continue_",
    "continue_final_message",
    "mode",
    *character.PLAY_FIELDS,
    "truncation",
    *_TEMPLATE_NAMES,
    *tools.NAMES,
    *reasoning.NAMES,
)
"""What only chat takes."""

_COMPLETIONS_OWN: dict[str, tuple[Any, ...]] = {"prompt": (), "echo": (), "n_probs": ()}


class ChatTop(Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[ChatTop]


class ChatLogprobs(Struct, frozen=True):
    """OpenAI's second shape."""

    content: list[ChatLogprob]
    refusal: None = None


class ChatMessage(Struct, frozen=True):
    content: str | None
    role: str = "assistant"
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[tools.ToolCall] | UnsetType = UNSET


class ChatChoice(Struct, frozen=True, kw_only=True):
    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: str


class ChatDelta(Struct, frozen=True, kw_only=True):
    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[tools.ToolCall] | UnsetType = UNSET
    refusal: UnsetType | None = UNSET


class ChatChunkChoice(Struct, frozen=True, kw_only=True):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None


class Call(Struct, frozen=True, kw_only=True):
    """One parsed call."""

    request: GenerateRequest
    stream: bool = False
    include_usage: bool = False


def parse(body: Mapping[str, Any], warnings: Iterable[str] = ()) -> Call:
    """Raises: InvalidRequestError naming the field."""
    mode = character.mode(body)
    template, template_stops = _template(body)
    request = requests.build(
        body,
        known=ROUTE_FIELDS,
        messages=messages(body),
        tools=tools.tool_use(body),
        splits_reasoning=reasoning.is_split(body),
        shows_reasoning=reasoning.is_shown(body),
        reasoning_budget=reasoning.budget(body),
        logprobs=_num_logprobs(body),
        chat_template=template,
        template_kwargs={**reasoning.template_kwargs(body), **template_kwargs(body)},
        continue_last=_continues(body),
        drops_turns=_drops_turns(body),
        warnings=[
            *(f"not applied: {name} (mode {mode})" for name in character.idle(body)),
            *warnings,
            *requests.ignored(body, _COMPLETIONS_OWN),
        ],
    )
    if mode != "chat":
        stop = tuple(dict.fromkeys((*request.stop, *template_stops)))
        request = msgspec.structs.replace(request, stop=stop)
    return Call(
        request=request if mode == "instruct" else character.as_play(request, body),
        stream=values.flag("stream", body.get("stream") or False),
        include_usage=include_usage(body),
    )


async def answer(call: Call, generate: Generate) -> bytes:
    """The whole answer as JSON."""
    choices = await collect(generate.stream(call.request))
    return _envelope(call, generate, "chat.completion").whole(
        choices, [_whole(each, call.request) for each in choices]
    )


async def stream(call: Call, generate: Generate) -> AsyncGenerator[bytes, None]:
    """The answer as server-sent events."""
    envelope = _envelope(call, generate, "chat.completion.chunk")
    num_open = n = call.request.n
    is_open = False
    async with contextlib.aclosing(generate.stream(call.request)) as events:
        async for each in events:
            if not is_open:
                is_open = True
                for index in range(n):
                    start = ChatDelta(role="assistant", content="", refusal=None)
                    yield envelope.chunk(ChatChunkChoice(index=index, delta=start))
            if isinstance(each, Delta):
                yield envelope.chunk(_chunk_choice(each))
                continue
            num_open -= 1
            last = ChatChunkChoice(
                index=each.index, delta=ChatDelta(), finish_reason=finish_reason(each)
            )
            yield envelope.finish(each, last, is_last=not num_open)
    for piece in envelope.end():
        yield piece


def _envelope(call: Call, generate: Generate, kind: str) -> Envelope:
    return Envelope(
        generate.models,
        model=call.request.model,
        kind=kind,
        id_prefix="chatcmpl",
        num_per_prompt=call.request.n,
        include_usage=call.include_usage,
    )


def _chunk_choice(delta: Delta) -> ChatChunkChoice:
    content: str | UnsetType = delta.text
    if not delta.text and (delta.reasoning or delta.calls):
        content = UNSET
    return ChatChunkChoice(
        index=delta.index,
        delta=ChatDelta(
            content=content,
            reasoning_content=delta.reasoning or UNSET,
            tool_calls=tools.pieces(delta.calls) or UNSET,
        ),
        logprobs=content_logprobs(delta.logprobs) if delta.logprobs else None,
    )


def _whole(choice: Choice, request: GenerateRequest) -> ChatChoice:
    assert choice.finished is not None
    return ChatChoice(
        index=choice.index,
        message=ChatMessage(
            choice.text or (None if choice.calls else ""),
            reasoning_content="".join(choice.reasoning) or UNSET,
            tool_calls=tools.whole_calls(choice.calls) or UNSET,
        ),
        logprobs=content_logprobs(choice.logprobs) if request.logprobs is not None else None,
        finish_reason=finish_reason(choice.finished),
    )


def content_logprobs(entries: Sequence[TokenLogprob]) -> ChatLogprobs:
    """OpenAI's second shape, which KoboldCpp and Ollama have too."""
    return ChatLogprobs(
        [
            ChatLogprob(
                piece_text(entry.piece),
                entry.logprob,
                list(entry.piece),
                [ChatTop(piece_text(piece), lp, list(piece)) for _, piece, lp in entry.top],
            )
            for entry in entries
        ]
    )


def messages(body: Mapping[str, Any]) -> tuple[Message, ...]:
    """``messages``, checked. Raises: InvalidRequestError."""
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise values.refuse("messages", "a list with at least one message", given)
    if len(given) > _MAX_MESSAGES:
        raise values.refuse("messages", f"at most {_MAX_MESSAGES} messages", len(given))
    return tuple(_message(f"messages[{i}]", message) for i, message in enumerate(given))


def _message(field: str, message: Any) -> Message:
    if not isinstance(message, dict):
        raise values.refuse(field, "an object with role and content", message)
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise values.refuse(f"{field}.role", "one of " + ", ".join(_ROLES), role)
    extra = {
        name: values.plain(f"{field}.{name}", message[name])
        for name in _KEPT
        if message.get(name) is not None
    }
    if message.get("tool_calls"):
        extra["tool_calls"] = tools.message_calls(f"{field}.tool_calls", message["tool_calls"])
    return Message(_ROLES[role], _content(f"{field}.content", message.get("content")), extra)


def _content(field: str, content: Any) -> str | None:
    """Text, or the texts of parts joined."""
    if content is None:
        return None
    if isinstance(content, list):
        return "\n".join(_part(f"{field}[{i}]", part) for i, part in enumerate(content))
    text: str = values.text(_MAX_TEXT_CHARS)(field, content)
    return text


def _part(field: str, part: Any) -> str:
    if not isinstance(part, dict):
        raise values.refuse(field, "an object with type and text", part)
    if part.get("type") != "text":
        raise InvalidRequestError(
            f"{field} is of type {values.shown(part.get('type'))}; this server reads text only",
            field=field,
        )
    text: str = values.text(_MAX_TEXT_CHARS)(f"{field}.text", part.get("text"))
    return text


def _num_logprobs(body: Mapping[str, Any]) -> int | None:
    top = body.get("top_logprobs")
    count = 0 if top is None else values.integer(0, _MAX_TOP_LOGPROBS)("top_logprobs", top)
    wanted = values.flag("logprobs", body.get("logprobs") or False)
    return int(count) if wanted else None


def _template(body: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    """Jinja that the request brings or names, and what ends a reply in it.

    Raises: InvalidRequestError.
    """
    read = values.text(MAX_TEMPLATE_CHARS)
    for name in ("instruction_template_str", "chat_template"):
        if body.get(name):
            return str(read(name, body[name])), ()
    if not body.get("instruction_template"):
        return None, ()
    field = "instruction_template"
    form = instruct.get(values.text(1000)(field, body[field]), field)
    return form.template, form.stops


def template_kwargs(body: Mapping[str, Any]) -> dict[str, Any]:
    """Variables for the chat template. Raises: InvalidRequestError."""
    given = body.get("chat_template_kwargs") or {}
    if not isinstance(given, dict):
        raise values.refuse("chat_template_kwargs", "an object", given)
    named = {name: body[name] for name in _TEMPLATE_NAMES if body.get(name) is not None}
    variables: dict[str, Any] = values.plain("chat_template_kwargs", {**named, **given})
    return variables


def _drops_turns(body: Mapping[str, Any]) -> bool | None:
    """``truncation``, as OpenAI's responses have it. Raises: InvalidRequestError."""
    given = body.get("truncation")
    return None if given is None else _read_truncation("truncation", given) == "auto"


def _continues(body: Mapping[str, Any]) -> bool:
    return any(
        values.flag(name, body.get(name) or False)
        for name in ("continue_", "continue_final_message")
    )
