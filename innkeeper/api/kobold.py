"""KoboldAI United's API and KoboldCpp's extras.

Streams end with the connection: clients of this dialect do not know ``[DONE]``. An abort without
a key stops every reply, as clients mean it.
"""

import contextlib
import json
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from msgspec import UNSET, Struct, UnsetType
from starlette.responses import Response

from innkeeper.api import kobold_fields, schema, values
from innkeeper.api.chat import content_logprobs
from innkeeper.api.jobs import Job, Jobs
from innkeeper.api.kobold_fields import Call
from innkeeper.api.openai import json_response
from innkeeper.api.replies import Choice, collect, finish_reason, json_bytes
from innkeeper.api.stream import EventStream, read_json, unless_client_leaves
from innkeeper.core import GenerateRequest
from innkeeper.core.frames import Delta, Finished, SeenPrompt
from innkeeper.errors import InvalidRequestError
from innkeeper.serving import Generate, Models

UNITED_VERSION = "1.2.5"
"""Of KoboldAI United's API; what every server of its family answers."""

KOBOLDCPP_VERSION = "1.102"
"""The KoboldCpp whose extras are here; clients switch features on by it."""

_PREFIXES = ("/api/v1", "/api/latest")
_MAX_TEXT_CHARS = 16 * 1024 * 1024
_FLAGS = (
    "protected txt2img vision audio transcribe multiplayer websearch tts embeddings savedata"
).split()
_KEY_BODY = schema.body(
    {"genkey": schema.plain("string", "the key that the reply was asked for with")}
)
_STOP_REASONS = {"length": 0, "stop": 1}
_CUSTOM_STOP = 2


class StreamEvent(Struct, frozen=True):
    token: str
    finish_reason: str | None = None
    warnings: tuple[str, ...] | UnsetType = UNSET
    debug: SeenPrompt | UnsetType = UNSET


class Result(Struct, frozen=True, kw_only=True):
    text: str
    finish_reason: str
    logprobs: Any = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tool_calls: tuple[()] = ()


def router(generate: Generate, models: Models, *, is_protected: bool = False) -> APIRouter:
    """``/api/v1``, ``/api/latest`` and ``/api/extra``. is_protected: they ask for a key."""
    routes = APIRouter(tags=["KoboldAI and KoboldCpp"])
    jobs = Jobs()
    for prefix in _PREFIXES:
        _add_united(routes, prefix, generate, models, jobs)
    _add_generation(routes, generate, jobs)
    _add_tokens(routes, generate)
    _add_facts(routes, models, jobs, is_protected)
    return routes


def _add_united(
    routes: APIRouter, prefix: str, generate: Generate, models: Models, jobs: Jobs
) -> None:
    shown = prefix == _PREFIXES[0]

    @routes.get(f"{prefix}/model", summary="The loaded model's name", include_in_schema=shown)
    async def model() -> Response:
        facts = models.facts
        return json_response({"result": f"koboldcpp/{facts.name}" if facts else "ReadOnly"})

    @routes.put(
        f"{prefix}/model",
        summary="Load a model of the list",
        include_in_schema=shown,
        openapi_extra=schema.body({"model": schema.plain("string", "its name")}, ("model",)),
    )
    async def load(request: Request) -> Response:
        name = values.text(1000)("model", (await read_json(request)).get("model"))
        await models.start_load(name.removeprefix("koboldcpp/")).wait()
        return json_response({})

    @routes.post(
        f"{prefix}/generate",
        summary="Continue a text",
        include_in_schema=shown,
        openapi_extra=kobold_fields.BODY,
    )
    async def complete(request: Request) -> Response:
        call = kobold_fields.parse(await read_json(request))
        return json_response(
            await unless_client_leaves(request.receive, _answer(call, generate, jobs))
        )

    @routes.get(f"{prefix}/info/version", summary="The API's version", include_in_schema=shown)
    @routes.get(f"{prefix}/info/version/latest", include_in_schema=False)
    async def version() -> Response:
        return json_response({"result": UNITED_VERSION})

    @routes.get(f"{prefix}/info/version/list", include_in_schema=False)
    async def versions() -> Response:
        return json_response({"results": [UNITED_VERSION]})

    @routes.get(f"{prefix}/config/soft_prompts_list", include_in_schema=False)
    async def soft_prompts() -> Response:
        return json_response({"values": []})

    @routes.get(f"{prefix}/config/soft_prompt", include_in_schema=False)
    async def soft_prompt() -> Response:
        return json_response({"value": ""})

    @routes.get(f"{prefix}/config/max_length", summary="Default", include_in_schema=shown)
    async def max_length() -> Response:
        return json_response({"value": kobold_fields.DEFAULT_MAX_LENGTH})

    @routes.get(
        f"{prefix}/config/max_context_length", summary="Context size", include_in_schema=shown
    )
    async def max_context_length() -> Response:
        return _context(models)


