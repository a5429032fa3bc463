"""Anthropic's ``/v1/messages``, whole and as events, and its token count.

An answer's extra key ``warnings`` says what could not be applied.
"""

import contextlib
import secrets
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from innkeeper.api import tools
from innkeeper.api.anthropic_fields import BODY, COUNT_BODY, Call, parse
from innkeeper.api.openai import json_response
from innkeeper.api.replies import collect, debug_of, json_bytes
from innkeeper.api.stream import EventStream, read_json, unless_client_leaves
from innkeeper.api.tokens import num_chat_tokens
from innkeeper.core.frames import Delta, Finished
from innkeeper.serving import Generate


def router(generate: Generate) -> APIRouter:
    """``/v1/messages`` and ``/v1/messages/count_tokens``."""
    routes = APIRouter(tags=["Anthropic"])

    @routes.post("/v1/messages", summary="Answer a chat", openapi_extra=BODY)
    async def create(request: Request) -> Response:
        call = parse(await read_json(request))
        if call.stream:
            return EventStream(_events(call, generate), last=lambda body: _sse("error", body))
        return json_response(await unless_client_leaves(request.receive, _answer(call, generate)))

    @routes.post(
        "/v1/messages/count_tokens", summary="Number of tokens of a chat", openapi_extra=COUNT_BODY
    )
    async def count(request: Request) -> Response:
        call = parse({"max_tokens": 1, **await read_json(request)})
        return json_response({"input_tokens": await num_chat_tokens(call.request, generate)})

    return routes


async def _answer(call: Call, generate: Generate) -> dict[str, Any]:
    (choice,) = await collect(generate.stream(call.request))
    assert choice.finished is not None
    calls = tools.objects(choice.calls)
    return {
        **_head(call, generate),
        "content": _blocks("".join(choice.reasoning), choice.text, calls),
        **_reason(choice.finished),
        "usage": _usage(choice.finished),
        "warnings": [*choice.finished.warnings, *(each.warning for each in calls if each.warning)],
        **debug_of(choice.finished),
    }


def _blocks(thinking: str, text: str, calls: Sequence[tools.WholeCall]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if thinking:
        found.append({"type": "thinking", "thinking": thinking, "signature": ""})
    if text or not calls:
        found.append({"type": "text", "text": text})
    for call in calls:
        block = {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
        found.append(block)
    return found


async def _events(call: Call, generate: Generate) -> AsyncGenerator[bytes, None]:
    blocks: _OpenBlock | None = None
    async with contextlib.aclosing(generate.stream(call.request)) as events:
        async for each in events:
            head = b""
            if blocks is None:
                blocks, head = _OpenBlock(), _start(call, generate)
            yield head + (blocks.add(each) if isinstance(each, Delta) else _end(blocks, each))


class _OpenBlock:
    """The content block of a stream that is being written."""

    def __init__(self) -> None:
        self._index = -1
        self._kind = ""

    def add(self, delta: Delta) -> bytes:
        """The events that tell ``delta``."""
        found = b""
        if delta.reasoning:
            found += self._need("thinking", {"thinking": "", "signature": ""})
            found += self._delta({"type": "thinking_delta", "thinking": delta.reasoning})
        if delta.text:
            found += self._need("text", {"text": ""})
            found += self._delta({"type": "text_delta", "text": delta.text})
        for piece in delta.calls:
            if piece.name is not None:
                found += self._open("tool_use", {"id": piece.id, "name": piece.name, "input": {}})
            if piece.arguments:
                found += self._delta({"type": "input_json_delta", "partial_json": piece.arguments})
        return found

    def end(self) -> bytes:
        """The last events; a reply without anything is an empty text."""
        return (b"" if self._kind else self._need("text", {"text": ""})) + self._close()

    def _need(self, kind: str, block: dict[str, Any]) -> bytes:
        return b"" if self._kind == kind else self._open(kind, block)

    def _open(self, kind: str, block: dict[str, Any]) -> bytes:
        closed = self._close()
        self._kind = kind
        self._index += 1
        return closed + _event(
            "content_block_start",
            {"index": self._index, "content_block": {"type": kind, **block}},
        )

    def _close(self) -> bytes:
        if not self._kind:
            return b""
        signed = b""
        if self._kind == "thinking":
            signed = self._delta({"type": "signature_delta", "signature": ""})
        return signed + _event("content_block_stop", {"index": self._index})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", {"index": self._index, "delta": delta})


def _start(call: Call, generate: Generate) -> bytes:
    """The prompt is counted in the last event: nothing waits for it."""
    message = {
        **_head(call, generate),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }
    return _event("message_start", {"message": message})


def _end(blocks: _OpenBlock, finished: Finished) -> bytes:
    last = {
        "delta": _reason(finished),
        "usage": _usage(finished),
        "warnings": finished.warnings,
        **debug_of(finished),
    }
    return blocks.end() + _event("message_delta", last) + _event("message_stop", {})


def _head(call: Call, generate: Generate) -> dict[str, Any]:
    return {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": generate.models.answering(call.request.model),
    }


def _reason(finished: Finished) -> dict[str, Any]:
    if finished.reason == "tool_calls":
        return {"stop_reason": "tool_use", "stop_sequence": None}
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


def _event(name: str, data: dict[str, Any]) -> bytes:
    return _sse(name, json_bytes({"type": name, **data}))


def _sse(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
