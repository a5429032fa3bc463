"""OpenAI's ``/v1/responses``, whole and as events. Nothing is stored: a request has all of a chat.

A request becomes a chat's body, so that every field of chats is understood here too.
"""

import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from innkeeper.api import chat, schema, tools, values
from innkeeper.api.openai import json_response
from innkeeper.api.replies import Choice, Totals, debug_of, json_bytes
from innkeeper.api.stream import EventStream, read_json, unless_client_leaves
from innkeeper.api.tokens import input_tokens
from innkeeper.core.frames import Delta, Finished
from innkeeper.errors import InvalidRequestError
from innkeeper.serving import Generate

_OWN = frozenset(
    "input instructions max_output_tokens text store previous_response_id background tools"
    " tool_choice conversation prompt n".split()
)
_OFF: dict[str, tuple[Any, ...]] = {
    "include": ([],),
    "max_tool_calls": (None,),
}
"""Left to the chat, which knows nothing of them and says so, unless they ask for nothing."""
_REFUSED = {
    "previous_response_id": "no response is stored here; send the whole chat as input",
    "conversation": "no conversation is stored here; send the whole chat as input",
    "background": "no response is stored here; ask for it with stream",
    "prompt": "no prompt template is stored here; send input",
}
_BODY = schema.body(
    {
        "input": {"description": "text, or a list of messages, calls and their outputs"},
        "instructions": schema.plain("string", "the system message"),
        "max_output_tokens": schema.plain("integer", "most tokens of the reply"),
        "text": schema.plain("object", "format: a JSON schema"),
        "tools": schema.plain("array", "functions that may be called"),
        "tool_choice": {"description": "auto, none, required, or one function"},
        "reasoning": schema.plain("object", "effort"),
        "truncation": schema.TRUNCATION,
        "stream": schema.plain("boolean", "answer with server-sent events"),
        "model": schema.plain("string", "a name of /v1/models"),
        **schema.SAMPLING,
        "n": schema.plain("integer", "1: a response is one reply"),
        **schema.reported(_OFF),
    },
    ("input",),
)


def router(generate: Generate) -> APIRouter:
    """``/v1/responses``."""
    routes = APIRouter(tags=["OpenAI"])

    @routes.post("/v1/responses", summary="Answer a chat, as a response", openapi_extra=_BODY)
    async def create(request: Request) -> Response:
        body = await read_json(request)
        reply = _Reply(body, generate)
        if reply.call.stream:
            return EventStream(reply.events(), last=lambda error: _sse("error", error))
        return json_response(await unless_client_leaves(request.receive, reply.whole()))

    @routes.post(
        "/v1/responses/input_tokens",
        summary="Number of tokens of a response's prompt",
        openapi_extra=_BODY,
    )
    async def count(request: Request) -> Response:
        call = chat.parse(chat_body(await read_json(request)))
        return json_response(await input_tokens(call, generate))

    return routes


def chat_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """The chat that a response asks for. Raises: InvalidRequestError naming the field."""
    for name, why in _REFUSED.items():
        if body.get(name):
            raise InvalidRequestError(f"{name} cannot be used: {why}", field=name)
    if body.get("n") not in (None, 1):
        raise values.refuse("n", "1: a response is one reply", body["n"])
    plain = {
        name: value
        for name, value in body.items()
        if name not in _OWN and value is not None and value not in _OFF.get(name, ())
    }
    messages = _messages(body)
    limit = body.get("max_output_tokens")
    if limit is not None:
        plain["max_tokens"] = values.integer(1, 1_000_000_000)("max_output_tokens", limit)
    text = body.get("text") or {}
    if not isinstance(text, dict):
        raise values.refuse("text", "an object", text)
    if form := _format(text.get("format")):
        plain["response_format"] = form
    if body.get("tools"):
        plain["tools"] = _tools(body["tools"])
        plain["tool_choice"] = _tool_choice(body.get("tool_choice"))
    return {**plain, "messages": messages, "n": 1}


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    given = body.get("input")
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise values.refuse("input", "a text, or a list with at least one item", given)
    found = [_message(f"input[{number}]", item) for number, item in enumerate(given)]
    instructions = body.get("instructions")
    if instructions:
        system = values.text(1 << 26)("instructions", instructions)
        found.insert(0, {"role": "system", "content": system})
    return [message for message in found if message]


def _message(field: str, item: Any) -> dict[str, Any]:
    """OpenAI's chat message for one item; empty for reasoning, which templates bring themselves."""
    if not isinstance(item, dict):
        raise values.refuse(field, "an object", item)
    kind = item.get("type") or "message"
    if kind == "message":
        return {"role": item.get("role"), "content": _content(f"{field}.content", item)}
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments") or "{}"}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if kind == "function_call_output":
        output = item.get("output")
        text = output if isinstance(output, str) else json_bytes(output).decode()
        return {"role": "tool", "tool_call_id": str(item.get("call_id", "")), "content": text}
    if kind == "reasoning":
        return {}
    known = "message, function_call, function_call_output or reasoning"
    raise values.refuse(f"{field}.type", known, kind)


def _content(field: str, item: Mapping[str, Any]) -> Any:
    content = item.get("content")
    if not isinstance(content, list):
        return content
    parts = []
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("input_text", "output_text", "text"):
            wanted = "input_text or output_text: this server reads text only"
            raise values.refuse(f"{field}[{number}].type", wanted, kind)
        parts.append({"type": "text", "text": part.get("text")})
    return parts


def _format(form: Any) -> dict[str, Any] | None:
    """``response_format`` for ``text.format``."""
    if form is None:
        return None
    kind = form.get("type") if isinstance(form, dict) else None
    if kind not in ("text", "json_object", "json_schema"):
        raise values.refuse("text.format.type", "text, json_object or json_schema", kind)
    if kind == "text":
        return None
    return {"type": kind, "json_schema": form} if kind == "json_schema" else {"type": kind}


