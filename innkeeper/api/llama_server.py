"""What llama-server's clients ask: ``/health`` and ``/props``."""

from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from innkeeper import __version__
from innkeeper.api.openai import json_response
from innkeeper.core import ModelFacts, SamplingParams
from innkeeper.errors import NoModelError
from innkeeper.prompt import CHATML
from innkeeper.serving import Models


def router(models: Models) -> APIRouter:
    """``/health`` and ``/props``."""
    routes = APIRouter(tags=["Server"])

    @routes.get("/health", summary="200 once requests will be answered, else 503")
    async def health() -> Response:
        status, fraction = _health(models)
        response = json_response({"status": status, "progress": fraction})
        response.status_code = 200 if status in ("ok", "no model") else 503
        return response

    @routes.get("/props", summary="The loaded model's properties")
    async def props() -> Response:
        if models.facts is None:
            raise NoModelError("no model is loaded", hint="load one first")
        return json_response(_props(models.facts))

    return routes


def _health(models: Models) -> tuple[str, float]:
    """One word, and how much of a load is done."""
    job = models.job
    if models.healthy:
        return "ok", 1.0
    if job is not None and job.running:
        return "loading model", job.state.fraction
    if models.facts is not None:
        return "restarting engine", 0.0
    if job is not None and job.state.status == "failed":
        return "loading failed", job.state.fraction
    return "no model", 0.0


def _props(facts: ModelFacts) -> dict[str, Any]:
    defaults = msgspec.structs.asdict(SamplingParams())
    params = {name: value for name, value in defaults.items() if isinstance(value, int | float)}
    return {
        "chat_template": facts.chat_template or CHATML,
        "default_generation_settings": {"n_ctx": facts.num_ctx, "params": params},
        "total_slots": facts.max_sequences,
        "model_path": facts.name,
        "model_alias": facts.name,
        "bos_token": facts.bos_text,
        "eos_token": facts.eos_text,
        "modalities": {"vision": False, "audio": False},
        "build_info": f"innkeeper {__version__}",
    }
