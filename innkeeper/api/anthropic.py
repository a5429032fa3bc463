"""Anthropic's ``/v1/messages``, whole and as events, and its token count.

The sampling fields of the other dialects are understood here too. An answer's extra key
``warnings`` says what could not be applied.
"""

import contextlib
import secrets
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from fastapi import APIRouter, Request
from msgspec import Struct
from starlette.responses import Response

from innkeeper.api import chat, constraints, fields, requests, schema, values
from innkeeper.api.openai import json_response
from innkeeper.api.replies import collect, debug_of, json_bytes
from innkeeper.api.stream import EventStream, read_json, unless_client_leaves
from innkeeper.api.tokens import num_chat_tokens
from innkeeper.core import Constraint, GenerateRequest, Message
from innkeeper.core.frames import Delta, Finished
from innkeeper.errors import InvalidRequestError
from innkeeper.serving import Generate

_MAX_TEXT_CHARS = 64 * 1024 * 1024
_read_text = values.text(_MAX_TEXT_CHARS)
_KNOWN = (
    "system thinking stop_sequences container context_management mcp_servers metadata"
    " betas output_config inference_geo speed cache_control diagnostics"
    " user_profile_id workspace_id"
).split()
_OFF: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys("container context_management mcp_servers".split(), ()),
}
_TABLE = tuple(
    field._replace(names=(*field.names, "stop_sequences")) if field.target == "stop" else field
    for field in fields.FIELDS
)
_BODY = schema.body(
    {
        "messages": schema.plain("array", "objects with role and content"),
        "max_tokens": schema.plain("integer", "most tokens of the reply"),
        "system": {"description": "text, or a list of text blocks"},
        "stop_sequences": schema.plain("array", "texts that end the reply"),
        "stream": schema.plain("boolean", "answer with server-sent events"),
        "thinking": schema.plain("object", "type: enabled, adaptive or disabled"),
        "output_config": schema.plain("object", "format: a JSON schema; effort"),
        **schema.SAMPLING,
    },
    ("messages", "max_tokens"),
)
_BLOCKS = "text tool_use tool_result thinking redacted_thinking".split()


class Call(Struct, frozen=True, kw_only=True):
    """One parsed call."""

    request: GenerateRequest
    stream: bool


def router(generate: Generate) -> APIRouter:
    """``/v1/messages`` and ``/v1/messages/count_tokens``."""
    routes = APIRouter(tags=["Anthropic"])

    @routes.post("/v1/messages", summary="Answer a chat", openapi_extra=_BODY)
    async def create(request: Request) -> Response:
        call = parse(await read_json(request))
        if call.stream:
            return EventStream(_events(call, generate), last=lambda body: _event("error", body))
        return json_response(await unless_client_leaves(request.receive, _answer(call, generate)))

    @routes.post("/v1/messages/count_tokens", summary="Number of tokens of a chat")
    async def count(request: Request) -> Response:
        call = parse({"max_tokens": 1, **await read_json(request)})
        return json_response({"input_tokens": await num_chat_tokens(call.request, generate)})

    return routes


def parse(body: Mapping[str, Any]) -> Call:
    """Raises: InvalidRequestError naming the field."""
    if body.get("max_tokens") is None:
        raise InvalidRequestError("max_tokens: Field required", field="max_tokens")
    values.integer(1, 1_000_000_000)("max_tokens", body["max_tokens"])
    output = body.get("output_config") or {}
    if not isinstance(output, dict):
        raise values.refuse("output_config", "an object", output)
    _check_tool_choice(body.get("tool_choice"))
    plain = {name: value for name, value in body.items() if name != "tool_choice"}
    request = requests.build(
        plain,
        table=_TABLE,
        known=_KNOWN,
        warnings=requests.ignored(body, _OFF),
        messages=(*_system(body.get("system")), *_messages(body)),
        template_kwargs={**_thinking(body.get("thinking")), **_effort(output)},
        constraint=constraints.constraint(plain) or _format(output.get("format")),
        n=1,
    )
    return Call(
        request=request,
        stream=values.flag("stream", body.get("stream") or False),
    )


def _check_tool_choice(choice: Any) -> None:
    """Raises: InvalidRequestError for what would be forced."""
    kind = choice.get("type") if isinstance(choice, dict) else choice
    if kind not in (None, "auto", "none"):
        raise InvalidRequestError(
            "tool_choice asks for a tool call, which this server cannot hold a reply to yet",
            field="tool_choice",
            hint="leave it out",
        )


def _thinking(thinking: Any) -> dict[str, Any]:
    if thinking is None:
        return {}
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind not in ("enabled", "adaptive", "disabled"):
        raise values.refuse("thinking.type", "enabled, adaptive or disabled", kind)
    return {"enable_thinking": kind != "disabled"}


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
    return {"role": "tool", "content": text, "tool_call_id": str(block.get("tool_use_id", ""))}


def _tool_call(block: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": block.get("name"), "arguments": block.get("input")}
    return {"id": block.get("id"), "type": "function", "function": function}


async def _answer(call: Call, generate: Generate) -> dict[str, Any]:
    (choice,) = await collect(generate.stream(call.request))
    assert choice.finished is not None
    return {
        **_head(call, generate),
        "content": [{"type": "text", "text": choice.text}],
        **_reason(choice.finished),
        "usage": _usage(choice.finished),
        "warnings": choice.finished.warnings,
        **debug_of(choice.finished),
    }


async def _events(call: Call, generate: Generate) -> AsyncGenerator[bytes, None]:
    is_open = False
    async with contextlib.aclosing(generate.stream(call.request)) as events:
        async for each in events:
            if not is_open:
                is_open = True
                yield _start(call, generate)
            if isinstance(each, Delta):
                if each.text:
                    yield _text_event(each.text)
                continue
            for last in _end(each):
                yield last


def _start(call: Call, generate: Generate) -> bytes:
    """Two events in one piece. The prompt is counted in the last event: nothing waits for it."""
    message = {
        **_head(call, generate),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }
    block = {"type": "text", "text": ""}
    opened = {"type": "content_block_start", "index": 0, "content_block": block}
    start = json_bytes({"type": "message_start", "message": message})
    return _event("message_start", start) + _event("content_block_start", json_bytes(opened))


def _text_event(text: str) -> bytes:
    delta = {"type": "text_delta", "text": text}
    data = {"type": "content_block_delta", "index": 0, "delta": delta}
    return _event("content_block_delta", json_bytes(data))


def _end(finished: Finished) -> list[bytes]:
    delta = {
        "type": "message_delta",
        "delta": _reason(finished),
        "usage": _usage(finished),
        "warnings": finished.warnings,
        **debug_of(finished),
    }
    stop = {"type": "content_block_stop", "index": 0}
    return [
        _event("content_block_stop", json_bytes(stop)),
        _event("message_delta", json_bytes(delta)),
        _event("message_stop", b'{"type":"message_stop"}'),
    ]


def _head(call: Call, generate: Generate) -> dict[str, Any]:
    return {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": generate.models.answering(call.request.model),
    }


def _reason(finished: Finished) -> dict[str, Any]:
    if finished.stop_text is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": finished.stop_text}
    reason = "max_tokens" if finished.reason == "length" else "end_turn"
    return {"stop_reason": reason, "stop_sequence": None}


def _usage(finished: Finished) -> dict[str, int]:
    timings = finished.timings
    return {
        "input_tokens": timings.prompt_n,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": timings.cache_n + timings.cache_approx_n,
        "output_tokens": timings.predicted_n,
    }


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