def _tools(given: Any) -> list[Any]:
    if not isinstance(given, list):
        raise values.refuse("tools", "a list of functions", given)
    found = []
    for number, tool in enumerate(given):
        if not isinstance(tool, dict) or tool.get("type") != "function":
            raise values.refuse(f"tools[{number}]", "an object of type function", tool)
        function = {name: tool[name] for name in _FUNCTION if tool.get(name) is not None}
        found.append({"type": "function", "function": function})
    return found


_FUNCTION = ("name", "description", "parameters", "strict")


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    return choice


class _Reply:
    """One response on its way."""

    def __init__(self, body: Mapping[str, Any], generate: Generate) -> None:
        self.call = chat.parse(chat_body(body))
        self._body = body
        self._generate = generate
        self._id = f"resp_{secrets.token_hex(12)}"
        self._message_id = f"msg_{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._choice = Choice(0)
        self._number = -1

    async def whole(self) -> dict[str, Any]:
        async with contextlib.aclosing(self._generate.stream(self.call.request)) as events:
            async for each in events:
                self._note(each)
        return self._response()

    async def events(self) -> AsyncGenerator[bytes, None]:
        is_open = False
        async with contextlib.aclosing(self._generate.stream(self.call.request)) as events:
            async for each in events:
                if not is_open:
                    is_open = True
                    for piece in self._opening():
                        yield piece
                self._note(each)
                if isinstance(each, Delta) and each.text:
                    yield self._part("output_text.delta", delta=each.text, logprobs=[])
        for piece in self._closing():
            yield piece

    def _note(self, event: Delta | Finished) -> None:
        choice = self._choice
        if isinstance(event, Finished):
            choice.finished = event
        else:
            choice.pieces.append(event.text)
            choice.reasoning.append(event.reasoning)
            choice.calls += event.calls

    def _opening(self) -> Iterator[bytes]:
        for name in ("created", "in_progress"):
            yield self._event(name, response=self._response())
        yield self._event("output_item.added", output_index=0, item=self._message("in_progress"))
        yield self._part("content_part.added", part=_text_part(""))

    def _closing(self) -> Iterator[bytes]:
        """The message first, then calls and reasoning, in the order of ``output``."""
        text = self._choice.text
        yield self._part("output_text.done", text=text, logprobs=[])
        yield self._part("content_part.done", part=_text_part(text))
        yield self._event("output_item.done", output_index=0, item=self._message("completed"))
        for number, item in enumerate(self._output()[1:], 1):
            yield self._event("output_item.added", output_index=number, item=item)
            if item["type"] == "function_call":
                where = {"item_id": item["id"], "output_index": number}
                arguments = item["arguments"]
                yield self._event("function_call_arguments.delta", delta=arguments, **where)
                yield self._event(
                    "function_call_arguments.done",
                    arguments=arguments,
                    name=item["name"],
                    **where,
                )
            yield self._event("output_item.done", output_index=number, item=item)
        done = self._response()
        yield self._event(done["status"], response=done)

    def _part(self, name: str, /, **values: Any) -> bytes:
        where = {"item_id": self._message_id, "output_index": 0, "content_index": 0}
        return self._event(name, **where, **values)

    def _event(self, name: str, /, **values: Any) -> bytes:
        self._number += 1
        kind = f"response.{name}"
        return _sse(kind, json_bytes({"type": kind, "sequence_number": self._number, **values}))

    def _message(self, status: str) -> dict[str, Any]:
        text = self._choice.text
        return {
            "type": "message",
            "id": self._message_id,
            "role": "assistant",
            "status": status,
            "content": [] if status == "in_progress" else [_text_part(text)],
        }

    def _output(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [self._message("completed")]
        for call in tools.whole_calls(self._choice.calls):
            found.append(
                {
                    "type": "function_call",
                    "id": f"fc_{call.id}",
                    "call_id": call.id,
                    "name": call.function.name,
                    "arguments": call.function.arguments,
                    "status": "completed",
                }
            )
        if thoughts := "".join(self._choice.reasoning):
            summary = [{"type": "summary_text", "text": thoughts}]
            found.append({"type": "reasoning", "id": f"rs_{self._id}", "summary": summary})
        return found

    def _response(self) -> dict[str, Any]:
        finished, request = self._choice.finished, self.call.request
        is_cut = finished is not None and finished.reason == "length"
        ended = "incomplete" if is_cut else "completed"
        body = self._body
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": "in_progress" if finished is None else ended,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "instructions": body.get("instructions"),
            "max_output_tokens": body.get("max_output_tokens"),
            "metadata": {},
            "model": self._generate.models.answering(request.model),
            "output": [] if finished is None else self._output(),
            "parallel_tool_calls": bool(body.get("parallel_tool_calls", True)),
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": request.sampling.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": request.sampling.top_p,
            "truncation": body.get("truncation") or "disabled",
            "usage": None if finished is None else _usage(finished),
            "warnings": [*self._warnings(), *(finished.warnings if finished else ())],
            **(debug_of(finished) if finished else {}),
        }

    def _warnings(self) -> list[str]:
        return ["not applied: store (no response is kept)"] if self._body.get("store") else []


def _usage(finished: Finished) -> dict[str, Any]:
    totals = Totals(1)
    totals.add(finished)
    usage = totals.usage()
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.prompt_tokens_details["cached_tokens"],
            "cache_write_tokens": 0,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": finished.timings.reasoning_n},
        "total_tokens": usage.total_tokens,
    }


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _sse(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
