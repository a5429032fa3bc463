"""Downloads a variant: resumable after anything, checked, and never a byte too many for the disk.

The order is huggingface_hub's (metadata, lock, disk, temporary file, move). The transfer is our
own: since 2026 that library writes to a file with a random name which it deletes on failure, so a
killed download begins again, and it compares no checksum of what came over HTTP.
"""

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from innkeeper.hub.answers import Gone
from innkeeper.hub.client import Hub
from innkeeper.hub.errors import DiskFullError, DownloadPausedError, HubError, WrongContentError
from innkeeper.hub.listing import RemoteFile
from innkeeper.hub.part import PartFile, is_whole
from innkeeper.hub.progress import Meter, OnProgress
from innkeeper.hub.variants import Variant
from innkeeper.units import GIB, MIB, format_bytes

RESERVE_BYTES = 256 * MIB
"""Left free on the disk, for everybody else."""
_REQUEST_BYTES = 8 * GIB
"""Most of one request: what delivers the hub's files has a limit of 50 GB an answer."""
_CHECK_DISK_BYTES = 64 * MIB
"""How often the disk is asked during a download, and when too little is left to go on."""
_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)")


def free_disk_bytes(folder: Path) -> int:
    """Free space where ``folder`` is, or would be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


class Download:
    """One download; ``run`` it in a thread.

    folder: the library's; files go to ``folder/org/name/``. on_progress: called from that thread.
    stop: when it is set, the download pauses; running it again goes on. free_bytes: asks the disk.
    """

    def __init__(
        self,
        hub: Hub,
        variant: Variant,
        folder: Path,
        *,
        on_progress: OnProgress = lambda _: None,
        stop: threading.Event | None = None,
        free_bytes: Callable[[Path], int] = free_disk_bytes,
    ) -> None:
        self._hub = hub
        self._variant = variant
        self._folder = folder.joinpath(*variant.repo_id.split("/"))
        self._meter = Meter(variant.size_bytes, on_progress)
        self._stop = stop or threading.Event()
        self._free_bytes = free_bytes
        self._finished_bytes = 0

    @property
    def path(self) -> Path:
        """The main file; of safetensors the folder."""
        is_folder = self._variant.kind == "safetensors"
        return self._folder if is_folder else self._folder / self._variant.main.name

    def run(self) -> Path:
        """Downloads what lacks and returns where the model is.

        What Hugging Face's own cache already has is used there, not copied.
        Raises: HubError and its kinds, NotFoundError. What has arrived is kept, and continued by
        the next run, except if it is wrong.
        """
        if cached := self._in_cache():
            return cached
        missing = [file for file in self._variant.files if not self._is_there(file)]
        self._check_disk(missing)
        for file in missing:
            self._fetch_file(file)
        return self.path

    # --- before ---------------------------------------------------------------------------------

    def _in_cache(self) -> Path | None:
        """Where Hugging Face's cache has all of these files, of this commit or unchanged since."""
        for snapshot in _snapshots(self._variant.repo_id):
            is_commit = snapshot.name == self._variant.commit
            if all(_is_cached(snapshot / f.name, f, is_commit) for f in self._variant.files):
                is_folder = self._variant.kind == "safetensors"
                return snapshot if is_folder else snapshot / self._variant.main.name
        return None

    def _is_there(self, file: RemoteFile) -> bool:
        def checked(done: int) -> None:
            self._show("checking", file, done)

        if not is_whole(self._folder / file.name, file, checked):
            return False
        self._finished_bytes += file.size_bytes
        return True

    def _check_disk(self, missing: list[RemoteFile]) -> None:
        needed = 0
        for file in missing:
            part = PartFile(self._folder / file.name, file).path
            there = part.stat().st_size if part.exists() else 0
            needed += max(0, file.size_bytes - there)
        free = self._free_bytes(self._folder)
        if missing and free < needed + RESERVE_BYTES:
            raise DiskFullError(
                f"{self._variant.repo_id} needs {format_bytes(needed)} more; "
                f"{format_bytes(free)} are free in {self._folder}, of which "
                f"{format_bytes(RESERVE_BYTES)} are left to others",
                hint="free some space, or choose a smaller quantization",
            )

    # --- one file -------------------------------------------------------------------------------

    def _fetch_file(self, file: RemoteFile) -> None:
        part = PartFile(self._folder / file.name, file)
        part.open(lambda done: self._show("checking", file, done))
        try:
            self._complete(file, part)
        finally:
            part.close()
        self._finished_bytes += file.size_bytes
        self._show("downloading", file, 0)

    def _complete(self, file: RemoteFile, part: PartFile) -> None:
        while True:
            self._fetch(file, part)
            was_continued = part.was_continued
            try:
                return part.finish()
            except WrongContentError:
                # the remains of an earlier run may have been damaged since; all of it anew, once
                if not was_continued:
                    raise

    def _fetch(self, file: RemoteFile, part: PartFile) -> None:
        """Reads until ``part`` is as long as ``file``, in spite of cuts and busy servers."""
        failures = 0
        while part.size < file.size_bytes:
            before = part.size
            try:
                self._read_on(file, part)
            except (httpx2.TransportError, Gone) as error:
                failures = 1 if part.size > before else failures + 1
                if failures >= self._hub.attempts:
                    raise self._hub.failure(error) from None
                self._show("waiting", file, part.size)
                self._wait(self._hub.pause_seconds(error, failures), part)

    def _read_on(self, file: RemoteFile, part: PartFile) -> None:
        """One request for what lacks."""
        start, end = part.size, min(part.size + _REQUEST_BYTES, file.size_bytes)
        url = self._hub.file_url(self._variant.repo_id, file.name, self._variant.commit)
        with self._hub.open(
            url,
            headers={"Range": f"bytes={start}-{end - 1}"},
            repo_id=self._variant.repo_id,
            on_hop=lambda response: _check_version(response, file),
        ) as response:
            _check_page(response, file)
            skipped = _skipped_bytes(response, file, start)
            next_check = start
            for piece in _bounded(response, skipped, end - start):
                self._check_stop(part)
                if part.size >= next_check:
                    self._check_room(part)
                    next_check = part.size + _CHECK_DISK_BYTES
                part.write(piece)
                self._show("downloading", file, part.size)

    def _wait(self, seconds: float, part: PartFile) -> None:
        """In steps of a second, so that stopping does not wait for a busy server."""
        while seconds > 0:
            self._check_stop(part)
            self._hub.sleep(min(1.0, seconds))
            seconds -= 1.0

    def _check_stop(self, part: PartFile) -> None:
        if self._stop.is_set():
            raise DownloadPausedError(
                f"paused after {format_bytes(part.size)}", hint="start it again to go on"
            )

    def _check_room(self, part: PartFile) -> None:
        """Stops before the disk is so full that other programs fail."""
        if self._free_bytes(self._folder) < _CHECK_DISK_BYTES:
            raise part.disk_full()

    def _show(self, stage: str, file: RemoteFile, done: int) -> None:
        self._meter.show(stage, file.name, self._finished_bytes + done)


