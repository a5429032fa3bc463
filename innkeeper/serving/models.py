"""Which models are loaded: by name, as many as memory holds, the least used one leaving first."""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from innkeeper.core import EngineConfig, ModelFacts
from innkeeper.enginelink import EngineLink
from innkeeper.enginelink.link import StartEngine
from innkeeper.errors import BusyError, InnkeeperError, NoModelError
from innkeeper.planner.hardware import Hardware, probe
from innkeeper.serving.engine_settings import EngineDefaults, Overrides
from innkeeper.serving.fit import CheckModel, Room, check_model, make_room
from innkeeper.serving.jobs import LoadJob
from innkeeper.serving.leaving import KeepRules, Leaving
from innkeeper.serving.loaded import LoadedModel
from innkeeper.serving.loads import Load, Loads
from innkeeper.serving.names import ModelEntry, bare, match
from innkeeper.serving.shelf import Shelf
from innkeeper.serving.tuning import Tuning

logger = logging.getLogger(__name__)

_DRAIN_SECONDS = 30.0


class Models:
    """The loaded models and their engines. Belongs to one event loop.

    The current model answers requests that name none: the one that was loaded by hand last. Others
    come when a request names them, and stay while there is room.

    folder: ``*.gguf`` in it (and below) can be loaded by name.
    further: other folders whose models can be loaded by name.
    log_folder: where engines write their log; None = nowhere.
    start: how an engine is started; tests pass their own.
    check: looks at a model before a loaded one is touched; raises what is wrong with it.
    hardware: what this computer has; tests pass smaller ones.
    tune: chooses the fastest settings for a model that is loaded while no other is used; None =
    the usual ones.
    retry_seconds: waits before the restarts after a crash; the last one repeats.
    """

    def __init__(
        self,
        folder: Path,
        defaults: EngineDefaults,
        *,
        keep: KeepRules | None = None,
        further: Sequence[Path] = (),
        log_folder: Path | None = None,
        start: StartEngine = EngineLink.start,
        check: CheckModel = check_model,
        hardware: Callable[[], Hardware] = probe,
        tune: Tuning | None = None,
        retry_seconds: Sequence[float] = (0.0, 1.0, 2.0, 5.0, 10.0),
    ) -> None:
        self._shelf = Shelf((folder, *further), defaults)
        self._keep = keep or KeepRules()
        self._log_path = log_folder / "engine.log" if log_folder else None
        self._start = start
        self._check = check
        self._hardware = hardware
        self._tune = tune
        self._retry_seconds = tuple(retry_seconds)
        self._leaving = Leaving(self._keep)
        self._loaded: dict[str, LoadedModel] = {}
        self._current: LoadedModel | None = None
        self._asleep: str | None = None
        self._loads = Loads()
        self._swap_lock = asyncio.Lock()
        self._closed = False

    # --- what there is ----------------------------------------------------------------------------

    @property
    def loaded(self) -> list[LoadedModel]:
        """The current model first, then by last use."""
        every = sorted(self._loaded.values(), key=lambda model: -model.last_used)
        return sorted(every, key=lambda model: model is not self._current)

    @property
    def facts(self) -> ModelFacts | None:
        """The current model; kept while its engine restarts; None if nothing is loaded."""
        return self._current.facts if self._current else None

    def current_facts(self) -> ModelFacts:
        """The same. Raises: NoModelError."""
        if self.facts is None:
            raise _no_model()
        return self.facts

    def facts_of(self, name: str) -> ModelFacts | None:
        """Of the model that a request for ``name`` was or will be answered by, if it is loaded."""
        found = self._loaded.get(match(bare(name), self._loaded) or "") if name else None
        return found.facts if found else self.facts

    def answering(self, name: str) -> str:
        """The name of the model that answers, or answered, a request for ``name``."""
        facts = self.facts_of(name)
        return facts.name if facts else name

    @property
    def job(self) -> LoadJob | None:
        """The newest load, running or not."""
        return self._loads.newest_job

    @property
    def healthy(self) -> bool:
        """A model is loaded and its engine answers."""
        return self._current is not None and self._current.link.responsive

    @property
    def link(self) -> EngineLink | None:
        """The current model's engine, dead or alive; use ``engine`` to send it something."""
        return self._current.link if self._current else None

    def entries(self) -> list[ModelEntry]:
        """What can be loaded by name, sorted. Reads the folders anew each time."""
        return self._shelf.entries()

    def resolve(self, name: str) -> tuple[str, str | None]:
        """The model that a client means by ``name``, empty for the current one, and a warning.

        Where one model alone is loaded it answers to every name that no model has, since many
        clients send one that somebody else made up. Raises: NotFoundError.
        """
        here = self._loaded.keys() | self._loads.names
        return self._shelf.resolve(name, here, exact=self._keep.exact_names)

    # --- using one --------------------------------------------------------------------------------

    @asynccontextmanager
    async def use(self, name: str = "") -> AsyncGenerator[LoadedModel, None]:
        """The model called ``name`` (as ``resolve`` returns it), loaded if it is not, and kept
        until the block ends. What a request started goes on behind it.

        Raises: NoModelError if none is named and nothing is loaded; what a load failed with.
        """
        model = await self._claim(name)
        try:
            yield model
        finally:
            model.release()

    async def engine(self, name: str = "") -> EngineLink:
        """Its engine; waits for a load or a restart that is under way. Raises: as ``use``."""
        async with self.use(name) as model:
            return await model.engine()

    async def _claim(self, name: str) -> LoadedModel:
        while True:
            model = self._loaded.get(name) if name else self._current
            if model is not None and not model.is_leaving:
                return model.claim()
            load = self._load_for(name)
            try:
                return await load.wait()
            except InnkeeperError:
                if name or self._current is None:
                    raise

    def _load_for(self, name: str) -> Load:
        """The load to wait for, begun if need be. Raises: NoModelError."""
        if name:
            return self._loads.get(name) or self._begin(self._shelf.config(name), by_hand=False)
        if self._loads.newest is not None:
            return self._loads.newest
        if self._asleep is not None:
            return self._begin(self._shelf.config(self._asleep), by_hand=False)
        raise _no_model()

    # --- loading and unloading by hand ------------------------------------------------------------

    def start_load(self, name: str, overrides: Overrides | None = None) -> LoadJob:
        """Loads a listed model, replacing the current one if that succeeds.

        Raises: NotFoundError if ``entries`` has no such name; BusyError during another load.
        """
        return self._by_hand(self._shelf.listed(name.removesuffix(".gguf"), overrides))

    def start_load_file(self, path: Path, overrides: Overrides | None = None) -> LoadJob:
        """Loads a file that the user of this computer chose; never a path from a request.

        Raises: BusyError during another load.
        """
        return self._by_hand(self._shelf.choose(path, overrides))

    def start_reload(self, **changes: Any) -> LoadJob:
        """Loads the current model again, with some of ``EngineConfig``'s attributes changed.

        Raises: NoModelError; BusyError during another load.
        """
        return self._by_hand(msgspec.structs.replace(self.current_config(), **changes))

    async def at_rest(self, seconds: float) -> None:
        """Waits until the current model writes no reply. Raises: BusyError after ``seconds``."""
        if self._current is None:
            return
        await self._current.idle(seconds)
        if self._current is not None and self._current.is_busy:
            raise BusyError(
                f"{self._current.name} has been writing replies for {seconds:g} s",
                hint="try again when it writes none",
            )

    def current_config(self) -> EngineConfig:
        """What the current model was asked to be loaded with. Raises: NoModelError."""
        if self._current is None:
            raise _no_model()
        return self._shelf.config(self._current.name)

    async def unload(self, name: str | None = None) -> None:
        """Ends the engine of ``name``, or of every model; their replies end as crashed. Nothing
        loaded is fine."""
        async with self._swap_lock:
            for model in list(self._loaded.values()):
                if name in (None, model.name):
                    self._forget(model)
                    await model.close()
            if name in (None, self._asleep):
                self._asleep = None

    def keep_for(self, name: str, seconds: float | None) -> None:
        """How long ``name`` stays loaded while nobody uses it; negative = for ever, None = as the
        server is set."""
        self._leaving.keep_for(name, seconds)
        self._sweep()

    def seconds_left(self, model: LoadedModel) -> float | None:
        """How long it stays if nobody uses it; None = for ever."""
        return self._leaving.seconds_left(model)

    async def close(self) -> None:
        """Ends everything. Idempotent."""
        self._closed = True
        await self._loads.cancel()
        await self.unload()
        await self._leaving.close()

    def _by_hand(self, config: EngineConfig) -> LoadJob:
        self._loads.check_none_runs()
        return self._begin(config, by_hand=True).job

    # --- the load itself --------------------------------------------------------------------------

    def _begin(self, config: EngineConfig, *, by_hand: bool) -> Load:
        async def bring(load: Load) -> ModelFacts:
            async with self._swap_lock:
                facts = await self._bring(config, load, by_hand=by_hand)
            if by_hand:
                self._shelf.remember(config)
            return facts

        return self._loads.begin(config.name, bring)

    async def _bring(self, config: EngineConfig, load: Load, *, by_hand: bool) -> ModelFacts:
        """Starts the new engine before old ones end, if memory has room for all."""
        there = self._loaded.get(config.name)
        if there is not None and not by_hand:  # somebody was quicker
            load.give(there)
            return there.facts
        hardware = await asyncio.to_thread(self._hardware)
        config = await self._tuned(config, hardware, load.job)
        going = self._replaced(config.name) if by_hand else []
        room = await self._room(config, going, hardware)
        going = [model for model in self.loaded if model.name in room.leaving]
        first = [] if room.may_overlap and _know_memory(going) else going
        for model in first:
            await self._stop(model, wait=not by_hand)
        try:
            link = await self._start(
                room.config, on_progress=load.job.progress, log_path=self._log_path
            )
        except BaseException:
            self._bring_back(first)
            raise
        for model in going:
            self._retire(model, seconds=_DRAIN_SECONDS if by_hand else None)
        self._adopt(room, link, load, by_hand=by_hand)
        return link.facts

    async def _tuned(self, config: EngineConfig, hardware: Hardware, job: LoadJob) -> EngineConfig:
        if self._tune is None or any(model.is_busy for model in self._loaded.values()):
            return config
        stop = threading.Event()
        try:
            return await asyncio.to_thread(self._tune, config, hardware, job.progress, stop)
        finally:
            stop.set()

    def _bring_back(self, stopped: Sequence[LoadedModel]) -> None:
        """After a load that failed: the current model goes on, the others come when asked for."""
        for model in stopped:
            if model is self._current and not self._closed:
                model.is_leaving = False
                model.revive()
            else:
                self._retire(model, 0)

    def _replaced(self, name: str) -> list[LoadedModel]:
        """What a load by hand of ``name`` replaces: the current model, and an older load of it."""
        pinned = self._keep.pinned - {name}
        return [
            model
            for model in self._loaded.values()
            if model.name == name or (model is self._current and model.name not in pinned)
        ]

    async def _room(
        self, config: EngineConfig, going: Sequence[LoadedModel], hardware: Hardware
    ) -> Room:
        may_go = [
            model
            for model in reversed(self.loaded)
            if model not in going and model.name not in self._keep.pinned
        ]
        on_gpu = any(model.facts.device != "CPU" for model in self._loaded.values())
        return await asyncio.to_thread(
            make_room,
            config,
            hardware,
            loaded={model.name: model.need for model in self._loaded.values()},
            going=[model.name for model in going],
            may_go=[model.name for model in may_go],
            max_loaded=self._keep.max_loaded or (1 if on_gpu else 0),
            check=self._check,
        )

    async def _stop(self, model: LoadedModel, *, wait: bool) -> None:
        """Ends its engine, whose replies end as crashed if nobody is to ``wait`` for them."""
        model.is_leaving = True
        if wait:
            await model.idle()
        await model.stop()

    def _adopt(self, room: Room, link: EngineLink, load: Load, *, by_hand: bool) -> None:
        model = LoadedModel(
            room.config,
            link,
            room.need,
            start=self._start,
            retry_seconds=self._retry_seconds,
            log_path=self._log_path,
        )
        load.give(model)
        self._loaded[model.name] = model
        if by_hand or self._current is None:
            self._current, self._asleep = model, None
        self._sweep()

    def _forget(self, model: LoadedModel) -> None:
        """It is no longer there; the model that was used last becomes the current one."""
        model.is_leaving = True
        if self._loaded.get(model.name) is model:
            del self._loaded[model.name]
        if self._current is model:
            self._current = None
            self._current = next(iter(self.loaded), None)

    def _retire(self, model: LoadedModel, seconds: float | None) -> None:
        """Lets it finish what it is at, for ``seconds`` at most."""
        self._forget(model)
        self._leaving.retire(model, seconds)

    def _sweep(self) -> None:
        self._leaving.sweep(self._let_tired_go)

    async def _let_tired_go(self) -> bool:
        """Unloads what nobody used; False if nothing is loaded any more."""
        async with self._swap_lock:
            for model in self._leaving.tired(list(self._loaded.values())):
                self._asleep = model.name if model is self._current else self._asleep
                logger.info("%s was not used: unloading it", model.name)
                self._retire(model, None)
        return bool(self._loaded)


def _know_memory(going: Sequence[LoadedModel]) -> bool:
    """Whether old engines may live on while a new one loads: nobody knows what two need on a
    GPU."""
    return all(model.link.alive and model.facts.device == "CPU" for model in going)


def _no_model() -> NoModelError:
    return NoModelError("no model is loaded", hint="load one first")
