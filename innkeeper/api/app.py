"""The ASGI application.

The composition root builds it from three use cases and the rules of the door::

    access = Access(api_key=key, origins=frozenset({ui_origin}))
    app = create_app(generate, models, collection, access)
    uvicorn.Server(uvicorn.Config(app, host=host, port=port, server_header=False, ...))

It has no lifespan and no globals: whoever made ``models`` and ``collection`` closes them.
"""

from fastapi import FastAPI

from innkeeper import __version__
from innkeeper.api import (
    anthropic,
    discovery,
    elsewhere,
    embeddings,
    kobold,
    llama_server,
    llamacpp,
    ollama,
    ollama_store,
    oobabooga,
    openai,
    own,
    responses,
    tabby,
    tabby_switches,
    tokens,
)
from innkeeper.api import loras as loras_api
from innkeeper.api.docs import add_docs
from innkeeper.api.errors import CatchAll, add_handlers
from innkeeper.api.security import Access, Guard
from innkeeper.api.standing import Standing
from innkeeper.cards import Cards
from innkeeper.serving import Collection, Embed, Generate, Loras, Models

_ABOUT = (
    "A self-hosted LLM server that speaks the APIs of OpenAI, Oobabooga (text-generation-webui),"
    " KoboldAI and KoboldCpp, llama-server, Ollama, TabbyAPI, vLLM and Anthropic. What could not be"
    " applied is listed in each answer's warnings."
)


def create_app(
    generate: Generate,
    models: Models,
    collection: Collection,
    access: Access | None = None,
    *,
    cards: Cards | None = None,
    loras: Loras | None = None,
) -> FastAPI:
    """Every dialect, ``/health``, ``/props`` and ``/docs``.

    cards, loras: the characters and adapters that requests may name.
    """
    standing = Standing(models, cards)
    app = FastAPI(
        title="Innkeeper",
        version=__version__,
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(openai.router(generate, models, standing))
    app.include_router(responses.router(generate))
    app.include_router(oobabooga.router(generate, models, standing))
    app.include_router(embeddings.router(Embed(models)))
    is_protected = access is not None and access.api_key is not None
    app.include_router(kobold.router(generate, models, is_protected=is_protected))
    app.include_router(llamacpp.router(generate))
    app.include_router(tokens.router(generate))
    app.include_router(anthropic.router(generate))
    app.include_router(tabby.router(generate, models, collection, standing))
    app.include_router(tabby_switches.router(models, standing))
    app.include_router(loras_api.router(models, loras or Loras()))
    app.include_router(discovery.router())
    app.include_router(ollama.router(generate, models))
    app.include_router(ollama_store.router(collection, models))
    app.include_router(llama_server.router(models))
    app.include_router(own.router(models))
    app.include_router(elsewhere.router())
    add_docs(app)
    add_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(Guard, access=access or Access())
    app.add_middleware(CatchAll)
    return app
