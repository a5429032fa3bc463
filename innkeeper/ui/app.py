"""Routes of the web page; its own data routes lie under ``/innkeeper/v1/``."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from importlib import resources
from typing import Annotated, NamedTuple

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from msgspec import Meta, Struct

from innkeeper import __version__, demo
from innkeeper.core import GenerateRequest, Message, ModelFacts, SamplingParams
from innkeeper.core.frames import Delta
from innkeeper.errors import InnkeeperError
from innkeeper.serving import Generate, Models

_FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
OPEN_PATHS = frozenset(f"/{name}" for name in _FILES)
"""Paths that need no key: the page itself, which asks for it."""


class Places(NamedTuple):
    """The two URLs, as the user types them."""

    api_url: str
    ui_url: str


class ChatTurn(Struct, frozen=True, forbid_unknown_fields=True):
    role: Annotated[str, Meta(pattern="^(system|user|assistant)$")]
    content: str


class ChatBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What the page asks."""

    messages: Annotated[tuple[ChatTurn, ...], Meta(min_length=1, max_length=2000)]
    max_tokens: Annotated[int, Meta(ge=1, le=1 << 20)] = 512
    temperature: Annotated[float, Meta(ge=0, le=5)] = 0.8


class State(Struct, frozen=True, kw_only=True):
    """What the page shows of the server."""

    version: str
    status: str
    """``none``, ``loading``, ``ready``, ``restarting`` or ``failed``."""
    stage: str = ""
    fraction: float = 0.0
    error: str | None = None
    api_url: str
    model: ModelFacts | None = None
    persona: demo.Persona | None = None
    """Who greets the user; the built-in model has a character of its own."""


def create_ui(generate: Generate, models: Models, places: Places) -> FastAPI:
    """The page and its data."""
    app = FastAPI(title="Innkeeper", docs_url=None, redoc_url=None, openapi_url=None)
    folder = resources.files(__package__) / "static"
    for path, (name, media_type) in _FILES.items():
        _serve_file(app, f"/{path}", (folder / name).read_bytes(), media_type)

    @app.get("/innkeeper/v1/state")
    async def state() -> Response:
        return _json(state_of(models, places))

    @app.post("/innkeeper/v1/chat")
    async def chat(request: Request) -> Response:
        try:
            body = msgspec.json.decode(await request.body(), type=ChatBody)
        except (msgspec.MsgspecError, UnicodeDecodeError, InnkeeperError) as error:
            return _json({"error": {"message": str(error)}}, status=400)
        return StreamingResponse(
            _lines(generate, to_request(body)),
            media_type="application/x-ndjson",
            headers={**_HEADERS, "Cache-Control": "no-store"},
        )

    return app


def _serve_file(app: FastAPI, path: str, content: bytes, media_type: str) -> None:
    @app.get(path)
    async def file() -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)


def _json(value: object, status: int = 200) -> Response:
    headers = {**_HEADERS, "Cache-Control": "no-store"}
    content = msgspec.json.encode(value)
    return Response(content, status, headers, media_type="application/json")


def state_of(models: Models, places: Places) -> State:
    """The server at this moment; the newest load's failure shows while nothing runs."""
    facts, job = models.facts, models.job
    api_url = places.api_url
    if job is not None and job.running:
        load = job.state
        return State(
            version=__version__,
            status="loading",
            stage=load.stage,
            fraction=load.fraction,
            api_url=api_url,
        )
    if facts is not None:
        status = "ready" if models.healthy else "restarting"
        shown = msgspec.structs.replace(facts, path="", chat_template=None)
        persona = demo.persona() if demo.is_demo(facts.path) else None
        return State(
            version=__version__, status=status, api_url=api_url, model=shown, persona=persona
        )
    if job is not None and job.state.error is not None:
        error = str(job.state.error)
        return State(version=__version__, status="failed", error=error, api_url=api_url)
    return State(version=__version__, status="none", api_url=api_url)


def to_request(body: ChatBody) -> GenerateRequest:
    """The page's chat as the request that every dialect makes."""
    return GenerateRequest(
        messages=tuple(Message(turn.role, turn.content) for turn in body.messages),
        sampling=SamplingParams(temperature=body.temperature, min_p=0.05),
        max_tokens=body.max_tokens,
        drops_turns=True,
    )


async def _lines(generate: Generate, request: GenerateRequest) -> AsyncGenerator[bytes, None]:
    """One JSON object a line: ``{"text"}`` ..., then ``{"done"}`` or ``{"error"}``."""
    try:
        async with aclosing(generate.stream(request)) as events:
            async for event in events:
                if isinstance(event, Delta):
                    yield _line({"text": event.text})
                else:
                    timings, warnings = event.timings, event.warnings
                    yield _line({"done": event.reason, "timings": timings, "warnings": warnings})
    except InnkeeperError as error:
        yield _line({"error": str(error)})


def _line(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"
