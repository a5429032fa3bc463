"""Changes which models are here: downloads that clients ask for, second names, removal."""

import asyncio
import contextlib
import fnmatch
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

from innkeeper.errors import (
    InnkeeperError,
    InvalidRequestError,
    NotFoundError,
    UnsupportedModelError,
)
from innkeeper.hub.errors import DownloadError, DownloadPausedError
from innkeeper.library import Library
from innkeeper.serving.jobs import Watched
from innkeeper.serving.models import Models
from innkeeper.serving.names import ModelEntry, model_name

if TYPE_CHECKING:
    from innkeeper.hub.address import Address
    from innkeeper.hub.client import Hub
    from innkeeper.hub.listing import Listing
    from innkeeper.hub.progress import Progress
    from innkeeper.hub.variants import Variant

logger = logging.getLogger(__name__)

_CLOSE_SECONDS = 2.0
_SHOW_SECONDS = 0.1
"""Progress comes with every piece of some KiB; nobody reads that fast."""

OpenHub = Callable[[str | None], "Hub"]
"""A client of the hub, with this access token or the user's own."""


class Wanted(Struct, frozen=True, kw_only=True):
    """What to download."""

    address: str
    """``org/name``, ``org/name:quant``, or the page of either."""
    revision: str | None = None
    include: tuple[str, ...] = ()
    """Patterns of file names, such as ``*Q4_K_M*``; none = all."""
    exclude: tuple[str, ...] = ()
    token: str | None = None
    field: str = "model"
    """What a request calls ``address``, for errors."""


class PullState(Struct, frozen=True, kw_only=True):
    """A download at one moment."""

    status: Literal["running", "done", "failed"] = "running"
    stage: str = "listing"
    """``listing``, then ``checking``, ``downloading`` or ``waiting``, then ``done``."""
    digest: str = ""
    """SHA-256 of the main file, once it is known."""
    done_bytes: int = 0
    total_bytes: int = 0
    name: str = ""
    """Of the model, once it is here."""
    error: InnkeeperError | None = None


class PullJob(Watched[PullState]):
    """One download, which goes on as long as somebody watches. What has arrived is kept."""

    def __init__(self) -> None:
        super().__init__(PullState())
        self.stop = threading.Event()
        self._num_watching = 0
        self._loop = asyncio.get_running_loop()
        self._shown = 0.0

    async def follow(self) -> AsyncGenerator[PullState, None]:
        """Its states, to the end. Raises: what it failed with."""
        self._num_watching += 1
        try:
            async for state in self.watch():
                if state.error is not None:
                    raise state.error
                yield state
        finally:
            self._num_watching -= 1
            if not self._num_watching:
                self.stop.set()

    async def wait(self) -> str:
        """The model's name. Raises: what it failed with."""
        async for _ in self.follow():
            pass
        return self.state.name

    def change(self, **changes: object) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(
                lambda: self._set(msgspec.structs.replace(self.state, **changes))
            )

    def show(self, progress: "Progress") -> None:
        """From the thread that downloads."""
        now = time.monotonic()
        if now - self._shown >= _SHOW_SECONDS or progress.fraction >= 1:
            self._shown = now
            self.change(stage=progress.stage, done_bytes=progress.done_bytes)


