"""What other servers have and this one does not: each route says so, and why."""

from fastapi import APIRouter
from starlette.responses import Response

from innkeeper.api.errors import NotSupportedError

_MISSING = {
    "makes no images": (
        "/v1/images/generations",
        "/sdapi/v1/txt2img",
        "/sdapi/v1/img2img",
        "/sdapi/v1/interrogate",
    ),
    "neither hears nor speaks": (
        "/v1/audio/transcriptions",
        "/v1/audio/speech",
        "/v1/audio/voices",
        "/api/extra/transcribe",
        "/api/extra/tts",
        "/api/extra/speakers_list",
        "/api/extra/music/prepare",
        "/api/extra/music/generate",
    ),
    "judges no texts": ("/v1/moderations",),
    "does not search the web": ("/api/extra/websearch",),
    "shares no story between players": (
        "/api/extra/multiplayer/status",
        "/api/extra/multiplayer/getstory",
        "/api/extra/multiplayer/setstory",
    ),
    "keeps no stories": (
        "/api/extra/data/list",
        "/api/extra/data/load",
        "/api/extra/data/save",
    ),
    "is set up by its own command": (
        "/api/admin/list_options",
        "/api/admin/reload_config",
        "/api/admin/check_state",
        "/api/admin/save_state",
        "/api/admin/load_state",
        "/api/admin/clear_state",
    ),
}


def router() -> APIRouter:
    """501 with the reason, for each."""
    routes = APIRouter()
    for why, paths in _MISSING.items():
        for path in paths:
            _add(routes, path, why)
    return routes


def _add(routes: APIRouter, path: str, why: str) -> None:
    @routes.get(path, include_in_schema=False)
    @routes.post(path, include_in_schema=False)
    async def missing() -> Response:
        raise NotSupportedError(f"{path} is not supported: this server {why}")
