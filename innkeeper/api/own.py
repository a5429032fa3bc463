"""Innkeeper's own routes, under ``/innkeeper/v1``: how the server and a load are doing."""

from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from innkeeper.api.errors import error_body
from innkeeper.api.openai import json_response
from innkeeper.api.replies import json_bytes
from innkeeper.api.stream import DONE, EventStream, event
from innkeeper.core import ModelFacts
from innkeeper.errors import NotFoundError
from innkeeper.serving import LoadedModel, LoadJob, LoadState, Models


def router(models: Models) -> APIRouter:
    """``/innkeeper/v1/status`` and ``/innkeeper/v1/load/events``."""
    routes = APIRouter(prefix="/innkeeper/v1", tags=["Innkeeper"])

    @routes.get("/status", summary="The model, its engine, and the newest load")
    async def status() -> Response:
        link = models.link
        return json_response(
            {
                "model": _model(models.facts) if models.facts else None,
                "loaded": [_loaded(each, models) for each in models.loaded],
                "healthy": models.healthy,
                "engine": link.stats if link is not None else None,
                "load": _state(models.job.state) if models.job else None,
            }
        )

    @routes.get("/load/events", summary="The progress of the newest load, as events to its end")
    async def load_events() -> Response:
        if models.job is None:
            raise NotFoundError("nothing has been loaded yet")
        return EventStream(_progress(models.job))

    return routes


def _model(facts: ModelFacts) -> dict[str, Any]:
    """All but the path: clients have no use for this computer's folders."""
    known = msgspec.structs.asdict(facts)
    del known["path"]
    return known


def _loaded(model: LoadedModel, models: Models) -> dict[str, Any]:
    return {
        "name": model.name,
        "busy": model.is_busy,
        "memory_bytes": model.need.ram_bytes + model.need.weights_bytes,
        "seconds_left": models.seconds_left(model),
    }


async def _progress(job: LoadJob) -> AsyncGenerator[bytes, None]:
    async for state in job.watch():
        yield event(json_bytes(_state(state)))
    yield DONE


def _state(state: LoadState) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": state.name,
        "status": state.status,
        "stage": state.stage,
        "progress": round(state.fraction, 4),
    }
    return found if state.error is None else {**found, **error_body(state.error)}