def _add_generation(routes: APIRouter, generate: Generate, jobs: Jobs) -> None:
    @routes.post(
        "/api/extra/generate/stream",
        summary="Continue a text, as events",
        openapi_extra=kobold_fields.BODY,
    )
    async def stream(request: Request) -> Response:
        call = kobold_fields.parse(await read_json(request))
        return EventStream(_pieces(call, generate, jobs), last=_broken)

    @routes.get("/api/extra/generate/check", include_in_schema=False)
    @routes.post("/api/extra/generate/check", summary="The reply so far", openapi_extra=_KEY_BODY)
    async def check(request: Request) -> Response:
        job = jobs.find(await _key(request))
        return json_response({"results": [{"text": job.text if job else ""}]})

    @routes.post(
        "/api/extra/abort", summary="Stop the reply of a key, or all", openapi_extra=_KEY_BODY
    )
    async def abort(request: Request) -> Response:
        key = await _key(request)
        running = jobs.running(key)
        for job in running:
            job.abort()
        if not key:
            generate.stop_all()
        done = "true" if running or not key else "false"
        return json_response({"success": done, "done": done})

    @routes.get("/api/extra/last_logprobs", include_in_schema=False)
    @routes.post(
        "/api/extra/last_logprobs",
        summary="Log probabilities of the last reply",
        openapi_extra=_KEY_BODY,
    )
    async def last_logprobs(request: Request) -> Response:
        job = jobs.find(await _key(request))
        return json_response({"logprobs": _logprobs(job) if job else None})


def _add_tokens(routes: APIRouter, generate: Generate) -> None:
    @routes.post("/api/extra/tokenize", include_in_schema=False)
    @routes.post(
        "/api/extra/tokencount",
        summary="Token ids of a text",
        openapi_extra=schema.body(
            {
                "prompt": schema.plain("string", "the text"),
                "special": schema.plain("boolean", "with BOS"),
            },
            ("prompt",),
        ),
    )
    async def count(request: Request) -> Response:
        body = await read_json(request)
        text = values.text(_MAX_TEXT_CHARS)("prompt", body.get("prompt"))
        special = values.flag("special", body.get("special") or False)
        tokens = await generate.tokenize(text, add_special=special)
        return json_response({"value": len(tokens), "ids": tokens})

    @routes.post(
        "/api/extra/detokenize",
        summary="Text of token ids",
        openapi_extra=schema.body({"ids": schema.plain("array", "token ids")}, ("ids",)),
    )
    async def detokenize(request: Request) -> Response:
        tokens = values.token_ids("ids", (await read_json(request)).get("ids"))
        return json_response({"result": await generate.detokenize(tokens), "success": True})

    @routes.post(
        "/api/extra/json_to_grammar",
        summary="A grammar for a JSON schema",
        openapi_extra=schema.body({"schema": schema.plain("object", "the schema")}),
    )
    async def to_grammar(request: Request) -> Response:
        body = await read_json(request)
        form = body.get("schema", body)
        if not isinstance(form, dict):
            raise values.refuse("schema", "a JSON schema", form)
        # ``grammar`` takes a schema's text as well, so nothing is lost by a translation.
        return json_response({"result": json.dumps(form), "success": True})


def _add_facts(routes: APIRouter, models: Models, jobs: Jobs, is_protected: bool) -> None:
    @routes.get("/api/extra/version", summary="What this server can do, in KoboldCpp's words")
    async def version() -> Response:
        flags = dict.fromkeys(_FLAGS, False)
        flags["protected"] = is_protected
        flags["embeddings"] = any(each.facts.pooling for each in models.loaded)
        names = {"result": "KoboldCpp", "version": KOBOLDCPP_VERSION}
        return json_response(
            {**names, **flags, "guidance": True, "llm": models.facts is not None, "admin": 0}
        )

    @routes.get("/api/extra/true_max_context_length", summary="Context size")
    async def true_max_context_length() -> Response:
        return _context(models)

    @routes.get("/api/extra/preloadstory", summary="A story to begin with: none")
    async def preloadstory() -> Response:
        return json_response({})

    @routes.get("/api/extra/perf", summary="How the last reply went")
    async def perf() -> Response:
        return json_response(_perf(models, jobs))


def _context(models: Models) -> Response:
    return json_response({"value": models.facts.num_ctx if models.facts else 0})


async def _key(request: Request) -> str:
    return kobold_fields.key_of(await read_json(request, may_be_empty=True))


async def _with_memory(call: Call, generate: Generate) -> GenerateRequest:
    """``memory`` before the prompt. If both are too long together, the prompt loses its start."""
    request = call.request
    if not call.memory or not isinstance(request.prompt, str):
        return request
    if request.truncate_to is None:
        return msgspec.structs.replace(request, prompt=call.memory + request.prompt)
    memory = await generate.tokenize(call.memory, add_special=request.add_bos)
    tokens = await generate.tokenize(request.prompt)
    room = request.truncate_to - len(memory)
    if room <= 0:
        raise InvalidRequestError(
            f"memory has {len(memory)} tokens, and there is room for {request.truncate_to}",
            field="memory",
        )
    num_cut = max(0, len(tokens) - room)
    warning = f"{num_cut} tokens were cut off the start of the prompt, as asked"
    return msgspec.structs.replace(
        request,
        prompt=(*memory, *tokens[num_cut:]),
        truncate_to=None,
        warnings=(*request.warnings, *([warning] if num_cut else ())),
    )


