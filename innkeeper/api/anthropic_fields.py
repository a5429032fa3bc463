"""Anthropic's fields: blocks, tools, thinking, ``output_config``. The sampling fields of the other
dialects are understood here too."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from innkeeper.api import chat, constraints, fields, reasoning, requests, schema, tools, values
from innkeeper.core import Constraint, GenerateRequest, Message, ToolUse
from innkeeper.errors import InvalidRequestError

_MAX_TEXT_CHARS = 64 * 1024 * 1024
_read_text = values.text(_MAX_TEXT_CHARS)
_KNOWN = (
    *(
        "system stop_sequences container context_management mcp_servers metadata betas"
        " output_config inference_geo speed cache_control diagnostics user_profile_id workspace_id"
        " tools"
    ).split(),
    *reasoning.NAMES,
)
_OFF: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys("container context_management mcp_servers".split(), ()),
}
_NAMES = {"stop": ("stop", "stop_sequences"), "max_tokens": ("max_tokens",)}
_TABLE = tuple(
    field._replace(names=_NAMES.get(field.target, field.names))
    for field in fields.FIELDS
    if field.target not in ("n", "auto_max_new_tokens")
)
_FIELDS = {
    "messages": schema.plain("array", "objects with role and content"),
    "max_tokens": schema.plain("integer", "most tokens of the reply"),
    "system": {"description": "text, or a list of text blocks"},
    "stop_sequences": schema.plain("array", "texts that end the reply"),
    "stream": schema.plain("boolean", "answer with server-sent events"),
    "tools": schema.plain("array", "objects with name and input_schema"),
    "tool_choice": schema.plain("object", "type: auto, any, none, or tool and its name"),
    "output_config": schema.plain("object", "format: a JSON schema; effort"),
    "model": schema.plain("string", "a name of /v1/models, loaded if need be"),
    "debug": schema.plain("boolean", "show the final prompt and its token ids in the answer"),
    **schema.REASONING,
    **schema.sampling(_TABLE),
    **schema.reported(_OFF),
}
BODY = schema.body(_FIELDS, ("messages", "max_tokens"))
COUNT_BODY = schema.body(_FIELDS, ("messages",))
_BLOCKS = "text tool_use tool_result thinking redacted_thinking".split()
_CHOICES = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}


class Call(Struct, frozen=True, kw_only=True):
    """One parsed call."""

    request: GenerateRequest
    stream: bool


def parse(body: Mapping[str, Any]) -> Call:
    """Raises: InvalidRequestError naming the field."""
    if body.get("max_tokens") is None:
        raise InvalidRequestError("max_tokens: Field required", field="max_tokens")
    values.integer(1, 1_000_000_000)("max_tokens", body["max_tokens"])
    output = body.get("output_config") or {}
    if not isinstance(output, dict):
        raise values.refuse("output_config", "an object", output)
    plain = {name: value for name, value in body.items() if name != "tool_choice"}
    request = requests.build(
        plain,
        table=_TABLE,
        known=_KNOWN,
        warnings=requests.ignored(body, _OFF),
        messages=(*_system(body.get("system")), *_messages(body)),
        tools=_tool_use(body),
        template_kwargs={**reasoning.template_kwargs(body), **_effort(output)},
        splits_reasoning=reasoning.is_split(body),
        shows_reasoning=reasoning.is_shown(body) and _is_displayed(body),
        reasoning_budget=reasoning.budget(body),
        constraint=constraints.constraint(plain) or _format(output.get("format")),
        n=1,
    )
    return Call(
        request=request,
        stream=values.flag("stream", body.get("stream") or False),
    )


def _tool_use(body: Mapping[str, Any]) -> ToolUse | None:
    found = tuple(_tool(f"tools.{i}", tool) for i, tool in enumerate(tools.listed(body)))
    choice = body.get("tool_choice") or {"type": "auto"}
    kind = choice.get("type") if isinstance(choice, dict) else None
    if not isinstance(kind, str) or kind not in _CHOICES:
        raise values.refuse("tool_choice", "an object of type " + ", ".join(_CHOICES), choice)
    only = choice.get("name") if kind == "tool" else None
    if kind == "tool" and not isinstance(only, str):
        raise values.refuse("tool_choice.name", "a name of tools", only)
    is_single = values.flag(
        "tool_choice.disable_parallel_tool_use", choice.get("disable_parallel_tool_use") or False
    )
    return tools.use(
        found, _CHOICES[kind], only, is_parallel=not is_single, name_field="tool_choice.name"
    )


def _tool(field: str, tool: Any) -> dict[str, Any]:
    if not isinstance(tool, dict) or tool.get("type") not in (None, "custom"):
        raise values.refuse(field, "an object of type custom with name and input_schema", tool)
    form = tool.get("input_schema")
    if not isinstance(form, dict):
        raise values.refuse(f"{field}.input_schema", "a JSON schema", form)
    about = {"description": tool["description"]} if tool.get("description") else {}
    return tools.function(field, {"name": tool.get("name"), **about, "parameters": form})


def _is_displayed(body: Mapping[str, Any]) -> bool:
    """``thinking.display``. Raises: InvalidRequestError."""
    thinking = body.get("thinking") or {}
    display = thinking.get("display") if isinstance(thinking, dict) else None
    if display not in (None, "summarized", "omitted"):
        raise values.refuse("thinking.display", "summarized or omitted", display)
    return bool(display != "omitted")


def _effort(output: Mapping[str, Any]) -> dict[str, Any]:
    effort = output.get("effort")
    if effort is None:
        return {}
    return {"reasoning_effort": values.text(100)("output_config.effort", effort)}


def _format(value: Any) -> Constraint | None:
    if value is None:
        return None
    if not isinstance(value, dict) or value.get("type") != "json_schema":
        raise values.refuse("output_config.format", "an object of type json_schema", value)
    return constraints.json_schema("output_config.format", value.get("schema"))


def _system(system: Any) -> list[Message]:
    if not system:
        return []
    if isinstance(system, str):
        return [Message("system", _read_text("system", system))]
    return [Message("system", _texts("system", system))]


def _messages(body: Mapping[str, Any]) -> list[Message]:
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise values.refuse("messages", "a list with at least one message", given)
    plain = [each for i, one in enumerate(given) for each in _plain(f"messages.{i}", one)]
    return list(chat.messages({"messages": plain}))


def _plain(field: str, message: Any) -> list[dict[str, Any]]:
    """OpenAI's messages for one of Anthropic's: a tool's results are messages of their own."""
    if not isinstance(message, dict):
        raise values.refuse(field, "an object with role and content", message)
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant", "system"):
        raise values.refuse(f"{field}.role", "user or assistant", role)
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    blocks = _checked(f"{field}.content", content)
    tools = [_tool_message(field, block) for block in blocks if block["type"] == "tool_result"]
    calls = [_tool_call(block) for block in blocks if block["type"] == "tool_use"]
    texts = [block for block in blocks if block["type"] == "text"]
    thoughts = [str(block.get("thinking", "")) for block in blocks if block["type"] == "thinking"]
    if not texts and not calls and tools:
        return tools
    found: dict[str, Any] = {"role": role, "content": _texts(f"{field}.content", texts)}
    if calls:
        found["tool_calls"] = calls
    if any(thoughts):
        found["reasoning_content"] = "\n".join(thoughts)
    return [*tools, found]


