"""TabbyAPI's own routes: the model, loading with progress, tokens, keys, downloads.

Its completions and chats are OpenAI's, with the field names that are understood there.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from innkeeper.api import requests, schema, values
from innkeeper.api.oobabooga import overrides
from innkeeper.api.openai import find, json_response, known_models
from innkeeper.api.replies import json_bytes
from innkeeper.api.security import SCOPE_KEY
from innkeeper.api.standing import Standing, template
from innkeeper.api.stream import EventStream, event, read_json, unless_client_leaves
from innkeeper.api.tabby_switches import template_name
from innkeeper.core import ModelFacts
from innkeeper.prompt import CHATML
from innkeeper.serving import Collection, Generate, LoadJob, Models, Overrides, Wanted

_MAX_TEXT_CHARS = 16 * 1024 * 1024
_NUM_MODULES = 100
_LOAD_FIELDS = (
    "model_name name max_seq_len max_batch_size cache_mode prompt_template skip_queue backend"
    " output_chunking gpu_split gpu_split_auto"
).split()
"""Those that are applied, and those that change nothing here."""
_DOWNLOAD_FIELDS = "repo_id repo_type revision token include exclude chunk_limit timeout".split()
_read_patterns = values.texts(100, 1000)


def router(
    generate: Generate, models: Models, collection: Collection, standing: Standing
) -> APIRouter:
    """``/v1/model``, ``/v1/token``, ``/v1/auth`` and ``/v1/download``."""
    routes = APIRouter(prefix="/v1", tags=["TabbyAPI"])
    _add_models(routes, models, standing)
    _add_tokens(routes, generate, standing)
    _add_lists(routes)
    _add_embedding(routes, models)
    _add_download(routes, collection)
    return routes


def _add_models(routes: APIRouter, models: Models, standing: Standing) -> None:
    @routes.get("/model", summary="The loaded model")
    async def model() -> Response:
        facts = models.current_facts()
        return json_response(_card(facts.name, facts, standing))

    @routes.get("/model/list", summary="Models that can be loaded")
    async def names() -> Response:
        cards = [_card(name, facts, standing) for name, facts in known_models(models).items()]
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
                "prompt_template": schema.plain("string", "a name of the templates' list"),
            },
            ("model_name",),
        ),
    )
    async def load(request: Request) -> Response:
        body = await read_json(request)
        name = values.text(1000)("model_name", body.get("model_name") or body.get("name"))
        chosen = template(body.get("prompt_template"), field="prompt_template")
        job = models.start_load(name, _overrides(body))
        standing.set_template_after(job, chosen)
        return EventStream(_progress(job, _not_applied(body)), last=_broken)

    @routes.post("/model/unload", summary="Unload the model")
    async def unload() -> Response:
        await models.unload()
        return json_response(None)


def _add_tokens(routes: APIRouter, generate: Generate, standing: Standing) -> None:
    @routes.post(
        "/token/encode",
        summary="Token ids of a text or a chat",
        openapi_extra=schema.body({"text": {"description": "text, or messages"}}, ("text",)),
    )
    async def encode(request: Request) -> Response:
        body = await read_json(request)
        text = body.get("text")
        if isinstance(text, list):
            text = await generate.render(standing.chat({**body, "messages": text}).request)
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


def _add_lists(routes: APIRouter) -> None:
    @routes.get("/auth/permission", summary="What the key of this request allows")
    async def permission(request: Request) -> Response:
        is_low = request.scope.get(SCOPE_KEY) == "chat"
        return json_response({"permission": "api" if is_low else "admin"})

    @routes.get("/model/draft/list", include_in_schema=False)
    async def nothing() -> Response:
        return json_response({"object": "list", "data": []})


def _add_embedding(routes: APIRouter, models: Models) -> None:
    @routes.get("/model/embedding", include_in_schema=False)
    @routes.get("/model/embedding/list", include_in_schema=False)
    async def embedders() -> Response:
        names = [each.name for each in models.loaded if each.facts.pooling]
        cards = [{"id": name, "object": "model", "owned_by": "tabbyAPI"} for name in names]
        return json_response({"object": "list", "data": cards})

    @routes.post(
        "/model/embedding/load",
        summary="Load an embedding model beside the others",
        openapi_extra=schema.body(
            {"embedding_model_name": schema.plain("string", "a name of the list")},
            ("embedding_model_name",),
        ),
    )
    async def load(request: Request) -> Response:
        field = "embedding_model_name"
        await models.engine(find((await read_json(request)).get(field), models, field))
        step = {"model_type": "embedding_model", "module": 1, "modules": 1, "status": "finished"}
        return json_response(step)

    @routes.post("/model/embedding/unload", summary="Unload the embedding models")
    async def unload() -> Response:
        for each in models.loaded:
            if each.facts.pooling:
                await models.unload(each.name)
        return json_response(None)


def _add_download(routes: APIRouter, collection: Collection) -> None:
    @routes.post(
        "/download",
        summary="Download a model of the Hugging Face hub; answers when it is here",
        openapi_extra=schema.body(
            {
                "repo_id": schema.plain("string", "org/name, or org/name:quant"),
                "revision": schema.plain("string", "a branch, tag or commit"),
                "include": schema.plain("array", "patterns of file names, such as *Q4_K_M*"),
                "exclude": schema.plain("array", "the same, to leave out"),
                "token": schema.plain("string", "an access token for this download"),
            },
            ("repo_id",),
        ),
    )
    async def download(request: Request) -> Response:
        body = await read_json(request)
        pulling = collection.pull(_wanted(body)).wait()
        name = await unless_client_leaves(request.receive, pulling)
        warnings = [f"not applied: {key}" for key in body if key not in _DOWNLOAD_FIELDS]
        return json_response({"download_path": name, "warnings": warnings})


def _wanted(body: Mapping[str, Any]) -> Wanted:
    """Raises: InvalidRequestError."""
    read = values.text(1000)
    if body.get("repo_type") not in (None, "", "model"):
        raise values.refuse("repo_type", "model", body["repo_type"])
    revision, token = (
        read(name, body[name]) if body.get(name) else None for name in ("revision", "token")
    )
    include, exclude = (
        _read_patterns(name, body.get(name) or []) for name in ("include", "exclude")
    )
    return Wanted(
        address=read("repo_id", body.get("repo_id")),
        revision=revision,
        include=() if include == ("*",) else include,
        exclude=exclude,
        token=token,
        field="repo_id",
    )


def _card(name: str, facts: ModelFacts | None, standing: Standing) -> dict[str, Any]:
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
            "prompt_template": template_name(facts, standing),
            "prompt_template_content": facts.chat_template or CHATML,
            "use_vision": False,
            "draft": {"id": facts.draft, "object": "model"} if facts.draft else None,
        },
    }


def _overrides(body: Mapping[str, Any]) -> Overrides:
    """Tabby's loader arguments, as far as they mean something here."""
    cache = body.get("cache_mode")
    if isinstance(cache, str):
        cache = {"FP16": "f16", "Q8": "q8_0", "Q4": "q4_0"}.get(cache.upper(), cache)
    names = {
        "max_seq_len": "max_seq_len",
        "parallel": "max_batch_size",
        "tensor_split": "gpu_split",
        "cache_type": "cache_mode",
    }
    arguments = {ours: body.get(theirs) for ours, theirs in names.items()}
    return overrides({**arguments, "cache_type": cache}, called=names)


def _not_applied(body: Mapping[str, Any]) -> list[str]:
    return [f"not applied: {name}" for name in body if body[name] and name not in _LOAD_FIELDS]


async def _progress(job: LoadJob, warnings: Sequence[str]) -> AsyncGenerator[bytes, None]:
    """One event for each hundredth, and one at the end. Raises: what the load failed with."""
    async for state in job.watch():
        if state.status == "running":
            yield _step(round(state.fraction * _NUM_MODULES), "processing")
    await job.wait()
    yield _step(_NUM_MODULES, "finished", warnings=warnings)


def _broken(error_body: bytes) -> bytes:
    """The last event of a load that failed."""
    message = msgspec.json.decode(error_body)["detail"]
    return event(json_bytes({"error": {"message": message, "trace": ""}}))


def _step(number: int, status: str, warnings: Sequence[str] = ()) -> bytes:
    step = {"model_type": "model", "module": number, "modules": _NUM_MODULES, "status": status}
    return event(json_bytes({**step, **({"warnings": warnings} if warnings else {})}))