async def _events(call: Call, generate: Generate) -> AsyncGenerator[Delta | Finished, None]:
    """Of a job that may be stopped while it still waits for its model."""
    request = await _with_memory(call, generate)
    async with contextlib.aclosing(generate.stream(request)) as events:
        async for each in events:
            yield each


async def _answer(call: Call, generate: Generate, jobs: Jobs) -> dict[str, Any]:
    job = jobs.begin(call.key)
    choices = await collect(job.follow(_events(call, generate)))
    warnings = [text for each in choices if each.finished for text in each.finished.warnings]
    seen = [each.finished.debug for each in choices if each.finished and each.finished.debug]
    return {
        "results": [_result(choice, call) for choice in choices or [Choice(0)]],
        "warnings": list(dict.fromkeys(warnings)),
        **({"debug": seen} if seen else {}),
    }


def _result(choice: Choice, call: Call) -> Result:
    finished, request = choice.finished, call.request
    wanted = request.logprobs is not None
    logprobs = content_logprobs(choice.logprobs) if wanted else None
    if finished is None:
        return Result(text=choice.text, finish_reason="stop", logprobs=logprobs)
    timings = finished.timings
    return Result(
        text=choice.text + _kept_stop(finished, call),
        finish_reason=finish_reason(finished),
        logprobs=logprobs,
        prompt_tokens=timings.prompt_n + timings.cache_n + timings.cache_approx_n,
        completion_tokens=timings.predicted_n,
    )


async def _pieces(call: Call, generate: Generate, jobs: Jobs) -> AsyncGenerator[bytes, None]:
    call = msgspec.structs.replace(call, request=_one(call.request))
    job = jobs.begin(call.key)
    last = StreamEvent("", "stop")
    async with contextlib.aclosing(job.follow(_events(call, generate))) as events:
        async for each in events:
            if not isinstance(each, Finished):
                if each.text:
                    yield _message(StreamEvent(each.text))
                continue
            if kept := _kept_stop(each, call):
                yield _message(StreamEvent(kept))
            last = StreamEvent("", finish_reason(each), each.warnings or UNSET, each.debug or UNSET)
    yield _message(last)


def _one(request: GenerateRequest) -> GenerateRequest:
    """A stream of this dialect has no place for a second reply."""
    if request.n == 1:
        return request
    warning = f"not applied: n = {request.n} (a stream is one reply)"
    return msgspec.structs.replace(request, n=1, warnings=(*request.warnings, warning))


def _message(event: StreamEvent | Mapping[str, Any]) -> bytes:
    return b"event: message\ndata: " + json_bytes(event) + b"\n\n"


def _broken(error_body: bytes) -> bytes:
    """The last event of a stream that broke."""
    error: Mapping[str, Any] = msgspec.json.decode(error_body)
    return _message({"token": "", "finish_reason": "error", **error})


def _kept_stop(finished: Finished, call: Call) -> str:
    return (finished.stop_text or "") if call.keeps_stop else ""


def _logprobs(job: Job) -> Any:
    return content_logprobs(job.logprobs) if job.logprobs else None


def _perf(models: Models, jobs: Jobs) -> dict[str, Any]:
    """KoboldCpp's figures; times in seconds."""
    job, stats = jobs.find(""), models.link.stats if models.link else None
    finished = job.finished if job else None
    timings = finished.timings if finished else None
    prompt_s = timings.prompt_ms / 1000 if timings else 0.0
    eval_s = timings.predicted_ms / 1000 if timings else 0.0
    num_prompt = timings.prompt_n if timings else 0
    num_new = timings.predicted_n if timings else 0
    reason = _STOP_REASONS.get(finished.reason, -1) if finished else -1
    if finished and finished.stop_text is not None:
        reason = _CUSTOM_STOP
    return {
        "last_process": prompt_s * 1000 / num_prompt if num_prompt else 0.0,
        "last_eval": eval_s * 1000 / num_new if num_new else 0.0,
        "last_token_count": num_new,
        "last_input_count": num_prompt,
        "last_process_time": prompt_s,
        "last_eval_time": eval_s,
        "last_process_speed": num_prompt / prompt_s if prompt_s else 0.0,
        "last_eval_speed": num_new / eval_s if eval_s else 0.0,
        "last_seed": -1,
        "last_draft_success": timings.draft_n_accepted if timings else 0,
        "last_draft_failed": timings.draft_n - timings.draft_n_accepted if timings else 0,
        "total_gens": jobs.num_begun,
        "total_img_gens": 0,
        "total_tts_gens": 0,
        "total_transcribe_gens": 0,
        "stop_reason": reason,
        "queue": stats.num_waiting if stats else 0,
        "idle": 0 if models.link and models.link.num_open else 1,
        "hordeexitcounter": 0,
        "uptime": time.monotonic() - jobs.started,
        "idletime": jobs.idle_seconds(),
        "quiet": False,
    }
