"""How the server is doing, in llama-server's words: health, properties, slots, counters."""

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from innkeeper import __version__
from innkeeper.api import schema, values
from innkeeper.api.errors import NotSupportedError
from innkeeper.api.openai import find, json_response
from innkeeper.api.stream import read_json
from innkeeper.core import EngineStats, ModelFacts, SamplingParams
from innkeeper.errors import BusyError
from innkeeper.prompt import CHATML
from innkeeper.serving import Models

_CHATML = "{#- <|im_start|>user -#}" + CHATML
"""SillyTavern tells ChatML by this text, which only a comment of a general template can hold."""


_MODEL = schema.body({"model": schema.plain("string", "a name of /models")}, ("model",))
_SLOT_ACTIONS = ("save", "restore", "erase")


def router(models: Models) -> APIRouter:
    """``/health``, ``/props``, ``/slots`` and ``/metrics``."""
    routes = APIRouter(tags=["Server"])

    @routes.get("/v1/health", include_in_schema=False)
    @routes.get("/health", summary="200 once requests will be answered, else 503")
    async def health() -> Response:
        status, fraction = _health(models)
        response = json_response({"status": status, "progress": fraction})
        response.status_code = 200 if status in ("ok", "no model") else 503
        return response

    @routes.get("/props", summary="The loaded model's properties")
    async def props(model: str = "") -> Response:
        facts = models.facts_of(models.resolve(model)[0]) or models.current_facts()
        return json_response(_props(facts))

    @routes.get("/slots", summary="What each place for a reply is doing")
    async def slots(fail_on_no_slot: str = "") -> Response:
        facts = models.current_facts()
        found = _slots(facts, models.link.stats if models.link else None)
        if fail_on_no_slot == "1" and all(slot["is_processing"] for slot in found):
            raise BusyError(f"all {len(found)} slots are busy", hint="try again in a moment")
        return json_response(found)

    @routes.post(
        "/slots/{slot_id}",
        summary="Save the chat that was read last but slot_id, restore it, or erase it",
        openapi_extra=schema.body({"filename": schema.plain("string", "a name, not a path")}),
    )
    async def change_slot(slot_id: str, request: Request, action: str = "") -> Response:
        slot = values.integer(0, 1000)("id_slot", slot_id)
        body = await read_json(request, may_be_empty=True)
        return json_response(await _change_slot(models, slot, action, body))

    @routes.post("/models/load", summary="Load a model beside the others", openapi_extra=_MODEL)
    async def load(request: Request) -> Response:
        await models.engine(find((await read_json(request)).get("model"), models))
        return json_response({"success": True})

    @routes.post("/models/unload", summary="Unload one model", openapi_extra=_MODEL)
    async def unload(request: Request) -> Response:
        await models.unload(find((await read_json(request)).get("model"), models))
        return json_response({"success": True})

    @routes.get("/metrics", summary="Counters, for Prometheus")
    async def metrics() -> Response:
        text = _metrics(models.link.stats if models.link else None)
        return Response(text, media_type="text/plain; version=0.0.4")

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
        "chat_template": facts.chat_template or _CHATML,
        "default_generation_settings": {"n_ctx": facts.num_ctx, "params": params},
        "total_slots": facts.max_sequences,
        "model_path": facts.name,
        "model_alias": facts.name,
        "bos_token": facts.bos_text,
        "eos_token": facts.eos_text,
        "modalities": {"vision": False, "audio": False},
        "build_info": f"innkeeper {__version__}",
    }


def _slots(facts: ModelFacts, stats: EngineStats | None) -> list[dict[str, Any]]:
    """Places are alike here, so the first ones are the busy ones."""
    num_busy = stats.num_running if stats else 0
    return [
        {
            "id": number,
            "id_task": -1,
            "n_ctx": facts.num_ctx,
            "speculative": False,
            "is_processing": number < num_busy,
        }
        for number in range(facts.max_sequences)
    ]


async def _change_slot(
    models: Models, slot: int, action: str, body: Mapping[str, Any]
) -> dict[str, Any]:
    """In llama-server's words. Raises: InvalidRequestError, NotFoundError, NotSupportedError."""
    if action not in _SLOT_ACTIONS:
        raise values.refuse("action", "one of " + ", ".join(_SLOT_ACTIONS), action)
    link = await models.engine()
    if action == "erase":
        erased = await link.change_slot("erase", slot)
        return {"id_slot": slot, "n_erased": erased.num_tokens}
    if not models.current_config().cache_folder:
        raise NotSupportedError("this server has no folder to save chats in")
    name = values.text(1000)("filename", body.get("filename"))
    if action == "save":
        saved = await link.change_slot("save", slot, name)
        counts = {"n_saved": saved.num_tokens, "n_written": saved.num_bytes}
        timings = {"save_ms": saved.milliseconds}
    else:
        read = await link.change_slot("restore", slot, name)
        counts = {"n_restored": read.num_tokens, "n_read": read.num_bytes}
        timings = {"restore_ms": read.milliseconds}
    return {"id_slot": slot, "filename": name, **counts, "timings": timings}


def _metrics(stats: EngineStats | None) -> str:
    """Prometheus's text format."""
    rows = (
        ("prompt_tokens_total", "counter", "Prompt tokens read", "prompt_tokens"),
        ("cached_tokens_total", "counter", "Prompt tokens reused exactly", "cached_tokens"),
        (
            "approximate_tokens_total",
            "counter",
            "Prompt tokens reused over an edit",
            "approximate_tokens",
        ),
        (
            "refreshed_tokens_total",
            "counter",
            "Tokens read, or read again exactly, in idle time",
            "refreshed_tokens",
        ),
        ("tokens_predicted_total", "counter", "Tokens generated", "predicted_tokens"),
        ("n_decode_total", "counter", "Steps of the engine", "num_steps"),
        ("requests_processing", "gauge", "Replies being generated", "num_running"),
        ("requests_deferred", "gauge", "Replies that wait", "num_waiting"),
        ("kv_cache_tokens", "gauge", "Cells of the cache in use", "num_cells_used"),
        ("restored_tokens_total", "counter", "Tokens back from memory or disk", "restored_tokens"),
        ("ram_cache_bytes", "gauge", "Chats kept in memory", "ram_cache_bytes"),
        ("disk_cache_bytes", "gauge", "Chats kept on disk", "disk_cache_bytes"),
    )
    lines = []
    for name, kind, about, attribute in rows:
        value = getattr(stats, attribute) if stats else 0
        full = f"llamacpp:{name}"
        lines += [f"# HELP {full} {about}.", f"# TYPE {full} {kind}", f"{full} {value}"]
    return "\n".join(lines) + "\n"
