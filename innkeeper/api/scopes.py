"""What a key allows: ``chat`` < ``manage`` < ``admin``, each with all before it.

Where a scope has no key of its own, the one before it is enough: a single API key opens everything,
and without any key everything is open.
"""

import hmac
from collections.abc import Iterable, Sequence
from typing import Literal

from innkeeper.errors import ForbiddenError, UnauthorizedError

Scope = Literal["chat", "manage", "admin"]
Headers = Iterable[tuple[bytes, bytes]]

SCOPES: tuple[Scope, ...] = ("chat", "manage", "admin")
"""Generating and looking; loading, unloading and slots; changing which models are here."""

_KEY_HEADERS = (b"x-api-key", b"api-key", b"x-admin-key")
_MANAGE = (
    *("/v1/internal/model/", "/v1/internal/lora/", "/v1/model/", "/v1/lora/", "/v1/template/"),
    *(
        "/v1/sampling/",
        "/api/v1/model",
        "/api/latest/model",
        "/slots/",
        "/lora-adapters",
        "/models/",
    ),
)
_ADMIN = ("/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete", "/v1/download")


def needed(method: str, path: str) -> Scope:
    """The scope of a route. Looking is always ``chat``."""
    if method in ("GET", "HEAD", "OPTIONS"):
        return "chat"
    if path.startswith(_ADMIN):
        return "admin"
    return "manage" if path.startswith(_MANAGE) else "chat"


def granted(headers: Headers, keys: Sequence[str | None]) -> Scope | None:
    """The highest scope of the keys in ``headers``. keys: of ``SCOPES``, in their order."""
    given = _given(headers)
    number = 0
    for place, key in enumerate(keys):
        if key is None:
            is_open = number == place
        else:  # every one is compared, so that the time tells nothing
            is_open = any([hmac.compare_digest(each, key.encode()) for each in given])
        number = place + 1 if is_open else number
    return SCOPES[number - 1] if number else None


def check(headers: Headers, method: str, path: str, keys: Sequence[str | None]) -> Scope:
    """The scope that was granted. Raises: UnauthorizedError, ForbiddenError if it is too low."""
    headers = list(headers)
    scope, wanted = granted(headers, keys), needed(method, path)
    if scope is not None and SCOPES.index(scope) >= SCOPES.index(wanted):
        return scope
    hint = "send it as Authorization: Bearer KEY"
    if not any(_given(headers)):
        what = "an API key is needed" if wanted == "chat" else f"the {wanted} key is needed"
        raise UnauthorizedError(what, hint=hint)
    if scope is None:
        raise UnauthorizedError("the API key is wrong", hint=hint)
    raise ForbiddenError(f"this key allows {scope}, and this route needs {wanted}", hint=hint)


def _given(headers: Headers) -> list[bytes]:
    found = []
    for name, value in headers:
        if name in _KEY_HEADERS:
            found.append(value.strip())
        elif name == b"authorization" and value.strip()[:7].lower() == b"bearer ":
            found.append(value.strip()[7:].strip())
    return found
