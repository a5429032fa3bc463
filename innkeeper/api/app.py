"""The ASGI application.

The composition root builds it from two use cases and the rules of the door::

    app = create_app(generate, models, Access(api_key=key, origins=frozenset({ui_origin})))
    uvicorn.Server(uvicorn.Config(app, host=host, port=port, server_header=False, ...))

It has no lifespan and no globals: whoever made ``models`` closes it.
"""

from fastapi import FastAPI

from innkeeper import __version__
from innkeeper.api import llama_server, oobabooga, openai, own
from innkeeper.api.docs import add_docs
from innkeeper.api.errors import CatchAll, add_handlers
from innkeeper.api.security import Access, Guard
from innkeeper.serving import Generate, Models

_ABOUT = (
    "A self-hosted LLM server. Field names of OpenAI and Oobabooga (text-generation-webui) are"
    " understood everywhere; what could not be applied is listed in each answer's warnings."
)


def create_app(generate: Generate, models: Models, access: Access | None = None) -> FastAPI:
    """Every dialect, ``/health``, ``/props`` and ``/docs``."""
    app = FastAPI(
        title="Innkeeper",
        version=__version__,
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(openai.router(generate, models))
    app.include_router(oobabooga.router(generate, models))
    app.include_router(llama_server.router(models))
    app.include_router(own.router(models))
    add_docs(app)
    add_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(Guard, access=access or Access())
    app.add_middleware(CatchAll)
    return app
