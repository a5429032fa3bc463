"""A file on its way: ``NAME.DIGEST.part`` beside its final place, until it is whole and right."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from innkeeper.hub.errors import DiskFullError, DownloadError, WrongContentError
from innkeeper.hub.listing import RemoteFile
from innkeeper.units import MIB, format_bytes

_HASH_PIECE_BYTES = 1 * MIB
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


class PartFile:
    """What has arrived of one file. Survives the process; one process at a time writes it.

    The name has the digest of what is expected, so the remains of another version are never
    continued. Every piece is handed to the system at once: a killed process loses none.
    """

    def __init__(self, target: Path, file: RemoteFile) -> None:
        self.target = target
        self.file = file
        digest = file.sha256 or file.blob_id or "unknown"
        self.path = target.with_name(f"{target.name}.{digest[:16]}.part")
        self.size = 0
        self.was_continued = False
        """Whether bytes of an earlier run are in it."""
        self._lock = FileLock(f"{target}.part.lock")
        self._file: BinaryIO | None = None
        self._hash = new_hash(file)

    def open(self, on_check: Callable[[int], None]) -> None:
        """Takes the lock and reads what is there; ``on_check`` hears how much was read.

        Raises: DownloadError if another process is at it, or the folder cannot be written.
        """
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise DownloadError(
                f"another process is downloading {self.target.name}", hint="wait until it is done"
            ) from None
        except OSError as error:
            raise self._not_writable(error) from None
        try:
            self._remove_other_versions()
            self._file = self.path.open("a+b", buffering=0)
            self._read_in(on_check)
        except OSError as error:
            self.close()
            raise self._not_writable(error) from None

    def write(self, piece: bytes) -> None:
        """Raises: DiskFullError, DownloadError."""
        assert self._file is not None
        view = memoryview(piece)
        try:
            while view:
                written = self._file.write(view) or 0
                self._hash.update(view[:written])
                self.size += written
                view = view[written:]
        except OSError as error:
            if error.errno in _FULL:
                raise self.disk_full() from None
            raise self._not_writable(error) from None

    def disk_full(self) -> DiskFullError:
        left = self.file.size_bytes - self.size
        return DiskFullError(
            f"the disk is full after {format_bytes(self.size)} of {self.target.name}; "
            f"{format_bytes(left)} more are needed in {self.target.parent}",
            hint="free some space and start the download again: it goes on where it stopped",
        )

    def restart(self) -> None:
        """Forgets what arrived."""
        assert self._file is not None
        self._file.truncate(0)
        self._hash = new_hash(self.file)
        self.size, self.was_continued = 0, False

    def finish(self) -> None:
        """Moves it to its final place.

        Raises: WrongContentError, and then nothing is left of it.
        """
        assert self._file is not None
        expected = self.file.sha256 or self.file.blob_id
        if expected is not None and self._hash.hexdigest() != expected:
            self.restart()
            raise WrongContentError(
                f"what arrived as {self.target.name} is not what the hub announced (checksum "
                f"{self._hash_name()}); it was thrown away",
                hint="start the download again; if it stays so, tell the repository's author",
            )
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
            os.replace(self.path, self.target)
        except OSError as error:
            raise self._not_writable(error) from None

    def close(self) -> None:
        """Keeps what is there, gives the lock back. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None
            if self.size == 0:
                self.path.unlink(missing_ok=True)
        if self._lock.is_locked:
            if not self.path.exists():
                # while it is held: whoever waits finds the finished file
                with contextlib.suppress(OSError):
                    os.unlink(self._lock.lock_file)
            self._lock.release()

    def _read_in(self, on_check: Callable[[int], None]) -> None:
        assert self._file is not None
        if self.path.stat().st_size > self.file.size_bytes:
            self._file.truncate(0)
        self._file.seek(0)
        while piece := self._file.read(_HASH_PIECE_BYTES):
            self._hash.update(piece)
            self.size += len(piece)
            on_check(self.size)
        self.was_continued = self.size > 0

    def _remove_other_versions(self) -> None:
        start, length = f"{self.target.name}.", len(self.path.name)
        for other in self.target.parent.iterdir():
            if other.name.startswith(start) and other.suffix == ".part" and other != self.path:
                if len(other.name) == length:
                    other.unlink()

    def _hash_name(self) -> str:
        return "SHA-256" if self.file.sha256 else "git SHA-1"

    def _not_writable(self, error: OSError) -> DownloadError:
        if error.errno in _FULL:
            return self.disk_full()
        return DownloadError(
            f"{self.target} cannot be written: {error.strerror or error}",
            hint="check who may write there, or give another home with --home FOLDER",
        )


def new_hash(file: RemoteFile) -> Any:
    """The digest by which the hub knows ``file``: SHA-256 of large ones, git's SHA-1 of others."""
    if file.sha256 or not file.blob_id:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % file.size_bytes, usedforsecurity=False)


def is_whole(path: Path, file: RemoteFile, on_check: Callable[[int], None]) -> bool:
    """Whether ``path`` has exactly the bytes of ``file``."""
    expected = file.sha256 or file.blob_id
    try:
        if path.stat().st_size != file.size_bytes:
            return False
        if expected is None:
            return True
        found, done = new_hash(file), 0
        with path.open("rb") as opened:
            while piece := opened.read(_HASH_PIECE_BYTES):
                found.update(piece)
                done += len(piece)
                on_check(done)
    except OSError:
        return False
    return bool(found.hexdigest() == expected)
