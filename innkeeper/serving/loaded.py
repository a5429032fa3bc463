"""One loaded model: its engine, restarted whenever it dies, and who is about to use it."""

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from innkeeper.core import EngineConfig, ModelFacts
from innkeeper.enginelink import EngineLink
from innkeeper.enginelink.link import StartEngine
from innkeeper.errors import EngineError, InnkeeperError
from innkeeper.prompt.renderer import Renderer
from innkeeper.serving.fit import Need

logger = logging.getLogger(__name__)

_STEADY_SECONDS = 60.0
_MAX_TEMPLATES = 4
_NOTICE_SECONDS = 0.005
_DRAIN_POLL_SECONDS = 0.02


class LoadedModel:
    """Belongs to one event loop. ``close`` it; until then its engine comes back after a crash.

    need: what its engine takes. retry_seconds: waits before the restarts; the last one repeats.
    """

    def __init__(
        self,
        config: EngineConfig,
        link: EngineLink,
        need: Need,
        *,
        start: StartEngine,
        retry_seconds: Sequence[float],
        log_path: Path | None,
    ) -> None:
        facts = link.facts
        self.config = config
        self.link = link
        """The engine as it is now, dead or alive; ``engine`` gives one to send something to."""
        self.need = need
        self.renderer = Renderer(
            facts.chat_template, bos_text=facts.bos_text, eos_text=facts.eos_text
        )
        self._renderers: dict[str, Renderer] = {}
        self.is_leaving = False
        """Nobody new may use it: it makes room for another."""
        self.last_used = time.monotonic()
        self._num_users = 0
        self._start = start
        self._retry_seconds = tuple(retry_seconds)
        self._log_path = log_path
        self._started = time.monotonic()
        self._num_crashes = 0
        self._is_closed = False
        self._revival: asyncio.Future[EngineLink] | None = None
        self._reviver: asyncio.Task[None] | None = None
        self._watch(link)

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def facts(self) -> ModelFacts:
        return self.link.facts

    @property
    def is_busy(self) -> bool:
        """It writes a reply, or somebody is about to ask for one."""
        return self._num_users > 0 or self.link.num_open > 0

    async def renderer_of(self, template: str | None) -> Renderer:
        """Of a request's own template, or of the model's. The last few are kept."""
        if template is None:
            return self.renderer
        found = self._renderers.pop(template, None)
        if found is None:
            facts = self.facts
            found = Renderer(template, bos_text=facts.bos_text, eos_text=facts.eos_text)
        self._renderers[template] = found
        if len(self._renderers) > _MAX_TEMPLATES:
            await self._renderers.pop(next(iter(self._renderers))).close()
        return found

    def claim(self, count: int = 1) -> "LoadedModel":
        """Keeps it from being evicted until ``release``, so long that a request can be sent."""
        self._num_users += count
        self.last_used = time.monotonic()
        return self

    def release(self) -> None:
        self._num_users -= 1
        self.last_used = time.monotonic()

    async def engine(self) -> EngineLink:
        """The engine; waits for a restart that is under way.

        Raises: what the restart failed with; EngineError once it has left.
        """
        while not self.link.alive:
            if self.is_leaving:
                raise EngineError("the model was replaced or unloaded")
            if self._revival is not None:
                await asyncio.shield(self._revival)
            else:
                await asyncio.sleep(_NOTICE_SECONDS)  # it has just died
        return self.link

    async def idle(self, seconds: float | None = None) -> None:
        """Waits until nobody uses it, or until ``seconds`` have passed."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while self.is_busy and not self._is_closed:
            if deadline is not None and time.monotonic() > deadline:
                return
            await asyncio.sleep(_DRAIN_POLL_SECONDS)

    async def stop(self) -> None:
        """Ends the engine, running replies with it. ``revive`` brings it back."""
        await self._stop_reviving()
        await self.link.close()

    async def close(self) -> None:
        """Ends it for good. Idempotent."""
        self._is_closed = True
        await self.stop()
        for renderer in (self.renderer, *self._renderers.values()):
            await renderer.close()

    # --- after a crash --------------------------------------------------------------------------

    def revive(self) -> None:
        """Starts the engine again, as often as it takes."""
        if self._reviver is None or self._reviver.done():
            self._revival = asyncio.get_running_loop().create_future()
            self._reviver = asyncio.create_task(self._keep_reviving())

    def _watch(self, link: EngineLink) -> None:
        link.lost.add_done_callback(lambda _: self._on_lost(link))

    def _on_lost(self, link: EngineLink) -> None:
        error = link.lost.result()
        if error is None or self._is_closed or link is not self.link:
            return
        logger.error("%s: %s", self.name, error)
        if time.monotonic() - self._started > _STEADY_SECONDS:
            self._num_crashes = 0
        self.revive()

    async def _keep_reviving(self) -> None:
        """Restarts until it works. Requests that wait learn of each failure."""
        attempt = self._num_crashes
        while True:
            await asyncio.sleep(self._retry_seconds[min(attempt, len(self._retry_seconds) - 1)])
            attempt += 1
            assert self._revival is not None
            try:
                link = await self._start(self.config, log_path=self._log_path)
            except InnkeeperError as error:
                logger.error("restarting %s failed: %s", self.name, error)
                revival, self._revival = self._revival, asyncio.Future()
                _settle(revival, error)
                continue
            revival, self._revival = self._revival, None
            self.link, self._started, self._num_crashes = link, time.monotonic(), attempt
            self._watch(link)
            revival.set_result(link)
            return

    async def _stop_reviving(self) -> None:
        reviver, self._reviver = self._reviver, None
        if reviver is not None and not reviver.done():
            reviver.cancel()
            await asyncio.wait([reviver])
        if self._revival is not None:
            _settle(self._revival, EngineError("the model was replaced or unloaded"))
            self._revival = None


def _settle(future: "asyncio.Future[EngineLink]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # read, so that asyncio does not log a failure nobody waited for
