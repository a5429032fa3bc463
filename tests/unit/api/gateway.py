"""A whole gateway on a free port, in a thread of its own, for tests through the front door."""

import asyncio
import functools
import os
import socket
import threading
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn

from innkeeper.api import Access, create_app
from innkeeper.cards import Cards
from innkeeper.core import EngineStats
from innkeeper.enginelink import EngineLink, LinkLimits
from innkeeper.errors import InnkeeperError
from innkeeper.hub.client import Hub
from innkeeper.serving import Collection, EngineDefaults, Generate, Loras, Models

T = TypeVar("T")


class Gateway:
    """Models, the app and uvicorn. Use as a context manager.

    options: of the fake backend; ``defaults`` replaces the whole of the engine's settings.
    rules: what ``Models`` is made with beside them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model: Path | None = Path("/models/fake.gguf"),
        defaults: EngineDefaults | None = None,
        access: Access | None = None,
        max_queued: int = 64,
        limits: LinkLimits | None = None,
        hub: Hub | None = None,
        rules: Mapping[str, Any] | None = None,
        **options: str,
    ) -> None:
        self._folder = folder
        self.characters = folder / "characters"
        self._model = model
        self._defaults = defaults or EngineDefaults(backend="fake", num_ctx=2048, options=options)
        self._access = access
        self._max_queued = max_queued
        self._hub = hub or Hub(is_offline=True)
        start = functools.partial(EngineLink.start, limits=limits)
        self._rules = {"start": start, "retry_seconds": (0.0,), **(rules or {})}
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self.models: Models
        self.url = ""

    def __enter__(self) -> "Gateway":
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    def client(self, *, timeout: float = 30, **options: Any) -> httpx.Client:
        # nothing to verify over plain HTTP, and reading the authorities takes 25 ms
        options = {"trust_env": False, "verify": False, **options}
        return httpx.Client(base_url=self.url, timeout=timeout, **options)

    def run(self, work: Coroutine[Any, Any, T], seconds: float | None = 30) -> T:
        """``work``'s result, run in the gateway's own loop: the thread of a test may have a loop
        that runs already, a browser's. seconds: how long it may take; None = for ever."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def stats(self) -> EngineStats | None:
        """What the engine said of itself last."""

        async def read() -> EngineStats | None:
            return self.models.link.stats if self.models.link else None

        return self.run(read())

    def kill_engine(self, number: int) -> None:
        """Sends a signal to the engine process."""

        async def process_id() -> int:
            return (await self.models.engine()).process_id

        os.kill(self.run(process_id()), number)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.models = Models(self._folder, self._defaults, **self._rules)
        generate = Generate(self.models, max_queued=self._max_queued)
        collection = Collection(self.models, self._folder, open_hub=lambda _: self._hub)
        cards = Cards(self.characters)
        loras = Loras(self._folder / "loras")
        app = create_app(generate, self.models, collection, self._access, cards=cards, loras=loras)
        # asyncio turns the delay of small packets off only where the protocol is named
        door = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        door.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{door.getsockname()[1]}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                app, log_level="warning", server_header=False, timeout_graceful_shutdown=1
            )
        )
        try:
            if self._model is not None:
                await self.models.start_load_file(self._model).wait()
            serving = asyncio.create_task(self._server.serve(sockets=[door]))
            while not self._server.started:
                await asyncio.sleep(0.005)
            self._ready.set()
            await serving
        except (InnkeeperError, OSError) as error:
            self._failure = error
            self._ready.set()
        finally:
            door.close()
            await collection.close()
            await self.models.close()