class Collection:
    """The models folder, as clients may change it. Belongs to one event loop; ``close`` it.

    folder: where downloads and second names go. further: other folders whose models are listed.
    """

    def __init__(
        self,
        models: Models,
        folder: Path,
        *,
        further: Sequence[Path] = (),
        open_hub: OpenHub | None = None,
    ) -> None:
        self._models = models
        self._folder = folder
        self._library = Library(folder, further)
        self._open_hub = open_hub or _open_hub
        self._pulls: dict[Wanted, tuple[PullJob, asyncio.Task[None]]] = {}

    def pull(self, wanted: Wanted) -> PullJob:
        """Downloads ``wanted``, or joins who does so already."""
        running, ending = self._pulls.get(wanted, (None, None))
        if running is not None and not running.stop.is_set():
            return running
        job = PullJob()
        task = asyncio.create_task(self._run(job, wanted, ending))
        self._pulls[wanted] = (job, task)
        task.add_done_callback(lambda _: self._forget(wanted, job))
        return job

    async def remove(self, name: str) -> int:
        """Unloads a listed model of the models folder and deletes it; the number of its bytes.

        Raises: NotFoundError, InvalidRequestError, ModelFileError.
        """
        await asyncio.to_thread(self._library.check_removable, name)
        await self._models.unload(name)
        return await asyncio.to_thread(self._library.remove, name)

    async def link(self, entry: ModelEntry, name: str) -> None:
        """Gives ``entry`` one more name. Raises: InvalidRequestError, ModelFileError."""
        await asyncio.to_thread(self._library.link, entry.path, name)

    async def close(self) -> None:
        """Pauses what is being downloaded. A hub that is silent is not waited for."""
        running = list(self._pulls.values())
        for job, _ in running:
            job.stop.set()
        if running:
            await asyncio.wait([task for _, task in running], timeout=_CLOSE_SECONDS)
        for _, task in running:
            task.cancel()

    def _forget(self, wanted: Wanted, job: PullJob) -> None:
        if wanted in self._pulls and self._pulls[wanted][0] is job:
            del self._pulls[wanted]

    async def _run(self, job: PullJob, wanted: Wanted, before: "asyncio.Task[None] | None") -> None:
        """``before``: one of the same that is pausing."""
        try:
            if before is not None:
                await before
            name = await _beside(lambda: self._download(job, wanted))
            job.change(status="done", stage="done", done_bytes=job.state.total_bytes, name=name)
        except InnkeeperError as error:
            job.change(status="failed", error=error)
        except asyncio.CancelledError:
            ended = DownloadPausedError("the server ends", hint="start it again to go on")
            job.change(status="failed", error=ended)
            raise
        except Exception:  # whoever waits must learn of its end
            logger.exception("downloading %s failed", wanted.address)
            broken = DownloadError("the download broke; the server's log has the details")
            job.change(status="failed", error=broken)

    def _download(self, job: PullJob, wanted: Wanted) -> str:
        """In a thread of its own; the model's name."""
        from innkeeper.hub.download import Download
        from innkeeper.hub.listing import list_repo

        address = _address(wanted)
        hub = self._open_hub(wanted.token)
        listing = list_repo(hub, address.repo_id, wanted.revision)
        variant = _chosen(listing, address.wanted, wanted)
        digest = variant.main.sha256 or variant.main.blob_id or ""
        job.change(digest=digest, total_bytes=variant.size_bytes)
        path = Download(hub, variant, self._folder, on_progress=job.show, stop=job.stop).run()
        if job.stop.is_set():  # it ended in the same moment: who left is told nothing
            raise DownloadPausedError("nobody waits for the download", hint="start it again")
        return self._named(path, variant)

    def _named(self, path: Path, variant: "Variant") -> str:
        """The name of what was downloaded; what Hugging Face's cache had gets one in the folder."""
        name = f"{variant.repo_id}/{model_name(Path(variant.main.name))}"
        is_elsewhere = not path.is_relative_to(self._folder)
        if is_elsewhere and name not in {each.name for each in self._models.entries()}:
            self._library.link(path, name)
        return name


async def _beside(work: Callable[[], str]) -> str:
    """``work`` in a thread that the end of the process does not wait for."""
    done: Future[str] = Future()
    done.set_running_or_notify_cancel()  # what has begun goes on; only the waiting can be given up

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001  (raised again where it is waited for)
            done.set_exception(error)

    threading.Thread(target=run, name="download", daemon=True).start()
    return await asyncio.wrap_future(done)


def _open_hub(token: str | None) -> "Hub":
    from innkeeper.hub.client import Hub

    return Hub(token=token)


def _address(wanted: Wanted) -> "Address":
    """Raises: InvalidRequestError naming the field."""
    from innkeeper.hub.address import parse_address

    try:
        return parse_address(wanted.address)
    except InvalidRequestError as error:
        message = f"{wanted.field}: {error.message}"
        raise InvalidRequestError(message, field=wanted.field, hint=error.hint) from None


def _chosen(listing: "Listing", quant: str | None, wanted: Wanted) -> "Variant":
    """Raises: NotFoundError, InvalidRequestError, CorruptModelError, UnsupportedModelError."""
    from innkeeper.hub.variants import choose_variant

    if wanted.include or wanted.exclude:
        listing = _filtered(listing, wanted)
    variant = choose_variant(listing, quant)
    if variant.kind != "gguf":
        raise UnsupportedModelError(
            f"{listing.repo_id} has safetensors only, which cannot be loaded yet",
            hint="look for it as GGUF; innkeeper pull downloads it all the same",
        )
    return variant


def _filtered(listing: "Listing", wanted: Wanted) -> "Listing":
    def matches(name: str, patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    files = tuple(
        file
        for file in listing.files
        if matches(file.name, wanted.include or ("*",)) and not matches(file.name, wanted.exclude)
    )
    if not files:
        raise NotFoundError(
            f"no file of {listing.repo_id} is included", hint="leave include and exclude out"
        )
    return msgspec.structs.replace(listing, files=files)
