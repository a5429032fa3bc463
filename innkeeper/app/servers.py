"""Two web servers in one event loop, and a clean end for both."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

_GRACE_SECONDS = 3


class _Server(uvicorn.Server):
    """uvicorn without signal handlers of its own: two of them would fight over one Ctrl-C."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Servers:
    """Serves apps on bound sockets until ``stop``."""

    def __init__(self, keepalive_seconds: int) -> None:
        self._keepalive_seconds = keepalive_seconds
        self._servers: list[_Server] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, app: ASGIApp, bound: socket.socket) -> None:
        """Returns once it answers."""
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=self._keepalive_seconds,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        server = _Server(config)
        self._servers.append(server)
        self._tasks.append(asyncio.create_task(server.serve(sockets=[bound])))
        while not server.started:
            if self._tasks[-1].done():
                await self._tasks[-1]
                return
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Lets open answers end (some seconds at most), then closes everything. Idempotent."""
        for server in self._servers:
            server.should_exit = True
        await asyncio.gather(*self._tasks, return_exceptions=True)


class StopSignal:
    """Set by Ctrl-C and SIGTERM while it is entered; ``is_set`` afterwards too."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    async def wait(self) -> None:
        await self._event.wait()

    async def comes_before(self, work: Coroutine[Any, Any, None]) -> bool:
        """Runs ``work`` to its end, or cancels it when the signal comes, which is then True.

        Raises: what ``work`` raises.
        """
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return False
            return True
        finally:
            for future in (task, stopped):
                future.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)

    @contextlib.contextmanager
    def handlers(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        signals = [signal.SIGINT, signal.SIGTERM]
        signals += [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []
        undo: list[Callable[[], object]] = []
        for number in signals:
            undo.append(self._handle(loop, number))
        try:
            yield
        finally:
            for step in undo:
                step()

    def _handle(self, loop: asyncio.AbstractEventLoop, number: int) -> Callable[[], object]:
        def wake(*_: object) -> None:
            loop.call_soon_threadsafe(self._event.set)

        try:
            loop.add_signal_handler(number, self._event.set)
        except NotImplementedError:  # Windows
            old = signal.signal(number, wake)
            return lambda: signal.signal(number, old)
        return lambda: loop.remove_signal_handler(number)
