"""Errors as HTTP: the only module that knows status codes."""

import logging
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from innkeeper import errors
from innkeeper.api.dialects import dialect_of, shaped
from innkeeper.errors import InnkeeperError
from innkeeper.hub import errors as hub

logger = logging.getLogger(__name__)


class NotSupportedError(errors.InvalidRequestError):
    """A dialect has it, and this server does not."""

    code = "not_supported"


_STATUS: tuple[tuple[type[InnkeeperError], int, str], ...] = (
    (NotSupportedError, 501, "invalid_request_error"),
    (errors.PayloadTooLargeError, 413, "invalid_request_error"),
    (errors.InvalidRequestError, 400, "invalid_request_error"),
    (errors.UnauthorizedError, 401, "authentication_error"),
    (errors.ForbiddenError, 403, "permission_error"),
    (errors.NotFoundError, 404, "invalid_request_error"),
    (errors.BusyError, 429, "rate_limit_error"),
    (errors.NoModelError, 503, "server_error"),
    (errors.ModelFileError, 422, "invalid_request_error"),
    (errors.NotEnoughMemoryError, 422, "invalid_request_error"),
    (hub.HubTokenError, 401, "authentication_error"),
    (hub.HubAccessError, 403, "permission_error"),
    (hub.HubBusyError, 429, "rate_limit_error"),
    (hub.HubUnreachableError, 503, "server_error"),
    (hub.DownloadPausedError, 409, "invalid_request_error"),
    (hub.DiskFullError, 507, "server_error"),
    (hub.HubError, 502, "server_error"),
    (errors.EngineCrashedError, 503, "server_error"),
    (errors.EngineHungError, 503, "server_error"),
    (InnkeeperError, 500, "server_error"),
)
"""The first that fits counts. 503 is what clients send again by themselves."""

_CLIENT_LEFT = 499
"""nginx's word for it, seen only in logs."""

_RETRY_SECONDS = "2"
_MAX_MESSAGE_CHARS = 1000


class ClientLeftError(Exception):
    """Nobody is there to read an answer."""


def status_of(error: InnkeeperError, path: str = "") -> int:
    """The status of ``error`` at ``path``: not all dialects agree."""
    dialect = dialect_of(path)
    if isinstance(error, errors.BusyError) and dialect in ("kobold", "ollama", "llama.cpp"):
        return 503
    if isinstance(error, errors.NoModelError) and dialect == "kobold":
        return 501  # its clients repeat a 503 for minutes
    return next(status for kind, status, _ in _STATUS if isinstance(error, kind))


def error_body(error: InnkeeperError, path: str = "") -> dict[str, Any]:
    """In the shape that clients expect at ``path``; OpenAI's, which SillyTavern shows too, where
    no other dialect is at home."""
    kind = next(kind for cls, _, kind in _STATUS if isinstance(error, cls))
    message = str(error)
    if len(message) > _MAX_MESSAGE_CHARS:
        message = message[:_MAX_MESSAGE_CHARS] + "…"
    body: dict[str, Any] = shaped(error, message, status_of(error, path), kind, path)
    return body


def error_response(error: InnkeeperError, path: str = "") -> Response:
    headers = {}
    if isinstance(error, errors.BusyError):
        headers["retry-after"] = _RETRY_SECONDS
    if isinstance(error, errors.UnauthorizedError):
        headers["www-authenticate"] = "Bearer"
    return Response(
        msgspec.json.encode(error_body(error, path)),
        status_of(error, path),
        headers=headers,
        media_type="application/json",
    )


def internal_error(error: Exception) -> InnkeeperError:
    """What a client may learn of an error nobody expected; the log gets the rest."""
    logger.error("unexpected error", exc_info=error)
    return InnkeeperError("something went wrong inside the server; its log has the details")


def add_handlers(app: FastAPI) -> None:
    """Every error below the middleware leaves in one shape."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, InnkeeperError)
        return error_response(error, request.url.path)

    async def left(request: Request, error: Exception) -> Response:
        return Response(status_code=_CLIENT_LEFT)

    async def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(_from_validation(error), request.url.path)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = _http_message(request, error)
        if error.status_code == 404:
            return error_response(errors.NotFoundError(message), request.url.path)
        response = error_response(errors.InvalidRequestError(message), request.url.path)
        response.status_code = error.status_code
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(InnkeeperError, ours)
    app.add_exception_handler(ClientLeftError, left)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, http)


def _from_validation(error: RequestValidationError) -> InnkeeperError:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or None
    return errors.InvalidRequestError(f"{field or 'request'}: {first['msg']}", field=field)


def _http_message(request: Request, error: HTTPException) -> str:
    path = request.url.path[:80]
    if error.status_code == 404:
        return f"there is no {path} here; /docs lists what there is"
    if error.status_code == 405:
        return f"{path} does not take {request.method}"
    return str(error.detail)


class CatchAll:
    """The request loop's last resort: one log entry, one generic answer, never a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception as error:  # noqa: BLE001  (the request loop)
            answer = error_response(internal_error(error), scope.get("path", ""))
            if not started and scope["type"] == "http":
                await answer(scope, receive, send)
