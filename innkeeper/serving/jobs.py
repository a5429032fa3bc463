"""Jobs that any number of clients may watch, and loading a model as one."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, Literal, Protocol, TypeVar

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


class State(Protocol):
    """Of a job at one moment."""

    @property
    def status(self) -> Literal["running", "done", "failed"]: ...


S = TypeVar("S", bound=State)


class Watched(Generic[S]):
    """What changes until it ends, for any number who look on."""

    def __init__(self, state: S) -> None:
        self.state = state
        self._changed = asyncio.Event()

    @property
    def running(self) -> bool:
        return self.state.status == "running"

    async def watch(self) -> AsyncGenerator[S, None]:
        """The current state, then every change (the newest, if several happened), to the end."""
        while True:
            changed, state = self._changed, self.state
            yield state
            if state.status != "running":
                return
            if state is self.state:
                await changed.wait()

    def _set(self, state: S) -> None:
        self.state = state
        self._changed.set()
        self._changed = asyncio.Event()


class LoadJob(Watched[LoadState]):
    """One load. It runs to its end even if nobody watches."""

    def __init__(self, name: str) -> None:
        super().__init__(LoadState(name=name))
        self._task: asyncio.Task[ModelFacts] | None = None

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