def _checked(field: str, content: Any) -> list[dict[str, Any]]:
    if not isinstance(content, list):
        raise values.refuse(field, "a string or a list of blocks", content)
    for number, block in enumerate(content):
        kind = block.get("type") if isinstance(block, dict) else None
        if kind not in _BLOCKS:
            raise InvalidRequestError(
                f"{field}.{number} is of type {values.shown(kind)}; this server reads text only",
                field=f"{field}.{number}",
            )
    return content


def _texts(field: str, blocks: Any) -> str:
    if not isinstance(blocks, list):
        raise values.refuse(field, "a string or a list of text blocks", blocks)
    found = []
    for number, block in enumerate(blocks):
        if not isinstance(block, dict) or block.get("type") != "text":
            raise values.refuse(f"{field}.{number}", "a text block", block)
        found.append(_read_text(f"{field}.{number}.text", block.get("text")))
    return "\n".join(found)


def _tool_message(field: str, block: Mapping[str, Any]) -> dict[str, Any]:
    content = block.get("content") or ""
    text = content if isinstance(content, str) else _texts(f"{field}.content", content)
    if values.flag(f"{field}.is_error", block.get("is_error") or False):
        text = f"Error: {text}"
    return {"role": "tool", "content": text, "tool_call_id": str(block.get("tool_use_id", ""))}


def _tool_call(block: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": block.get("name"), "arguments": block.get("input") or {}}
    return {"id": block.get("id"), "type": "function", "function": function}
