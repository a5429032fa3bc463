"""LoRA adapters, in Oobabooga's, TabbyAPI's and llama-server's words.

Adapters are part of a load, so another set loads the current model again, with its chats kept.
"""

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from innkeeper.api import schema, values
from innkeeper.api.openai import json_response
from innkeeper.api.stream import read_json
from innkeeper.core import LoraAdapter
from innkeeper.errors import InvalidRequestError, NotFoundError
from innkeeper.serving import Loras, Models, lora_names

_MOST_WAIT_SECONDS = 300
_MAX_LORAS = 64
_read_name = values.text(1000)
_read_scale = values.number(-100, 100)


def router(models: Models, loras: Loras) -> APIRouter:
    """``/v1/internal/lora``, ``/v1/lora`` and ``/lora-adapters``."""
    routes = APIRouter()
    _add_oobabooga(routes, models, loras)
    _add_tabby(routes, models, loras)
    _add_llama_server(routes, models)
    return routes


def _add_oobabooga(routes: APIRouter, models: Models, loras: Loras) -> None:
    prefix, tags = "/v1/internal/lora", ["Oobabooga"]

    @routes.get(f"{prefix}/list", summary="The adapters that the model has", tags=[*tags])
    async def names() -> Response:
        return json_response({"lora_names": lora_names(models.facts)})

    @routes.post(
        f"{prefix}/load",
        summary="Load the model again, with these adapters",
        tags=[*tags],
        openapi_extra=schema.body({"lora_names": schema.plain("array", "names")}, ("lora_names",)),
    )
    async def load(request: Request) -> Response:
        given = values.texts(_MAX_LORAS, 1000)(
            "lora_names", (await read_json(request)).get("lora_names")
        )
        found = tuple(loras.find(name) for name in given)
        await _change(models, found)
        return json_response("OK")

    @routes.post(f"{prefix}/unload", summary="Load the model again, without adapters", tags=[*tags])
    async def unload() -> Response:
        await _change(models, ())
        return json_response("OK")


def _add_tabby(routes: APIRouter, models: Models, loras: Loras) -> None:
    tags = ["TabbyAPI"]

    @routes.get("/v1/lora/list", summary="Adapters that can be loaded", tags=[*tags])
    @routes.get("/v1/loras", include_in_schema=False)
    async def names() -> Response:
        return json_response(_cards([LoraAdapter(name) for name in loras.names()]))

    @routes.get("/v1/lora", summary="The adapters that the model has", tags=[*tags])
    async def loaded() -> Response:
        return json_response(_cards(models.facts.loras if models.facts else ()))

    @routes.post(
        "/v1/lora/load",
        summary="Load the model again, with these adapters",
        tags=[*tags],
        openapi_extra=schema.body(
            {"loras": schema.plain("array", "objects with name and scaling")}, ("loras",)
        ),
    )
    async def load(request: Request) -> Response:
        found, missing = _tabbys((await read_json(request)).get("loras"), loras)
        if found:
            await _change(models, tuple(found.values()))
        return json_response({"success": list(found), "failure": missing})

    @routes.post("/v1/lora/unload", summary="Load the model again, without adapters", tags=[*tags])
    async def unload() -> Response:
        await _change(models, ())
        return json_response(None)


def _add_llama_server(routes: APIRouter, models: Models) -> None:
    tags = ["llama-server"]

    @routes.get("/lora-adapters", summary="The adapters that the model has", tags=[*tags])
    async def adapters() -> Response:
        loaded = models.facts.loras if models.facts else ()
        return json_response(
            [{"id": i, "path": each.path, "scale": each.scale} for i, each in enumerate(loaded)]
        )

    @routes.post("/lora-adapters", summary="Load the model again, with these scales", tags=[*tags])
    async def scale(request: Request) -> Response:
        loaded = models.current_config().loras
        scales = _scales(await request.body(), len(loaded))
        # as in llama-server, an adapter that is not named gets 0
        changed = tuple(LoraAdapter(each.path, scales.get(i, 0.0)) for i, each in enumerate(loaded))
        await _change(models, changed)
        return json_response({"success": True})


async def _change(models: Models, loras: tuple[LoraAdapter, ...]) -> None:
    """Loads the current model again if that changes anything, once it writes no reply.

    Raises: BusyError if that takes too long.
    """
    if models.current_config().loras != loras:
        await models.at_rest(_MOST_WAIT_SECONDS)
        await models.start_reload(loras=loras).wait()


def _tabbys(given: Any, loras: Loras) -> tuple[dict[str, LoraAdapter], list[str]]:
    """Those that there are, by name, and the names of the others. Raises: InvalidRequestError."""
    if not isinstance(given, list) or len(given) > _MAX_LORAS:
        raise values.refuse("loras", f"a list of at most {_MAX_LORAS} objects", given)
    found, missing = {}, []
    for number, each in enumerate(given):
        field = f"loras[{number}]"
        if not isinstance(each, dict):
            raise values.refuse(field, "an object with name and scaling", each)
        name = _read_name(f"{field}.name", each.get("name"))
        scaling = each.get("scaling")
        scale = 1.0 if scaling is None else _read_scale(f"{field}.scaling", scaling)
        try:
            found[name] = loras.find(name, scale)
        except NotFoundError:
            missing.append(name)
    return found, missing


def _cards(adapters: Any) -> dict[str, Any]:
    cards = [
        {
            "id": each.path.removesuffix(".gguf"),
            "object": "lora",
            "created": 0,
            "owned_by": "tabbyAPI",
            "scaling": each.scale,
        }
        for each in adapters
    ]
    return {"object": "list", "data": cards}


def _scales(body: bytes, num_loaded: int) -> dict[int, float]:
    """``[{"id": ..., "scale": ...}]``. Raises: InvalidRequestError."""
    try:
        given = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise InvalidRequestError(f"the body is not valid JSON: {error}") from None
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise InvalidRequestError("the body must be a list of objects with id and scale")
    read_id = values.integer(0, max(0, num_loaded - 1))
    return {
        read_id(f"[{i}].id", each.get("id")): _read_scale(f"[{i}].scale", each.get("scale"))
        for i, each in enumerate(given)
    }
