"""Ollama's API. Streaming is its default: one JSON object a line, and each line a chunk of its own,
since clients parse chunks. A model that is here and not loaded is loaded by its name."""

import contextlib
import hashlib
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from msgspec import UNSET, Struct, UnsetType
from starlette.responses import PlainTextResponse, Response

from innkeeper.api import schema, tools
from innkeeper.api.chat import ChatLogprob, content_logprobs
from innkeeper.api.infill import fill_prompt
from innkeeper.api.ollama_fields import CHAT_BODY, TEXT_BODY, Call, model_name, parse
from innkeeper.api.openai import json_response
from innkeeper.api.replies import collect, finish_reason, json_bytes
from innkeeper.api.stream import EventStream, read_json, unless_client_leaves
from innkeeper.core import CallDelta, ModelFacts
from innkeeper.core.frames import Delta, Finished, SeenPrompt
from innkeeper.errors import NotFoundError
from innkeeper.prompt import CHATML, reply_form
from innkeeper.serving import Generate, LoadedModel, ModelEntry, Models
from innkeeper.serving.names import bare, match

OLLAMA_VERSION = "0.12.6"
"""The Ollama whose API is here; clients switch features on by it."""

_NDJSON = "application/x-ndjson"
_NEVER_SECONDS = 1e9
"""No pings: an empty line would be no JSON."""
_NEVER = "2318-01-01T00:00:00Z"
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
        return json_response({"models": [_tag(each, models) for each in _listed(models)]})

    @routes.get("/api/ps", summary="The loaded models")
    async def ps() -> Response:
        return json_response({"models": [_loaded(each, models) for each in models.loaded]})

    @routes.post("/api/show", summary="What a model is", openapi_extra=_NAME_BODY)
    async def show(request: Request) -> Response:
        entry = find(model_name(await read_json(request)), models)
        return json_response(_about(entry, models))


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


def _listed(models: Models) -> list[ModelEntry]:
    """What can be loaded, and what is loaded, even if its file is gone."""
    entries = {each.name: each for each in models.entries()}
    gone = [each.facts for each in models.loaded if each.name not in entries]
    return [
        *(ModelEntry(each.name, Path(each.path), each.size_bytes) for each in gone),
        *entries.values(),
    ]


def find(name: str, models: Models) -> ModelEntry:
    """Raises: NotFoundError, as Ollama's clients expect, whatever is loaded."""
    listed = {each.name: each for each in _listed(models)}
    if (found := match(bare(name), listed)) is not None:
        return listed[found]
    shown = ", ".join(listed) or "none yet"
    raise NotFoundError(f"model '{name[:80]}' not found", field="model", hint=f"here: {shown}")


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
    return _time(datetime.now(UTC))


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _tag(entry: ModelEntry, models: Models) -> dict[str, Any]:
    name = f"{entry.name}:latest"
    try:
        seconds = entry.path.stat().st_mtime
    except OSError:
        seconds = 0.0
    known = f"{entry.name} {entry.size_bytes} {seconds}".encode()
    return {
        "name": name,
        "model": name,
        "modified_at": _time(datetime.fromtimestamp(seconds, UTC)),
        "size": entry.size_bytes,
        "digest": hashlib.sha256(known).hexdigest(),
        "details": _details(_facts(entry, models)),
    }


def _facts(entry: ModelEntry, models: Models) -> ModelFacts | None:
    return next((each.facts for each in models.loaded if each.name == entry.name), None)


def _details(facts: ModelFacts | None) -> dict[str, Any]:
    family = facts.architecture if facts else ""
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family] if family else [],
        "parameter_size": _rounded(facts.num_params) if facts else "",
        "quantization_level": facts.description.rpartition(" ")[2] if facts else "",
    }


def _rounded(num_params: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6)):
        if num_params >= size:
            return f"{num_params / size:.1f}{unit}"
    return f"{num_params / 1e3:.0f}K"


def _loaded(model: LoadedModel, models: Models) -> dict[str, Any]:
    facts = model.facts
    tag = _tag(ModelEntry(facts.name, Path(facts.path), facts.size_bytes), models)
    del tag["modified_at"]
    on_gpu = facts.num_gpu_layers / facts.num_layers if facts.num_layers else 0.0
    vram = 0 if facts.device == "CPU" else round(facts.size_bytes * min(1.0, on_gpu))
    left = models.seconds_left(model)
    leaves = _NEVER if left is None else _time(datetime.now(UTC) + timedelta(seconds=left))
    return {**tag, "expires_at": leaves, "size_vram": vram, "context_length": facts.num_ctx}


def _about(entry: ModelEntry, models: Models) -> dict[str, Any]:
    """More is known of a loaded model than of the others."""
    known = _facts(entry, models)
    info: dict[str, Any] = {}
    if known:
        info = {
            "general.architecture": known.architecture,
            "general.parameter_count": known.num_params,
            f"{known.architecture}.context_length": known.num_ctx_train,
            f"{known.architecture}.block_count": known.num_layers,
        }
    tag = _tag(entry, models)
    return {
        "modelfile": f"FROM {entry.name}",
        "parameters": "",
        "template": (known.chat_template or CHATML) if known else "",
        "details": tag["details"],
        "model_info": info,
        "capabilities": _capabilities(known),
        "modified_at": tag["modified_at"],
    }


def _capabilities(known: ModelFacts | None) -> list[str]:
    """What clients switch features on by. Tools need nothing of the model."""
    if known is not None and known.pooling:
        return ["embedding"]
    found = ["completion", "tools"]
    if known is not None and known.fill_ids:
        found.append("insert")
    if known is not None and reply_form.names_reasoning(known.chat_template):
        found.append("thinking")
    return found
