"""``/.well-known/serviceinfo``: which APIs are here, for programs that look."""

from fastapi import APIRouter
from starlette.responses import Response

from innkeeper import __version__
from innkeeper.api.kobold import UNITED_VERSION
from innkeeper.api.openai import json_response

_APIS = {
    "koboldai": ("KoboldAI API", "/api", UNITED_VERSION),
    "openai": ("OpenAI API", "/v1", "1.0"),
    "ollama": ("Ollama API", "/api", ""),
    "anthropic": ("Anthropic API", "/v1", ""),
}


def router() -> APIRouter:
    """The document. A relative address stands under both names that programs read."""
    routes = APIRouter(tags=["Server"])

    @routes.get("/.well-known/serviceinfo", summary="The APIs of this server")
    async def serviceinfo() -> Response:
        apis = {
            key: {
                "name": name,
                "rel_url": path,
                "relative_url": path,
                "documentation": "/docs",
                "version": version,
            }
            for key, (name, path, version) in _APIS.items()
        }
        software = {"name": "Innkeeper", "version": __version__, "homepage": "", "repository": ""}
        return json_response({"version": "0.2", "software": software, "api": apis})

    return routes
