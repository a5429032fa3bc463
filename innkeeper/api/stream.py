"""Bodies in, events out, and clients that leave."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from innkeeper.api.errors import ClientLeftError, error_body, error_response, internal_error
from innkeeper.errors import InnkeeperError, InvalidRequestError

PING_SECONDS = 10.0
DONE = b"data: [DONE]\n\n"
_PING = b": ping\n\n"
_T = TypeVar("_T")


async def read_json(request: Request, *, may_be_empty: bool = False) -> dict[str, Any]:
    """The body as an object. NaN and Infinity are read, so that the field's check can name them.

    Raises: InvalidRequestError; PayloadTooLargeError while it comes in.
    """
    body = await request.body()
    if may_be_empty and not body.strip():
        return {}
    try:
        found = _decode(body)
    except RecursionError:
        raise InvalidRequestError("the JSON is nested too deeply") from None
    if not isinstance(found, dict):
        raise InvalidRequestError("the body must be a JSON object")
    return found


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError) as error:
        # msgspec refuses some of what clients write (NaN, 1e400, lone surrogates); the
        # standard library reads it, and the fields are checked one by one afterwards.
        reason = str(error)
    try:
        return json.loads(body)
    except ValueError:
        raise InvalidRequestError(f"the body is not valid JSON: {reason}") from None


def event(data: bytes) -> bytes:
    """One server-sent event."""
    return b"data: " + data + b"\n\n"


def event_and_done(error_body: bytes) -> bytes:
    """How OpenAI's streams end after an error."""
    return event(error_body) + DONE


class EventStream(Response):
    """Server-sent events. What goes wrong before the first one is an ordinary error response.

    pieces: the bytes of the events, closed when the client leaves; each becomes one chunk. A
    comment is sent whenever ``ping_seconds`` pass without one, so that no proxy or client gives up
    on a long prompt. last: what is sent when it breaks, made from the error's JSON.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        *,
        ping_seconds: float | None = None,
        last: Callable[[bytes], bytes] = event_and_done,
        media_type: str | None = None,
    ) -> None:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(headers=headers, media_type=media_type)
        del self.headers["content-length"]
        self._pieces = pieces
        self._last = last
        self._ping_seconds = PING_SECONDS if ping_seconds is None else ping_seconds
        self._started = False
        self._last_write = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(ClientLeftError, OSError):
            await unless_client_leaves(receive, self._run(scope, receive, send))

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        pings = asyncio.create_task(self._ping(send))
        try:
            async with contextlib.aclosing(self._pieces):
                async for piece in self._pieces:
                    await self._write(send, piece)
                    # Neither line above waits while events are at hand; a client that has left
                    # must be noticed all the same.
                    await asyncio.sleep(0)
        except InnkeeperError as error:
            await self._fail(error, scope, receive, send)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001  (the request loop)
            await self._fail(internal_error(error), scope, receive, send)
        finally:
            pings.cancel()
        if self._started:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send, piece: bytes) -> None:
        self._last_write = time.monotonic()
        if not self._started:
            self._started = True
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
        await send({"type": "http.response.body", "body": piece, "more_body": True})

    async def _ping(self, send: Send) -> None:
        with contextlib.suppress(OSError):
            while True:
                quiet_seconds = time.monotonic() - self._last_write
                if quiet_seconds >= self._ping_seconds:
                    await self._write(send, _PING)
                else:
                    await asyncio.sleep(self._ping_seconds - quiet_seconds)

    async def _fail(
        self, error: InnkeeperError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if self._started:
            body = msgspec.json.encode(error_body(error, scope.get("path", "")))
            await self._write(send, self._last(body))
        else:
            await error_response(error, scope.get("path", ""))(scope, receive, send)


async def unless_client_leaves(receive: Receive, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of ``work``, which is cancelled as soon as the client disconnects.

    The request's body must have been read. Raises: ClientLeftError.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientLeftError
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.wait([task, gone])


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
