"""HTTP dialects over ``serving``: ``create_app(generate, models, collection)`` makes the ASGI app.

One module per dialect: ``openai`` (with ``completions`` and ``chat``), ``oobabooga``, ``kobold``,
``llamacpp`` (with ``llama_server``), ``ollama``, ``tabby``, ``anthropic``, ``tokens`` (vLLM and
others), ``own``; ``dialects`` says whose path is whose. ``fields`` and ``constraints`` for what
requests may hold, ``requests`` for what they become, ``envelope`` for what OpenAI puts around
replies, ``errors`` for status codes, ``stream`` for server-sent events and disconnects,
``security`` for Host, Origin, keys and the body limit, ``docs`` for the page at ``/docs``.
"""

from innkeeper.api.app import create_app
from innkeeper.api.security import Access

__all__ = ["Access", "create_app"]
