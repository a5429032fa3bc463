"""TabbyAPI's switches: chat templates and sampler overrides for all requests."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from innkeeper.api import schema, values
from innkeeper.api.openai import json_response
from innkeeper.api.standing import Standing, template
from innkeeper.api.stream import read_json
from innkeeper.core import ModelFacts
from innkeeper.core.presets import PRESETS
from innkeeper.errors import InvalidRequestError
from innkeeper.prompt import instruct
from innkeeper.serving import Models

OWN_TEMPLATE = "from_model"


def router(models: Models, standing: Standing) -> APIRouter:
    """``/v1/template`` and ``/v1/sampling``."""
    routes = APIRouter(prefix="/v1", tags=["TabbyAPI"])
    _add_templates(routes, models, standing)
    _add_sampling(routes, standing)
    return routes


def template_name(facts: ModelFacts, standing: Standing) -> str:
    """What chats with this model are written in."""
    own = OWN_TEMPLATE if facts.chat_template else "ChatML"
    return standing.template_name(facts.name) or own


def _add_templates(routes: APIRouter, models: Models, standing: Standing) -> None:
    @routes.get("/template/list", summary="Chat templates by name")
    @routes.get("/templates", include_in_schema=False)
    async def templates() -> Response:
        has_own = models.facts is not None and models.facts.chat_template is not None
        names = [*([OWN_TEMPLATE] if has_own else []), *instruct.NAMES]
        return json_response({"object": "list", "data": names})

    @routes.post(
        "/template/switch",
        summary="The template of chats with the current model that bring none",
        openapi_extra=schema.body(
            {"prompt_template_name": schema.plain("string", "a name of the list")},
            ("prompt_template_name",),
        ),
    )
    async def switch(request: Request) -> Response:
        name = (await read_json(request)).get("prompt_template_name")
        if not name:
            raise values.refuse("prompt_template_name", "a name of the list", name)
        chosen = template(name, field="prompt_template_name")
        standing.set_template(_current(models), chosen)
        return json_response(None)

    @routes.post("/template/unload", summary="Back to the model's own template")
    async def unload() -> Response:
        standing.set_template(_current(models), None)
        return json_response(None)


def _add_sampling(routes: APIRouter, standing: Standing) -> None:
    @routes.get("/sampling/override/list", summary="Sampling values that stand, and presets")
    @routes.get("/sampling/overrides", include_in_schema=False)
    async def overrides() -> Response:
        return json_response(
            {
                "selected_preset": standing.preset,
                "overrides": standing.overrides,
                "presets": list(PRESETS),
            }
        )

    @routes.post(
        "/sampling/override/switch",
        summary="Sampling values for requests that leave them open",
        openapi_extra=schema.body(
            {
                "preset": schema.plain("string", "a preset's name"),
                "overrides": schema.plain("object", "by field: override, force, additive"),
            }
        ),
    )
    async def switch(request: Request) -> Response:
        body: dict[str, Any] = await read_json(request)
        if body.get("preset"):
            standing.set_preset(body["preset"])
        elif body.get("overrides"):
            standing.set_overrides(body["overrides"])
        else:
            raise InvalidRequestError("preset or overrides is missing", field="preset")
        return json_response(None)

    @routes.post("/sampling/override/unload", summary="No sampling values stand any more")
    async def unload() -> Response:
        standing.unset_overrides()
        return json_response(None)


def _current(models: Models) -> str:
    return models.current_facts().name
