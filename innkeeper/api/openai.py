"""OpenAI's routes: models, completions, chat."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from innkeeper.api import chat, completions, schema
from innkeeper.api.replies import json_bytes
from innkeeper.api.stream import EventStream, read_json, unless_client_leaves
from innkeeper.core import ModelFacts
from innkeeper.errors import NotFoundError
from innkeeper.serving import Generate, Models


def json_response(value: Any) -> Response:
    """``value`` as a JSON answer."""
    return Response(json_bytes(value), media_type="application/json")


def router(generate: Generate, models: Models) -> APIRouter:
    """``/v1/models``, ``/v1/completions`` and ``/v1/chat/completions``."""
    routes = APIRouter(tags=["OpenAI"])

    @routes.get("/v1/models", summary="The loaded model, as a list")
    async def list_models(request: Request) -> Response:
        if "anthropic-version" in request.headers:
            return json_response(_anthropic_list(models.facts))
        cards = [_card(models.facts)] if models.facts else []
        return json_response({"object": "list", "data": cards})

    @routes.get("/v1/models/{model_id:path}", summary="The loaded model")
    async def get_model(model_id: str, request: Request) -> Response:
        if models.facts is None or models.facts.name != model_id:
            raise NotFoundError(f"the model {model_id[:80]!r} is not loaded", field="model")
        if "anthropic-version" in request.headers:
            return json_response(_anthropic_card(models.facts))
        return json_response(_card(models.facts))

    @routes.post("/v1/completions", summary="Continue a text", openapi_extra=schema.COMPLETION_BODY)
    async def complete(request: Request) -> Response:
        call = completions.parse(await read_json(request))
        if call.stream:
            return EventStream(completions.stream(call, generate))
        answer = completions.answer(call, generate)
        return _json(await unless_client_leaves(request.receive, answer))

    @routes.post("/v1/chat/completions", summary="Answer a chat", openapi_extra=schema.CHAT_BODY)
    async def complete_chat(request: Request) -> Response:
        call = chat.parse(await read_json(request))
        if call.stream:
            return EventStream(chat.stream(call, generate))
        return _json(await unless_client_leaves(request.receive, chat.answer(call, generate)))

    return routes


def _json(data: bytes) -> Response:
    return Response(data, media_type="application/json")


def _card(facts: ModelFacts) -> dict[str, Any]:
    return {
        "id": facts.name,
        "object": "model",
        "created": 0,
        "owned_by": "user",
        "meta": {
            "n_vocab": facts.num_vocab,
            "n_ctx": facts.num_ctx,
            "n_ctx_train": facts.num_ctx_train,
            "n_params": facts.num_params,
            "size": facts.size_bytes,
        },
    }


def _anthropic_list(facts: ModelFacts | None) -> dict[str, Any]:
    cards = [_anthropic_card(facts)] if facts else []
    name = facts.name if facts else None
    return {"data": cards, "has_more": False, "first_id": name, "last_id": name}


def _anthropic_card(facts: ModelFacts) -> dict[str, Any]:
    return {
        "type": "model",
        "id": facts.name,
        "display_name": facts.name,
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": facts.num_ctx,
        "max_tokens": facts.num_ctx,
    }
