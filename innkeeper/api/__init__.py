"""HTTP dialects over ``serving``: ``create_app(generate, models, access)`` makes the ASGI app.

One module per dialect (``openai`` with ``completions`` and ``chat``, ``oobabooga``,
``llama_server``, ``own``), ``fields`` for what requests may hold, ``errors`` for status codes,
``stream`` for server-sent events and disconnects, ``security`` for Host, Origin, keys and the
body limit, ``docs`` for the page at ``/docs``.
"""

from innkeeper.api.app import create_app
from innkeeper.api.security import Access

__all__ = ["Access", "create_app"]
