"""Ollama's routes that change which models are here.

Models come from Hugging Face, by the names that Ollama has for it too (``hf.co/org/name:quant``);
Ollama's own registry is not used. A copy is one more name for the same file.
"""

import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from innkeeper.api import schema, values
from innkeeper.api.errors import NotSupportedError
from innkeeper.api.ollama import lines
from innkeeper.api.ollama_cards import find
from innkeeper.api.ollama_fields import model_name
from innkeeper.api.openai import json_response
from innkeeper.api.replies import json_bytes
from innkeeper.api.stream import read_json, unless_client_leaves
from innkeeper.errors import InvalidRequestError, NotFoundError
from innkeeper.serving import Collection, ModelEntry, Models, PullState, Wanted
from innkeeper.serving.names import bare

_SUCCESS = {"status": "success"}
_BODY = schema.body(
    {
        "model": schema.plain("string", "a name; to pull: hf.co/ORG/NAME:QUANT"),
        "stream": schema.plain("boolean", "progress as lines of JSON; true unless it is said"),
    },
    ("model",),
)
_COPY_BODY = schema.body(
    {
        "source": schema.plain("string", "a name of the list"),
        "destination": schema.plain("string", "one more name for it"),
    },
    ("source", "destination"),
)
_CREATE_BODY = schema.body(
    {
        "model": schema.plain("string", "one more name"),
        "from": schema.plain("string", "for this one of the list"),
        "stream": schema.plain("boolean", "progress as lines of JSON; true unless it is said"),
    },
    ("model", "from"),
)
_NOT_MADE = (
    "files adapters template system license parameters messages quantize quantization"
    " modelfile renderer parser"
).split()


def router(collection: Collection, models: Models) -> APIRouter:
    """``/api/pull``, ``/api/delete``, ``/api/copy``, ``/api/create``, ``/api/blobs``."""
    routes = APIRouter(tags=["Ollama"])
    _add_pull(routes, collection, models)
    _add_names(routes, collection, models)
    _add_blobs(routes)
    return routes


def _add_pull(routes: APIRouter, collection: Collection, models: Models) -> None:
    @routes.post("/api/pull", summary="Download a model", openapi_extra=_BODY)
    async def pull(request: Request) -> Response:
        body = await read_json(request)
        name = model_name(body)
        if _is_here(name, models):
            return await _answer(request, body, _nothing_to_do())
        wanted = Wanted(address=_address(name))
        return await _answer(request, body, _progress(collection, wanted))

    @routes.post("/api/push", include_in_schema=False)
    async def push() -> Response:
        raise NotSupportedError("/api/push is not supported by this server: it has no registry")


def _add_names(routes: APIRouter, collection: Collection, models: Models) -> None:
    @routes.delete("/api/delete", summary="Delete a model's file", openapi_extra=_BODY)
    async def delete(request: Request) -> Response:
        await collection.remove(find(model_name(await read_json(request)), models).name)
        return Response()

    @routes.post("/api/copy", summary="One more name for a model", openapi_extra=_COPY_BODY)
    async def copy(request: Request) -> Response:
        body = await read_json(request)
        read = values.text(1000)
        source = find(read("source", body.get("source")), models)
        await collection.link(source, _new_name(read("destination", body.get("destination"))))
        return Response()

    @routes.post("/api/create", summary="One more name for a model", openapi_extra=_CREATE_BODY)
    async def create(request: Request) -> Response:
        body = await read_json(request)
        if unmade := [field for field in _NOT_MADE if body.get(field)]:
            raise NotSupportedError(
                f"{unmade[0]}: this server makes no models; /api/create gives one more name alone",
                field=unmade[0],
                hint="send these with each request instead, or put a GGUF into the models folder",
            )
        source = find(values.text(1000)("from", body.get("from")), models)
        making = _create(collection, source, _new_name(model_name(body)))
        return await _answer(request, body, making)


def _add_blobs(routes: APIRouter) -> None:
    @routes.head("/api/blobs/{digest}", include_in_schema=False)
    async def has_blob(digest: str) -> Response:
        return Response(status_code=404)

    @routes.post("/api/blobs/{digest}", include_in_schema=False)
    async def add_blob(digest: str) -> Response:
        raise NotSupportedError(
            "files cannot be sent to this server", hint="put them into its models folder"
        )


async def _answer(
    request: Request, body: Mapping[str, Any], states: AsyncGenerator[dict[str, Any], None]
) -> Response:
    """Lines, which a stream is unless the body says otherwise; or the last of them alone."""
    stream = body.get("stream")
    if values.flag("stream", True if stream is None else stream):
        return lines(json_bytes(state) + b"\n" async for state in states)
    return json_response(await unless_client_leaves(request.receive, _last(states)))


async def _last(states: AsyncGenerator[dict[str, Any], None]) -> dict[str, Any]:
    async with contextlib.aclosing(states):
        return [state async for state in states][-1]


async def _nothing_to_do() -> AsyncGenerator[dict[str, Any], None]:
    yield _SUCCESS


async def _progress(collection: Collection, wanted: Wanted) -> AsyncGenerator[dict[str, Any], None]:
    """In Ollama's words. Raises: what the download failed with."""
    yield {"status": "pulling manifest"}
    async with contextlib.aclosing(collection.pull(wanted).follow()) as states:
        async for state in states:
            if state.stage != "listing":
                yield _layer(state)
    for status in ("verifying sha256 digest", "writing manifest"):
        yield {"status": status}
    yield _SUCCESS


def _layer(state: PullState) -> dict[str, Any]:
    return {
        "status": f"pulling {state.digest[:12]}",
        "digest": f"sha256:{state.digest}",
        "total": state.total_bytes,
        "completed": state.done_bytes,
    }


async def _create(
    collection: Collection, source: ModelEntry, name: str
) -> AsyncGenerator[dict[str, Any], None]:
    yield {"status": "using existing layer"}
    await collection.link(source, name)
    yield {"status": "writing manifest"}
    yield _SUCCESS


def _is_here(name: str, models: Models) -> bool:
    try:
        find(name, models)
    except NotFoundError:
        return False
    return True


def _address(name: str) -> str:
    """A repository's name. Raises: NotFoundError for what only Ollama's registry has."""
    address = bare(name)
    if "/" not in address:
        raise NotFoundError(
            f"model '{name[:80]}' not found: this server pulls from Hugging Face",
            field="model",
            hint="name a repository: hf.co/ORG/NAME:QUANT",
        )
    return address


def _new_name(name: str) -> str:
    """``name:tag`` as the name of a file in a folder. Raises: InvalidRequestError."""
    name, _, tag = name.removesuffix(":latest").partition(":")
    if not name:
        raise InvalidRequestError("the new name is empty", field="destination")
    return f"{name}/{tag}" if tag else name
