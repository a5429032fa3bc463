"""Requests to the hub: bounded, retried, and with the token for the configured host alone.

Sessions, addresses and tokens are huggingface_hub's (so ``HF_ENDPOINT``, ``HF_TOKEN``, proxies and
the like work as everywhere). The requests are our own, since redirects must not take the token to
another host, an answer may not be larger than memory, and a dead hub must be named within seconds.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx2
from huggingface_hub import constants, get_session, get_token, hf_hub_url
from huggingface_hub.errors import OfflineModeIsEnabled

from innkeeper import __version__
from innkeeper.hub.answers import Gone, refusal, unreachable
from innkeeper.hub.errors import HubBusyError, HubError, HubUnreachableError
from innkeeper.units import MIB, format_seconds

MAX_JSON_BYTES = 64 * MIB
MAX_REDIRECTS = 5
_CONNECT_SECONDS = 10.0
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS, _LONGEST_ASKED_SECONDS = 1.0, 8.0, 120.0

Params = Mapping[str, str | int | list[str]]
T = TypeVar("T")


class Hub:
    """One hub and what we are to it. Safe to use from several threads.

    endpoint: None = ``HF_ENDPOINT``, or huggingface.co. token: None = ``HF_TOKEN`` or the saved
    one. is_offline: nothing is sent at all. attempts: tries of a request before it fails.
    read_seconds: the longest silence in an answer. sleep: how waits are spent.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        token: str | None = None,
        *,
        is_offline: bool = False,
        attempts: int = 4,
        read_seconds: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self.token = token or get_token()
        self.attempts = attempts
        self._timeout = httpx2.Timeout(read_seconds, connect=_CONNECT_SECONDS)
        self.sleep = sleep
        self._is_offline = is_offline
        self._origin = _origin(self.endpoint)

    def file_url(self, repo_id: str, name: str, revision: str) -> str:
        """Where the file ``name`` is read from."""
        url = hf_hub_url(repo_id, name, revision=revision)
        return self.endpoint + url.removeprefix(constants.ENDPOINT)

    def get_json(self, path: str, params: Params, repo_id: str | None = None) -> Any:
        """The JSON at ``path``. Raises: HubError, NotFoundError."""

        def attempt() -> Any:
            with self.open(self.endpoint + path, params=params, repo_id=repo_id) as response:
                return _json(response, self.endpoint)

        return self.patiently(attempt)

    def get_range(self, url: str, start: int, end: int, repo_id: str) -> bytes:
        """The bytes ``start`` to ``end`` (without it) of a file; fewer where it ends.

        A server that ignores ranges costs what lies before ``start``, and no more than ``end``.
        Raises: HubError, NotFoundError.
        """

        def attempt() -> bytes:
            headers = {"Range": f"bytes={start}-{end - 1}"}
            with self.open(url, headers=headers, repo_id=repo_id) as response:
                skipped = 0 if response.status_code == 206 else start
                found = _read(response, skipped + end - start, is_exact=False)
                return found[skipped:]

        return self.patiently(attempt)

    def patiently(self, attempt: Callable[[], T]) -> T:
        """The result of ``attempt``, tried again where that can help.

        Raises: HubUnreachableError, HubBusyError, and what ``attempt`` raises.
        """
        for number in range(1, self.attempts + 1):
            try:
                return attempt()
            except (httpx2.TransportError, Gone) as error:
                if number == self.attempts or isinstance(error, httpx2.ConnectError):
                    raise self.failure(error) from None
                self.sleep(self.pause_seconds(error, number))
        raise AssertionError("a request is tried at least once")

    def pause_seconds(self, error: Exception, number: int) -> float:
        """How long to wait before try ``number + 1``: what the server asked for, if it did.

        Raises: HubBusyError if that is more than two minutes.
        """
        asked = error.retry_seconds if isinstance(error, Gone) else None
        if asked is None:
            return float(min(_FIRST_WAIT_SECONDS * 2 ** (number - 1), _LONGEST_WAIT_SECONDS))
        if asked > _LONGEST_ASKED_SECONDS:
            raise HubBusyError(
                f"the hub is busy and asks to wait for {format_seconds(asked)}",
                hint="try again then; with an access token in HF_TOKEN the limits are higher",
            )
        return asked

    def failure(self, error: httpx2.TransportError | Gone) -> HubError:
        """What to tell the user of the last try's failure."""
        if isinstance(error, Gone) and error.status == 429:
            return HubBusyError(
                "the hub is busy: it refuses more requests for now (429)",
                hint="try again in a few minutes; with a token in HF_TOKEN the limits are higher",
            )
        return unreachable(error, self.endpoint)

    @contextlib.contextmanager
    def open(
        self,
        url: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        repo_id: str | None = None,
        on_hop: Callable[[httpx2.Response], None] | None = None,
    ) -> Iterator[httpx2.Response]:
        """One GET, redirects followed, its body not yet read. ``on_hop`` sees each redirect.

        Raises: httpx2.TransportError and ``Gone`` for what may be tried again; HubError and
        NotFoundError for what may not.
        """
        if self._is_offline:
            raise HubUnreachableError("the network is not used (offline)", hint="without --offline")
        with contextlib.ExitStack() as stack:
            for _ in range(MAX_REDIRECTS + 1):
                response = stack.enter_context(self._send(url, params, headers))
                if not response.has_redirect_location:
                    self._check(response, repo_id)
                    yield response
                    return
                if on_hop is not None:
                    on_hop(response)
                url, params = self._next_url(url, response), None
                stack.pop_all().close()
        raise HubError(
            f"{urlsplit(url).hostname} redirects again and again", hint="try again later"
        )

    @contextlib.contextmanager
    def _send(
        self, url: str, params: Params | None, headers: Mapping[str, str] | None
    ) -> Iterator[httpx2.Response]:
        sent = {
            "user-agent": f"innkeeper/{__version__}",
            # a compressed answer has another length, and may be a bomb
            "accept-encoding": "identity",
            **(headers or {}),
        }
        if self.token and _origin(url) == self._origin:
            sent["authorization"] = f"Bearer {self.token}"
        try:
            with get_session().stream(
                "GET",
                url,
                params=params,
                headers=sent,
                timeout=self._timeout,
                follow_redirects=False,
            ) as response:
                yield response
        except OfflineModeIsEnabled:
            raise HubUnreachableError(
                "the network is not used, since HF_HUB_OFFLINE is set", hint="unset it"
            ) from None
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol):
            raise HubError(f"the hub's address is none: {url[:200]}", hint=_ENDPOINT_HINT) from None

    def _next_url(self, url: str, response: httpx2.Response) -> str:
        target = urljoin(url, response.headers["location"])
        old, new = urlsplit(url), urlsplit(target)
        if new.scheme not in ("https", old.scheme) or not new.hostname:
            raise HubError(
                f"{old.hostname} redirects to {target[:200]!r}, which is not followed",
                hint=_ENDPOINT_HINT,
            )
        return target

    def _check(self, response: httpx2.Response, repo_id: str | None) -> None:
        status = response.status_code
        if status in _BUSY:
            raise Gone(status, _retry_seconds(response.headers))
        if status >= 400:
            raise refusal(response, repo_id, self.endpoint, has_token=bool(self.token))
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise HubError("the hub sent a compressed answer that nobody asked for")


_ENDPOINT_HINT = "check the address in HF_ENDPOINT"


def _read(response: httpx2.Response, most: int, *, is_exact: bool) -> bytes:
    """At most ``most`` bytes of the body."""
    found = bytearray()
    for piece in response.iter_raw():
        found += piece
        if len(found) >= most:
            break
    if is_exact and len(found) >= most:
        raise HubError(f"the hub's answer is larger than {most // MIB} MiB", hint=_ENDPOINT_HINT)
    return bytes(found[:most])


def _json(response: httpx2.Response, endpoint: str) -> Any:
    try:
        return json.loads(_read(response, MAX_JSON_BYTES, is_exact=True))
    except (ValueError, RecursionError):
        raise HubError(
            f"{endpoint} answered with something else than a hub does", hint=_ENDPOINT_HINT
        ) from None


def _retry_seconds(headers: Mapping[str, str]) -> float | None:
    text = headers.get("retry-after", "").strip()
    return float(text) if text.isdecimal() and len(text) < 7 else None


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port
