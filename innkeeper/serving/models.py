"""Which model is loaded, and keeping it so."""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from innkeeper.core import EngineConfig, ModelFacts
from innkeeper.enginelink import EngineLink
from innkeeper.enginelink.link import StartEngine
from innkeeper.errors import (
    BusyError,
    EngineError,
    InnkeeperError,
    NoModelError,
    NotFoundError,
)
from innkeeper.formats import gguf
from innkeeper.planner.hardware import Hardware, probe
from innkeeper.prompt import Renderer
from innkeeper.serving.fit import (
    CheckModel,
    Need,
    check_model,
    choose_sizes,
    fits_beside,
    refuse_too_big,
)
from innkeeper.serving.jobs import LoadJob

logger = logging.getLogger(__name__)

_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}$")
_PART = re.compile(r"-\d{5}-of-\d{5}$")
_STEADY_SECONDS = 60.0
_DRAIN_SECONDS = 30.0
_NOTICE_SECONDS = 0.005


class EngineDefaults(Struct, frozen=True, kw_only=True):
    """The server's settings for engines; a load may override some."""

    backend: str = "llama_cpp"
    num_ctx: int = 0
    """Tokens one request may use; 0 = what fits the model and this computer."""
    num_pool: int = 0
    """Cells of the KV pool; 0 = ``num_ctx``, or room for a second chat where memory allows."""
    max_sequences: int = 4
    max_kept: int = 4
    num_gpu_layers: int = -1
    kv_type_k: str = "f16"
    kv_type_v: str = "f16"
    num_threads: int = 0
    kv_reuse: str = "auto"
    idle_refresh: bool = True
    max_ubatch: int = 0
    flash_attention: bool | None = None
    options: dict[str, str] = {}

    def config(self, path: Path, name: str, overrides: "Overrides | None") -> EngineConfig:
        """What an engine needs to load ``path`` as ``name``."""
        values = msgspec.structs.asdict(self)
        if overrides is not None:
            changes = msgspec.structs.asdict(overrides)
            values |= {key: value for key, value in changes.items() if value is not None}
        if values["num_pool"]:
            values["num_pool"] = max(values["num_pool"], values["num_ctx"])
        return EngineConfig(path=str(path), name=name, **values)


class Overrides(Struct, frozen=True, kw_only=True):
    """What one load may set differently; None = the server's default."""

    num_ctx: int | None = None
    max_sequences: int | None = None
    num_gpu_layers: int | None = None
    kv_type_k: str | None = None
    kv_type_v: str | None = None
    num_threads: int | None = None
    max_ubatch: int | None = None
    flash_attention: bool | None = None


class ModelEntry(Struct, frozen=True):
    """A model that may be loaded by name."""

    name: str
    path: Path
    size_bytes: int
    """Of all its parts."""


class _Running(Struct):
    """What is loaded, or being restarted."""

    config: EngineConfig
    link: EngineLink
    renderer: Renderer
    need: Need
    started: float
    num_crashes: int = 0


