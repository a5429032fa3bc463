"""Loading a model as a job that any number of clients may watch."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Literal

from msgspec import Struct

from innkeeper.core import ModelFacts
from innkeeper.errors import EngineLoadError, InnkeeperError


class LoadState(Struct, frozen=True, kw_only=True):
    """A job at one moment."""

    name: str
    status: Literal["running", "done", "failed"] = "running"
    stage: str = "starting"
    fraction: float = 0.0
    """0..1 of the stage."""
    error: InnkeeperError | None = None
    facts: ModelFacts | None = None


class LoadJob:
    """One load. It runs to its end even if nobody watches."""

    def __init__(self, name: str) -> None:
        self.state = LoadState(name=name)
        self._changed = asyncio.Event()
        self._task: asyncio.Task[ModelFacts] | None = None

    @property
    def running(self) -> bool:
        return self.state.status == "running"

    def run(self, work: Callable[[], Awaitable[ModelFacts]]) -> None:
        """Starts ``work``, whose result or error ends the job."""
        self._task = asyncio.create_task(self._run(work))
        # Watching is optional: an error nobody waited for is no warning of asyncio's.
        self._task.add_done_callback(self._settle)

    def when_done(self, act: Callable[[], object]) -> None:
        """Calls ``act`` once it has ended, however that came."""
        assert self._task is not None
        self._task.add_done_callback(lambda _: act())

    def progress(self, fraction: float, stage: str) -> None:
        self._set(LoadState(name=self.state.name, stage=stage, fraction=fraction))

    async def wait(self) -> ModelFacts:
        """The loaded model. Raises: what the load failed with."""
        assert self._task is not None
        return await asyncio.shield(self._task)

    async def cancel(self) -> None:
        """Stops the load and waits until it has cleaned up."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def watch(self) -> AsyncGenerator[LoadState, None]:
        """The current state, then every change (the newest, if several happened), to the end."""
        while True:
            changed, state = self._changed, self.state
            yield state
            if state.status != "running":
                return
            if state is self.state:
                await changed.wait()

    def _settle(self, task: "asyncio.Task[ModelFacts]") -> None:
        if task.cancelled():  # before it began
            self._fail(EngineLoadError("loading was interrupted"))
        else:
            task.exception()

    async def _run(self, work: Callable[[], Awaitable[ModelFacts]]) -> ModelFacts:
        try:
            facts = await work()
        except asyncio.CancelledError:
            interrupted = EngineLoadError("loading was interrupted")
            self._fail(interrupted)
            raise interrupted from None
        except InnkeeperError as error:
            self._fail(error)
            raise
        name = self.state.name
        self._set(LoadState(name=name, status="done", stage="ready", fraction=1.0, facts=facts))
        return facts

    def _fail(self, error: InnkeeperError) -> None:
        state = self.state
        self._set(
            LoadState(
                name=state.name,
                status="failed",
                stage=state.stage,
                fraction=state.fraction,
                error=error,
            )
        )

    def _set(self, state: LoadState) -> None:
        self.state = state
        self._changed.set()
        self._changed = asyncio.Event()
