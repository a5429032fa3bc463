"""Loads under way, and who waits for them."""

from collections.abc import Awaitable, Callable

from innkeeper.core import ModelFacts
from innkeeper.errors import BusyError
from innkeeper.serving.jobs import LoadJob
from innkeeper.serving.loaded import LoadedModel


class Load:
    """One load, whose model is claimed for everyone who waits."""

    def __init__(self, name: str) -> None:
        self.job = LoadJob(name)
        self._model: LoadedModel | None = None
        self._num_waiting = 0

    def give(self, model: LoadedModel) -> None:
        """The model is there."""
        self._model = model.claim(self._num_waiting)

    async def wait(self) -> LoadedModel:
        """Its model, claimed. Leaving early does not end the load. Raises: what it failed with."""
        self._num_waiting += 1
        try:
            await self.job.wait()
        except BaseException:
            self._num_waiting -= 1
            if self._model is not None:
                self._model.release()
            raise
        assert self._model is not None
        return self._model


class Loads:
    """Those that have not ended, by the names of their models. Belongs to one event loop."""

    def __init__(self) -> None:
        self._loads: dict[str, Load] = {}
        self.newest_job: LoadJob | None = None
        """Of the load that began last, ended or not."""

    @property
    def names(self) -> set[str]:
        return set(self._loads)

    @property
    def newest(self) -> Load | None:
        return next(reversed(self._loads.values()), None)

    def get(self, name: str) -> Load | None:
        return self._loads.get(name)

    def begin(self, name: str, bring: Callable[[Load], Awaitable[ModelFacts]]) -> Load:
        """``bring`` loads it, and gives the load its model."""
        load = self._loads[name] = Load(name)
        self.newest_job = load.job

        def forget() -> None:
            if self._loads.get(name) is load:
                del self._loads[name]

        load.job.run(lambda: bring(load))
        load.job.when_done(forget)
        return load

    def check_none_runs(self) -> None:
        """Raises: BusyError."""
        for name, load in self._loads.items():
            if load.job.running:
                raise BusyError(f"{name} is being loaded", hint="wait until it is ready")

    async def cancel(self) -> None:
        """Stops them all."""
        for load in list(self._loads.values()):
            await load.job.cancel()
