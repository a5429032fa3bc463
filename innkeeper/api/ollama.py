"""Ollama's API. Streaming is its default: one JSON object a line, and each line a chunk of its own,
since clients parse chunks. A model that is here and not loaded is loaded by its name."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from msgspec import UNSET, Struct, UnsetType
from starlette.responses import PlainTextResponse, Response

from innkeeper.api import schema, tools
from innkeeper.api.chat import ChatLogprob, content_logprobs
from innkeeper.api.infill import fill_prompt
from innkeeper.api.ollama_cards import Cards, find, time_text
from innkeeper.api.ollama_fields import CHAT_BODY, TEXT_BODY, Call, model_name, parse
from innkeeper.api.openai import json_response
from innkeeper.api.replies import collect, finish_reason, json_bytes
from innkeeper.api.stream import EventStream, read_json, unless_client_leaves
from innkeeper.core import CallDelta
from innkeeper.core.frames import Delta, Finished, SeenPrompt
from innkeeper.serving import Generate, Models

OLLAMA_VERSION = "0.12.6"
"""The Ollama whose API is here; clients switch features on by it."""

_NDJSON = "application/x-ndjson"
_NEVER_SECONDS = 1e9
"""No pings: an empty line would be no JSON."""
_NAME_BODY = schema.body({"model": schema.plain("string", "a name of the list")}, ("model",))
_NS_PER_MS = 1_000_000


class Turn(Struct, frozen=True):
    content: str
    role: str = "assistant"
    thinking: str | UnsetType = UNSET
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET


class Line(Struct, frozen=True, kw_only=True):
    """One line, or the whole answer."""

    model: str
    created_at: str
    response: str | UnsetType = UNSET
    thinking: str | UnsetType = UNSET
    message: Turn | UnsetType = UNSET
    done: bool = False
    done_reason: str | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET
    logprobs: list[ChatLogprob] | UnsetType = UNSET
    warnings: tuple[str, ...] | UnsetType = UNSET
    debug: SeenPrompt | UnsetType = UNSET


def router(generate: Generate, models: Models) -> APIRouter:
    """``/`` and ``/api``."""
    routes = APIRouter(tags=["Ollama"])
    _add_generation(routes, generate, models)
    _add_models(routes, models)
    return routes


def _add_generation(routes: APIRouter, generate: Generate, models: Models) -> None:
    @routes.post("/api/generate", summary="Continue a text", openapi_extra=TEXT_BODY)
    async def complete(request: Request) -> Response:
        return await _reply(request, generate, models, is_chat=False)

    @routes.post("/api/chat", summary="Answer a chat", openapi_extra=CHAT_BODY)
    async def complete_chat(request: Request) -> Response:
        return await _reply(request, generate, models, is_chat=True)


def _add_models(routes: APIRouter, models: Models) -> None:
    cards = Cards(models)

    @routes.head("/", include_in_schema=False)
    @routes.get("/", summary="A sign of life")
    async def root() -> Response:
        return PlainTextResponse("Ollama is running")

    @routes.head("/api/version", include_in_schema=False)
    @routes.get("/api/version", summary="The API's version")
    async def version() -> Response:
        return json_response({"version": OLLAMA_VERSION})

    @routes.head("/api/tags", include_in_schema=False)
    @routes.get("/api/tags", summary="Models that can be loaded")
    async def tags() -> Response:
        return json_response({"models": await asyncio.to_thread(cards.tags)})

    @routes.get("/api/ps", summary="The loaded models")
    async def ps() -> Response:
        return json_response({"models": [cards.loaded(each) for each in models.loaded]})

    @routes.post("/api/show", summary="What a model is", openapi_extra=_NAME_BODY)
    async def show(request: Request) -> Response:
        entry = find(model_name(await read_json(request)), models)
        return json_response(await asyncio.to_thread(cards.about, entry))


async def _reply(
    request: Request, generate: Generate, models: Models, *, is_chat: bool
) -> Response:
    call = parse(await read_json(request), is_chat=is_chat)
    name = find(call.request.model, models).name
    if call.is_empty and call.keep_seconds == 0:
        await models.unload(name)
        return json_response(_empty(call, "unload"))
    if call.keep_seconds is not None:
        models.keep_for(name, call.keep_seconds)
    if call.is_empty:
        await unless_client_leaves(request.receive, models.engine(name))
        return json_response(_empty(call, "load"))
    if call.suffix:
        call = await _filling(call, generate)
    if call.stream:
        return lines(_lines(call, generate))
    return json_response(await unless_client_leaves(request.receive, _answer(call, generate)))


async def _filling(call: Call, generate: Generate) -> Call:
    request = call.request
    assert isinstance(request.prompt, str)
    prompt = await fill_prompt(
        request.prompt, call.suffix, model=request.model, field="suffix", generate=generate
    )
    return msgspec.structs.replace(call, request=msgspec.structs.replace(request, prompt=prompt))


def lines(pieces: AsyncGenerator[bytes, None]) -> EventStream:
    """A stream of lines of JSON; an error is one of them."""
    return EventStream(
        pieces,
        ping_seconds=_NEVER_SECONDS,
        last=lambda error_body: error_body + b"\n",
        media_type=_NDJSON,
    )


async def _lines(call: Call, generate: Generate) -> AsyncGenerator[bytes, None]:
    pieces: list[CallDelta] = []
    async with contextlib.aclosing(generate.stream(call.request)) as events:
        async for each in events:
            if isinstance(each, Delta):
                pieces += each.calls
                if each.text or each.reasoning or each.logprobs:
                    yield _line(_piece(each, call))
                continue
            calls = tools.objects(pieces)
            if calls:
                yield _line(_called(calls, call))
            yield _line(_last(each, call, _text("", call), _warnings(each, calls)))


def _line(line: Line) -> bytes:
    return json_bytes(line) + b"\n"


def _piece(delta: Delta, call: Call) -> Line:
    return Line(
        model=call.request.model,
        created_at=_now(),
        logprobs=content_logprobs(delta.logprobs).content if delta.logprobs else UNSET,
        **_text(delta.text, call, delta.reasoning),
    )


def _called(calls: Sequence[tools.WholeCall], call: Call) -> Line:
    """Calls come whole, since their arguments are an object."""
    return Line(model=call.request.model, created_at=_now(), **_text("", call, calls=calls))


async def _answer(call: Call, generate: Generate) -> Line:
    (choice,) = await collect(generate.stream(call.request))
    assert choice.finished is not None
    wanted = call.request.logprobs is not None
    logprobs = content_logprobs(choice.logprobs).content if wanted else UNSET
    calls = tools.objects(choice.calls)
    told = _text(choice.text, call, "".join(choice.reasoning), calls)
    return _last(choice.finished, call, told, _warnings(choice.finished, calls), logprobs)


def _warnings(finished: Finished, calls: Sequence[tools.WholeCall]) -> tuple[str, ...]:
    return (*finished.warnings, *(each.warning for each in calls if each.warning))


def _last(
    finished: Finished,
    call: Call,
    told: dict[str, Any],
    warnings: tuple[str, ...],
    logprobs: list[ChatLogprob] | UnsetType = UNSET,
) -> Line:
    timings = finished.timings
    whole_ms = timings.queue_ms + timings.prompt_ms + timings.predicted_ms
    reason = finish_reason(finished)
    return Line(
        model=call.request.model,
        created_at=_now(),
        done=True,
        done_reason="stop" if reason == "tool_calls" else reason,
        total_duration=round(whole_ms * _NS_PER_MS),
        load_duration=0,
        prompt_eval_count=timings.prompt_n + timings.cache_n + timings.cache_approx_n,
        prompt_eval_duration=round(timings.prompt_ms * _NS_PER_MS),
        eval_count=timings.predicted_n,
        eval_duration=round(timings.predicted_ms * _NS_PER_MS),
        logprobs=logprobs,
        warnings=warnings or UNSET,
        debug=finished.debug or UNSET,
        **told,
    )


def _empty(call: Call, reason: str) -> Line:
    return Line(
        model=call.request.model,
        created_at=_now(),
        done=True,
        done_reason=reason,
        **_text("", call),
    )


def _text(
    text: str, call: Call, thinking: str = "", calls: Sequence[tools.WholeCall] = ()
) -> dict[str, Any]:
    """The parts of a line that tell the reply."""
    if not call.is_chat:
        return {"response": text, "thinking": thinking or UNSET}
    told = [
        {
            "id": each.id,
            "function": {"index": index, "name": each.name, "arguments": each.arguments},
        }
        for index, each in enumerate(calls)
    ]
    return {"message": Turn(text, thinking=thinking or UNSET, tool_calls=told or UNSET)}


def _now() -> str:
    return time_text(datetime.now(UTC))