class Models:
    """The one loaded model and its engine. Belongs to one event loop.

    folder: ``*.gguf`` in it (and below) can be loaded by name.
    log_folder: where engines write their log; None = nowhere.
    start: how an engine is started; tests pass their own.
    check: looks at a model before the loaded one is touched; raises what is wrong with it.
    hardware: what this computer has; tests pass smaller ones.
    retry_seconds: waits before the restarts after a crash; the last one repeats.
    """

    def __init__(
        self,
        folder: Path,
        defaults: EngineDefaults,
        *,
        log_folder: Path | None = None,
        start: StartEngine = EngineLink.start,
        check: CheckModel = check_model,
        hardware: Callable[[], Hardware] = probe,
        retry_seconds: Sequence[float] = (0.0, 1.0, 2.0, 5.0, 10.0),
    ) -> None:
        self._folder = folder
        self._defaults = defaults
        self._log_path = log_folder / "engine.log" if log_folder else None
        self._start = start
        self._check = check
        self._hardware = hardware
        self._retry_seconds = tuple(retry_seconds)
        self._chosen: dict[str, Path] = {}
        self._running: _Running | None = None
        self._job: LoadJob | None = None
        self._revival: asyncio.Future[EngineLink] | None = None
        self._reviver: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._swap_lock = asyncio.Lock()
        self._closed = False

    @property
    def facts(self) -> ModelFacts | None:
        """The loaded model; kept while its engine restarts; None if nothing is loaded."""
        return self._running.link.facts if self._running else None

    @property
    def job(self) -> LoadJob | None:
        """The newest load, running or not."""
        return self._job

    @property
    def healthy(self) -> bool:
        """A model is loaded and its engine answers."""
        return self._running is not None and self._running.link.responsive

    @property
    def renderer(self) -> Renderer:
        """Of the loaded model's chat template. Raises: NoModelError."""
        if self._running is None:
            raise _no_model()
        return self._running.renderer

    @property
    def link(self) -> EngineLink | None:
        """The engine as it is now, dead or alive; use ``engine`` to send it something."""
        return self._running.link if self._running else None

    def entries(self) -> list[ModelEntry]:
        """What can be loaded by name, sorted: files in the folder (first parts only), and those
        loaded by path. Reads the folder anew each time."""
        paths = {_name(path.relative_to(self._folder)): path for path in _files(self._folder)}
        paths |= self._chosen
        found = {name: entry for name, path in paths.items() if (entry := _entry(path, name))}
        return sorted(found.values(), key=lambda entry: entry.name.lower())

    def start_load(self, name: str, overrides: Overrides | None = None) -> LoadJob:
        """Loads a listed model, replacing the loaded one if that succeeds.

        Raises: NotFoundError if ``entries`` has no such name; BusyError during another load.
        """
        wanted = name.removesuffix(".gguf")
        for entry in self.entries():
            if entry.name == wanted:
                return self._start_job(self._defaults.config(entry.path, wanted, overrides))
        raise NotFoundError(
            f"there is no model {name[:80]!r} here",
            field="model_name",
            hint="GET /v1/internal/model/list has the names",
        )

    def start_load_file(self, path: Path, overrides: Overrides | None = None) -> LoadJob:
        """Loads a file that the user of this computer chose; never a path from a request.

        Raises: BusyError during another load.
        """
        name = _name(Path(path.name))
        self._chosen[name] = path
        return self._start_job(self._defaults.config(path, name, overrides))

    async def unload(self) -> None:
        """Ends the engine; running requests end as crashed. Nothing loaded is fine."""
        async with self._swap_lock:
            await self._stop_running()

    async def engine(self) -> EngineLink:
        """The engine to send a request to; waits for a load or a restart that is under way.

        Raises: NoModelError if nothing is loaded; what the load or the restart failed with.
        """
        while True:
            if self._running is not None and self._running.link.alive:
                return self._running.link
            if self._revival is not None:
                await asyncio.shield(self._revival)
            elif self._job is not None and self._job.running:
                await self._outcome(self._job)
            elif self._running is None:
                raise _no_model()
            else:
                await asyncio.sleep(_NOTICE_SECONDS)  # it has just died

    async def _outcome(self, job: LoadJob) -> None:
        """Waits for a load. If it fails, the model before it comes back, if there was one."""
        try:
            await job.wait()
        except InnkeeperError:
            if self._running is None:
                raise

    async def close(self) -> None:
        """Ends everything. Idempotent."""
        self._closed = True
        if self._job is not None:
            await self._job.cancel()
        await self._stop_running()
        await asyncio.gather(*self._retiring, return_exceptions=True)

    # --- loading --------------------------------------------------------------------------------

    def _start_job(self, config: EngineConfig) -> LoadJob:
        if self._job is not None and self._job.running:
            raise BusyError(
                f"{self._job.state.name} is being loaded", hint="wait until it is ready"
            )
        self._job = job = LoadJob(config.name)
        job.run(lambda: self._swap(config, job))
        return job

    async def _swap(self, config: EngineConfig, job: LoadJob) -> ModelFacts:
        """Starts the new engine before the old one ends, if memory has room for both."""
        async with self._swap_lock:
            old = self._running
            freed = old.need if old else Need()
            hardware = await asyncio.to_thread(self._hardware)
            config = await asyncio.to_thread(choose_sizes, config, freed, hardware)
            need = await asyncio.to_thread(self._check, config)
            refuse_too_big(need, freed, hardware, config)
            if old is not None and not (_can_wait(old) and fits_beside(need, hardware)):
                await self._stop_reviving()
                await old.link.close()
            try:
                link = await self._start_link(config, job)
            except BaseException:
                if old is not None and not old.link.alive and not self._closed:
                    self._revive(old)
                raise
            if old is not None:
                await self._stop_reviving()
                self._retire(old)
            self._adopt(config, link, need)
        return link.facts

    def _start_link(self, config: EngineConfig, job: LoadJob) -> "asyncio.Future[EngineLink]":
        return asyncio.ensure_future(
            self._start(config, on_progress=job.progress, log_path=self._log_path)
        )

    def _adopt(self, config: EngineConfig, link: EngineLink, need: Need) -> None:
        facts = link.facts
        self._running = running = _Running(
            config=config,
            link=link,
            renderer=Renderer(
                facts.chat_template, bos_text=facts.bos_text, eos_text=facts.eos_text
            ),
            need=need,
            started=time.monotonic(),
        )
        link.lost.add_done_callback(lambda _: self._on_lost(running))

    def _retire(self, old: _Running) -> None:
        """Lets the replaced engine finish what it is at."""

        async def drain() -> None:
            deadline = time.monotonic() + _DRAIN_SECONDS
            while old.link.num_open and not self._closed and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
            await old.link.close()
            await old.renderer.close()

        task = asyncio.create_task(drain())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _stop_running(self) -> None:
        await self._stop_reviving()
        running, self._running = self._running, None
        if running is not None:
            await running.link.close()
            await running.renderer.close()

    # --- after a crash --------------------------------------------------------------------------

    def _on_lost(self, running: _Running) -> None:
        error = running.link.lost.result()
        if error is None or running is not self._running or self._closed:
            return
        logger.error("%s: %s", running.config.name, error)
        if time.monotonic() - running.started > _STEADY_SECONDS:
            running.num_crashes = 0
        self._revive(running)

    def _revive(self, running: _Running) -> None:
        if self._reviver is None or self._reviver.done():
            self._revival = asyncio.get_running_loop().create_future()
            self._reviver = asyncio.create_task(self._keep_reviving(running))

    async def _keep_reviving(self, running: _Running) -> None:
        """Restarts until it works. Requests that wait learn of each failure."""
        attempt = running.num_crashes
        while True:
            await asyncio.sleep(self._retry_seconds[min(attempt, len(self._retry_seconds) - 1)])
            attempt += 1
            assert self._revival is not None
            try:
                link = await self._start(running.config, log_path=self._log_path)
            except InnkeeperError as error:
                logger.error("restarting %s failed: %s", running.config.name, error)
                revival, self._revival = self._revival, asyncio.Future()
                _settle(revival, error)
                continue
            revival, self._revival = self._revival, None
            running.link, running.started, running.num_crashes = link, time.monotonic(), attempt
            link.lost.add_done_callback(lambda _: self._on_lost(running))
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


def _can_wait(old: _Running) -> bool:
    """Whether the old engine may live on while the new one loads: nobody knows what two need on
    a GPU."""
    return old.link.alive and old.link.facts.device == "CPU"


def _files(folder: Path) -> list[Path]:
    """First parts of the models in ``folder``; projectors for images are no models."""
    return [
        path
        for path in folder.rglob("*.gguf")
        if not _LATER_PART.search(path.stem) and not path.name.startswith("mmproj")
    ]


def _name(path: Path) -> str:
    return _PART.sub("", path.with_suffix("").as_posix())


def _entry(path: Path, name: str) -> ModelEntry | None:
    """None if the file is gone or not readable."""
    try:
        paths = [path.with_name(part) for part in gguf.split_names(path.name)]
        return ModelEntry(name, path, sum(part.stat().st_size for part in paths))
    except (OSError, InnkeeperError):
        return None


def _no_model() -> NoModelError:
    return NoModelError("no model is loaded", hint="load one first")


def _settle(future: "asyncio.Future[EngineLink]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # read, so that asyncio does not log a failure nobody waited for
