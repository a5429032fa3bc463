"""OpenAI's routes: models, completions, chat."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from innkeeper.api import chat, completions, schema, values
from innkeeper.api.replies import json_bytes
from innkeeper.api.standing import Standing
from innkeeper.api.stream import EventStream, read_json, unless_client_leaves
from innkeeper.core import ModelFacts
from innkeeper.errors import NotFoundError
from innkeeper.serving import Generate, Models
from innkeeper.serving.names import bare, match


def json_response(value: Any) -> Response:
    """``value`` as a JSON answer."""
    return Response(json_bytes(value), media_type="application/json")


def router(generate: Generate, models: Models, standing: Standing) -> APIRouter:
    """``/v1/models``, ``/v1/completions`` and ``/v1/chat/completions``."""
    routes = APIRouter(tags=["OpenAI"])

    @routes.get("/models", include_in_schema=False)
    @routes.get("/v1/models", summary="Models that a request may name; the current one first")
    async def list_models(request: Request) -> Response:
        known = known_models(models)
        if "anthropic-version" in request.headers:
            return json_response(_anthropic_list(known))
        cards = [_card(name, facts) for name, facts in known.items()]
        return json_response({"object": "list", "data": cards})

    @routes.get("/v1/models/{model_id:path}", summary="One model")
    async def get_model(model_id: str, request: Request) -> Response:
        known = known_models(models)
        if model_id not in known:
            raise NotFoundError(
                f"there is no model {model_id[:80]!r} here",
                field="model",
                hint="GET /v1/models lists what there is",
            )
        card = _anthropic_card if "anthropic-version" in request.headers else _card
        return json_response(card(model_id, known[model_id]))

    @routes.post("/v1/completions", summary="Continue a text", openapi_extra=schema.COMPLETION_BODY)
    async def complete(request: Request) -> Response:
        call = standing.completion(await read_json(request))
        if call.stream:
            return EventStream(completions.stream(call, generate))
        answer = completions.answer(call, generate)
        return _json(await unless_client_leaves(request.receive, answer))

    @routes.post("/v1/chat/completions", summary="Answer a chat", openapi_extra=schema.CHAT_BODY)
    async def complete_chat(request: Request) -> Response:
        call = standing.chat(await read_json(request))
        if call.stream:
            return EventStream(chat.stream(call, generate))
        return _json(await unless_client_leaves(request.receive, chat.answer(call, generate)))

    @routes.get("/v1/billing/usage", include_in_schema=False)
    async def usage() -> Response:
        return json_response({"total_usage": 0})

    return routes


def _json(data: bytes) -> Response:
    return Response(data, media_type="application/json")


def find(name: Any, models: Models, field: str = "model") -> str:
    """The listed model that is meant, however many are loaded.

    Raises: NotFoundError, InvalidRequestError.
    """
    wanted = values.text(1000)(field, name)
    found = match(bare(wanted), known_models(models))
    if found is None:
        raise NotFoundError(
            f"there is no model {wanted[:80]!r} here",
            field=field,
            hint="GET /v1/models lists what there is",
        )
    return found


def known_models(models: Models) -> dict[str, ModelFacts | None]:
    """By name: the loaded ones with what is known of them, then those that can be loaded."""
    loaded = {each.name: each.facts for each in models.loaded}
    others = [each.name for each in models.entries() if each.name not in loaded]
    return {**loaded, **dict.fromkeys(others)}


def _card(name: str, facts: ModelFacts | None) -> dict[str, Any]:
    card = {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "user",
        "status": {"value": "loaded" if facts else "unloaded"},
    }
    if facts is None:
        return card
    return {
        **card,
        "meta": {
            "n_vocab": facts.num_vocab,
            "n_ctx": facts.num_ctx,
            "n_ctx_train": facts.num_ctx_train,
            "n_params": facts.num_params,
            "size": facts.size_bytes,
        },
    }


def _anthropic_list(known: dict[str, ModelFacts | None]) -> dict[str, Any]:
    cards = [_anthropic_card(name, facts) for name, facts in known.items()]
    first, last = next(iter(known), None), next(reversed(known), None)
    return {"data": cards, "has_more": False, "first_id": first, "last_id": last}


def _anthropic_card(name: str, facts: ModelFacts | None) -> dict[str, Any]:
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": facts.num_ctx if facts else None,
        "max_tokens": facts.num_ctx if facts else None,
    }