def _snapshots(repo_id: str) -> list[Path]:
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type="model")
    try:
        return sorted(entry for entry in (folder / "snapshots").iterdir() if entry.is_dir())
    except OSError:
        return []


def _is_cached(path: Path, file: RemoteFile, is_commit: bool) -> bool:
    """Its links lead to blobs that are named by their digest."""
    try:
        is_same = path.stat().st_size == file.size_bytes
        return is_same and (is_commit or path.resolve().name in (file.sha256, file.blob_id))
    except OSError:
        return False


def _check_version(response: httpx2.Response, file: RemoteFile) -> None:
    etag = response.headers.get("x-linked-etag", "").removeprefix("W/").strip('"')
    if file.sha256 and etag and etag != file.sha256:
        raise WrongContentError(
            f"{file.name} is another one than the hub listed a moment ago (its ETag changed)",
            hint="start the download again",
        )


def _check_page(response: httpx2.Response, file: RemoteFile) -> None:
    kind = response.headers.get("content-type", "")
    if kind.startswith("text/html") and not file.name.endswith((".html", ".htm")):
        raise HubError(
            f"a web page came instead of {file.name}",
            hint="open the hub in a browser: a network that asks for a login answers like this",
        )


def _skipped_bytes(response: httpx2.Response, file: RemoteFile, start: int) -> int:
    """How much of the answer's beginning we have already (a server may ignore the range).

    Raises: WrongContentError if the answer is about a file of another length or another place.
    """
    if response.status_code != 206:
        length = response.headers.get("content-length", "")
        if length.isdecimal() and int(length) != file.size_bytes:
            raise _other_length(file, int(length))
        return start
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if match is None or int(match[1]) != start:
        raise WrongContentError(
            f"the server sent another part of {file.name} than it was asked for",
            hint="start the download again",
        )
    if match[3] != "*" and int(match[3]) != file.size_bytes:
        raise _other_length(file, int(match[3]))
    return 0


def _other_length(file: RemoteFile, num_bytes: int) -> WrongContentError:
    return WrongContentError(
        f"{file.name} has {num_bytes:,} bytes on the server; the hub announced {file.size_bytes:,}",
        hint="start the download again later",
    )


def _bounded(response: httpx2.Response, skipped: int, most: int) -> Iterator[bytes]:
    """The body without its first ``skipped`` bytes, and no more than ``most`` of it."""
    for piece in response.iter_raw():
        used = piece[skipped:]
        skipped = max(0, skipped - len(piece))
        if used:
            yield used[:most]
            most -= len(used)
        if most <= 0:
            return
