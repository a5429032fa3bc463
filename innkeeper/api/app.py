"""The ASGI application.

The composition root builds it from two use cases and the rules of the door::

    app = create_app(generate, models, Access(api_key=key, origins=frozenset({ui_origin})))
    uvicorn.Server(uvicorn.Config(app, host=host, port=port, server_header=False, ...))

It has no lifespan and no globals: whoever made ``models`` closes it.
"""

from fastapi import FastAPI

from innkeeper.api.security import Access
from innkeeper.serving import Generate, Models


def create_app(generate: Generate, models: Models, access: Access | None = None) -> FastAPI:
    """Every dialect, ``/health``, ``/props`` and ``/docs``."""
    raise NotImplementedError
