"""Who may talk to this server: Host, Origin, key and size, before anything is parsed.

A browser on this computer is the way in for any web page, so a loopback bind protects nothing by
itself: a page can post to localhost (Origin), or have its own name resolve to it (Host).
"""

import ipaddress
import re
from collections.abc import Iterable

from msgspec import Struct
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from innkeeper.api import scopes
from innkeeper.api.errors import error_response
from innkeeper.errors import (
    ForbiddenError,
    InnkeeperError,
    PayloadTooLargeError,
)
from innkeeper.units import MIB, format_bytes


class Access(Struct, frozen=True, kw_only=True):
    """Rules of the door. The defaults are for a server bound to loopback without a key."""

    api_key: str | None = None
    """Asked of every route but ``/health``; None = no key needed."""
    manage_key: str | None = None
    """Asked of loading and unloading; None = what opens the rest will do."""
    admin_key: str | None = None
    """Asked of changing which models are here; None = what opens the rest will do."""
    hosts: frozenset[str] = frozenset()
    """Names beyond loopback that the Host header may hold (without port, lower case)."""
    any_address: bool = False
    """Any IP address will do as Host: for a bind beyond loopback. A rebinding web page always
    comes with a name, so this lets none in."""
    origins: frozenset[str] = frozenset()
    """Web origins beside the server's own that may call it, such as ``http://127.0.0.1:7860``."""
    max_body_bytes: int = 16 * MIB


SCOPE_KEY = "innkeeper.scope"
"""Where a request's ASGI scope holds what its key allows."""

OPEN_PATHS = frozenset({"/health"})
"""Answered without a key."""

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
_CORS_SECONDS = "600"


class Guard:
    """Refuses what the rules do not allow, and answers preflights of allowed origins."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        try:
            host = check_host(headers, self._access)
            origin = check_origin(headers, host, self._access)
            if origin is not None and scope["method"] == "OPTIONS":
                await _preflight(origin, headers)(scope, receive, send)
                return
            if scope["path"] not in OPEN_PATHS:
                keys = (self._access.api_key, self._access.manage_key, self._access.admin_key)
                granted = scopes.check(headers, scope["method"], scope["path"], keys)
                scope[SCOPE_KEY] = granted
            self._check_length(headers)
        except InnkeeperError as error:
            await error_response(error, scope["path"])(scope, receive, send)
            return
        await self._app(
            scope, self._limited(receive), send if origin is None else _with_cors(send, origin)
        )

    def _check_length(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        for value in _values(headers, b"content-length"):
            if value.isdigit() and int(value[:20]) > self._access.max_body_bytes:
                raise self._too_large()

    def _limited(self, receive: Receive) -> Receive:
        """``receive`` that counts the body while it comes in."""
        num_bytes = 0

        async def counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._access.max_body_bytes:
                raise self._too_large()
            return message

        return counted

    def _too_large(self) -> PayloadTooLargeError:
        limit = format_bytes(self._access.max_body_bytes)
        return PayloadTooLargeError(f"the request's body is larger than {limit}")


def check_host(headers: Iterable[tuple[bytes, bytes]], access: Access) -> str:
    """The Host header, if the rules allow it. Raises: ForbiddenError."""
    found = [value.decode("latin-1").lower() for value in _values(headers, b"host")]
    match = _HOST.fullmatch(found[0]) if len(found) == 1 else None
    if match is None or not _is_allowed_name(match[1], access):
        raise ForbiddenError(
            "the Host header does not name this server",
            hint="open it by 127.0.0.1 or localhost, or allow the name in the settings",
        )
    return found[0]


def check_origin(headers: Iterable[tuple[bytes, bytes]], host: str, access: Access) -> str | None:
    """The page's origin if it is another one that is allowed; None without one, or our own.

    Raises: ForbiddenError.
    """
    found = [value.decode("latin-1").lower() for value in _values(headers, b"origin")]
    if not found:
        if b"cross-site" in _values(headers, b"sec-fetch-site"):
            raise _foreign_page()
        return None
    if len(found) == 1 and found[0] in (f"http://{host}", f"https://{host}"):
        return None
    if len(found) == 1 and found[0] in access.origins:
        return found[0]
    raise _foreign_page()


def _is_allowed_name(name: str, access: Access) -> bool:
    if name == "localhost" or name in access.hosts:
        return True
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return access.any_address or address.is_loopback


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value.strip() for key, value in headers if key == name]


def _foreign_page() -> ForbiddenError:
    return ForbiddenError(
        "web pages from elsewhere may not call this server",
        hint="add the page's origin to the allowed origins in the settings",
    )


def _preflight(origin: str, asked: Iterable[tuple[bytes, bytes]]) -> Response:
    """Allows the headers that the page asks for; the page itself was allowed by its origin."""
    asked = list(asked)
    wanted = [
        value.decode("latin-1") for value in _values(asked, b"access-control-request-headers")
    ]
    headers = {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": "GET, HEAD, POST, PUT, DELETE, OPTIONS",
        "access-control-allow-headers": ", ".join(
            ["authorization, content-type, x-api-key, api-key", *wanted]
        ),
        "access-control-max-age": _CORS_SECONDS,
        "vary": "Origin, Access-Control-Request-Headers",
    }
    if _values(asked, b"access-control-request-private-network"):
        headers["access-control-allow-private-network"] = "true"  # Chrome asks a public page so
    return Response(status_code=204, headers=headers)


def _with_cors(send: Send, origin: str) -> Send:
    extra = [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]

    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await send(message)

    return marked
