"""TabbyAPI's own routes: the model, loading with progress, tokens, keys, templates.

Its completions and chats are OpenAI's, with the field names that are understood there.
"""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from innkeeper.api import chat, requests, schema, values
from innkeeper.api.errors import NotSupportedError
from innkeeper.api.oobabooga import overrides
from innkeeper.api.openai import json_response, known_models
from innkeeper.api.replies import json_bytes
from innkeeper.api.security import SCOPE_KEY
from innkeeper.api.stream import EventStream, event, read_json
from innkeeper.core import ModelFacts
from innkeeper.errors import NoModelError
from innkeeper.prompt import CHATML
from innkeeper.serving import Generate, LoadJob, Models, Overrides

_MAX_TEXT_CHARS = 16 * 1024 * 1024
_NUM_MODULES = 100
_MISSING = ("lora/load", "lora/unload", "download", "template/switch", "template/unload")


def router(generate: Generate, models: Models) -> APIRouter:
    """``/v1/model``, ``/v1/token``, ``/v1/auth``, ``/v1/template`` and empty lists beside them."""
    routes = APIRouter(prefix="/v1", tags=["TabbyAPI"])
    _add_models(routes, models)
    _add_tokens(routes, generate)
    _add_lists(routes, models)
    for path in _MISSING:
        _add_missing(routes, path)
    return routes


def _add_models(routes: APIRouter, models: Models) -> None:
    @routes.get("/model", summary="The loaded model")
    async def model() -> Response:
        if models.facts is None:
            raise NoModelError("no model is loaded", hint="load one first")
        return json_response(_card(models.facts.name, models.facts))

    @routes.get("/model/list", summary="Models that can be loaded")
    async def names() -> Response:
        cards = [_card(name, facts) for name, facts in known_models(models).items()]
        return json_response({"object": "list", "data": cards})

    @routes.post(
        "/model/load",
        summary="Load a model of the list; progress as events",
        openapi_extra=schema.body(
            {
                "model_name": schema.plain("string", "a name of the list"),
                "max_seq_len": schema.plain("integer", "context size"),
                "max_batch_size": schema.plain("integer", "replies at the same time"),
                "cache_mode": schema.plain("string", "number type of the cache"),
            },
            ("model_name",),
        ),
    )
    async def load(request: Request) -> Response:
        body = await read_json(request)
        name = values.text(1000)("model_name", body.get("model_name") or body.get("name"))
        job = models.start_load(name, _overrides(body))
        return EventStream(_progress(job), last=_broken)

    @routes.post("/model/unload", summary="Unload the model")
    async def unload() -> Response:
        await models.unload()
        return json_response(None)


def _add_tokens(routes: APIRouter, generate: Generate) -> None:
    @routes.post(
        "/token/encode",
        summary="Token ids of a text or a chat",
        openapi_extra=schema.body({"text": {"description": "text, or messages"}}, ("text",)),
    )
    async def encode(request: Request) -> Response:
        body = await read_json(request)
        text = body.get("text")
        if isinstance(text, list):
            text = await generate.render(chat.parse({**body, "messages": text}).request)
        tokens = await generate.tokenize(
            values.text(_MAX_TEXT_CHARS)("text", text),
            model=requests.model(body),
            add_special=values.flag("add_bos_token", body.get("add_bos_token") or False),
            parse_special=values.flag(
                "encode_special_tokens", body.get("encode_special_tokens", True)
            ),
        )
        return json_response({"tokens": tokens, "length": len(tokens)})

    @routes.post(
        "/token/decode",
        summary="Text of token ids",
        openapi_extra=schema.body({"tokens": {"type": "array"}}, ("tokens",)),
    )
    async def decode(request: Request) -> Response:
        tokens = values.token_ids("tokens", (await read_json(request)).get("tokens"))
        return json_response({"text": await generate.detokenize(tokens)})


def _add_lists(routes: APIRouter, models: Models) -> None:
    @routes.get("/auth/permission", summary="What the key of this request allows")
    async def permission(request: Request) -> Response:
        is_low = request.scope.get(SCOPE_KEY) == "chat"
        return json_response({"permission": "api" if is_low else "admin"})

    @routes.get("/template/list", summary="Chat templates: the model's own")
    @routes.get("/templates", include_in_schema=False)
    async def templates() -> Response:
        has_one = models.facts is not None and models.facts.chat_template is not None
        return json_response({"object": "list", "data": ["from_model"] if has_one else ["chatml"]})

    @routes.get("/model/draft/list", include_in_schema=False)
    @routes.get("/model/embedding/list", include_in_schema=False)
    @routes.get("/lora/list", include_in_schema=False)
    @routes.get("/loras", include_in_schema=False)
    @routes.get("/lora", include_in_schema=False)
    async def nothing() -> Response:
        return json_response({"object": "list", "data": []})

    @routes.get("/sampling/overrides", include_in_schema=False)
    @routes.get("/sampling/override/list", include_in_schema=False)
    async def sampling() -> Response:
        return json_response({"selected_preset": None, "overrides": {}, "presets": []})


def _add_missing(routes: APIRouter, path: str) -> None:
    @routes.post(f"/{path}", include_in_schema=False)
    async def missing() -> Response:
        raise NotSupportedError(f"/v1/{path} is not supported by this server")


def _card(name: str, facts: ModelFacts | None) -> dict[str, Any]:
    card: dict[str, Any] = {"id": name, "object": "model", "created": 0, "owned_by": "tabbyAPI"}
    if facts is None:
        return card
    return {
        **card,
        "parameters": {
            "max_seq_len": facts.num_ctx,
            "cache_size": facts.num_pool,
            "cache_mode": "FP16",
            "max_batch_size": facts.max_sequences,
            "prompt_template": "from_model" if facts.chat_template else "chatml",
            "prompt_template_content": facts.chat_template or CHATML,
            "use_vision": False,
            "draft": None,
        },
    }


def _overrides(body: Mapping[str, Any]) -> Overrides:
    """Tabby's loader arguments, as far as they mean something here."""
    cache = body.get("cache_mode")
    if isinstance(cache, str):
        cache = {"FP16": "f16", "Q8": "q8_0", "Q4": "q4_0"}.get(cache.upper(), cache)
    names = {"max_seq_len": "max_seq_len", "parallel": "max_batch_size"}
    arguments = {ours: body.get(theirs) for ours, theirs in names.items()}
    return overrides({**arguments, "cache_type": cache}, prefix="")


async def _progress(job: LoadJob) -> AsyncGenerator[bytes, None]:
    """One event for each hundredth, and one at the end. Raises: what the load failed with."""
    async for state in job.watch():
        if state.status == "running":
            yield _step(round(state.fraction * _NUM_MODULES), "processing")
    await job.wait()
    yield _step(_NUM_MODULES, "finished")


def _broken(error_body: bytes) -> bytes:
    """The last event of a load that failed."""
    message = msgspec.json.decode(error_body)["detail"]
    return event(json_bytes({"error": {"message": message, "trace": ""}}))


def _step(number: int, status: str) -> bytes:
    step = {"model_type": "model", "module": number, "modules": _NUM_MODULES, "status": status}
    return event(json_bytes(step))
