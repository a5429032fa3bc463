"""Generations that others may look at and stop, by a key: KoboldCpp's check and abort."""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator

from innkeeper.api.replies import Events
from innkeeper.core import TokenLogprob
from innkeeper.core.frames import Delta, Finished

_MAX_KEPT = 32


class Job:
    """One generation, running or ended. Belongs to one event loop."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.pieces: list[str] = []
        """Text of the first choice so far."""
        self.logprobs: list[TokenLogprob] = []
        self.finished: Finished | None = None
        self.is_running = True
        self.ended = 0.0
        self._queue: asyncio.Queue[Delta | Finished | Exception | None] = asyncio.Queue()

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def abort(self) -> None:
        """Ends it where it is; the engine's slot is free within one step."""
        self._queue.put_nowait(None)

    async def follow(self, events: Events) -> AsyncGenerator[Delta | Finished, None]:
        """``events``, until they end or ``abort`` is called: then without a ``Finished``."""
        pump = asyncio.create_task(self._pump(events))
        try:
            while (event := await self._queue.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                self._note(event)
                yield event
        finally:
            self.is_running, self.ended = False, time.monotonic()
            pump.cancel()
            await asyncio.wait([pump])

    async def _pump(self, events: Events) -> None:
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    self._queue.put_nowait(event)
            self._queue.put_nowait(None)
        except Exception as error:  # noqa: BLE001  (raised again on the other side)
            self._queue.put_nowait(error)

    def _note(self, event: Delta | Finished) -> None:
        if event.index != 0:
            return
        if isinstance(event, Finished):
            self.finished = event
        else:
            self.pieces.append(event.text)
            self.logprobs += event.logprobs


class Jobs:
    """The running jobs and the last ended ones."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.num_begun = 0
        self._jobs: OrderedDict[int, Job] = OrderedDict()

    def begin(self, key: str) -> Job:
        """A new job; the oldest ended ones are forgotten."""
        self.num_begun += 1
        job = self._jobs[self.num_begun] = Job(key)
        ended = [number for number, each in self._jobs.items() if not each.is_running]
        for number in ended[: max(0, len(self._jobs) - _MAX_KEPT)]:
            del self._jobs[number]
        return job

    def idle_seconds(self) -> float:
        """Since the last job ended; 0 while one runs."""
        if self.running():
            return 0.0
        last = max((job.ended for job in self._jobs.values()), default=self.started)
        return time.monotonic() - last

    def find(self, key: str) -> Job | None:
        """The newest job of that key; of any, if it is empty."""
        every = reversed(self._jobs.values())
        return next((job for job in every if not key or job.key == key), None)

    def running(self, key: str = "") -> list[Job]:
        """Running jobs of that key; all, if it is empty."""
        return [
            job for job in self._jobs.values() if job.is_running and (not key or job.key == key)
        ]
