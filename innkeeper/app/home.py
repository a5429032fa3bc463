"""The home folder: its places, and the lock that one server at a time holds."""

import contextlib
import os
import sys
from pathlib import Path
from typing import BinaryIO

from innkeeper.errors import StartError

# Windows keeps others from reading a locked byte, so the lock lies far behind the text.
_LOCKED_BYTE = 1 << 20


class Home:
    """``INNKEEPER_HOME``: everything that Innkeeper keeps."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.models = root / "models"
        self.characters = root / "characters"
        self.loras = root / "loras"
        self.logs = root / "logs"
        self.cache = root / "cache"
        self.tuning = self.cache / "tuning.json"
        """What was measured of settings on this computer."""
        self.config = root / "config.toml"

    def prepare(self) -> None:
        """Makes the folders. Raises: StartError if that is not allowed."""
        try:
            for folder in (self.models, self.characters, self.loras, self.logs, self.cache):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(
                f"the home folder {self.root} cannot be used: {error.strerror or error}",
                hint="give another with --home FOLDER",
            ) from None


class HomeLock:
    """Held by the one server that uses a home. The system drops it when the process ends."""

    def __init__(self, home: Home) -> None:
        self._root = home.root
        self._path = home.root / "innkeeper.lock"
        self._file: BinaryIO | None = None

    def __enter__(self) -> "HomeLock":
        """Raises: StartError naming the process that holds it."""
        file = self._open()
        try:
            _lock(file)
        except OSError:
            holder = file.read(20).decode("ascii", "replace").strip()
            file.close()
            raise StartError(
                f"another Innkeeper (process {holder or 'unknown'}) is using {self._root}",
                hint="stop it, or give this one its own --home FOLDER",
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n".encode())
        file.flush()
        self._file = file
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.truncate(0)
            self._file.close()
            self._file = None

    def _open(self) -> BinaryIO:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StartError(
                f"{self._path} cannot be written: {error.strerror or error}",
                hint="give another home with --home FOLDER",
            ) from None
        return os.fdopen(descriptor, "r+b")


def _lock(file: BinaryIO) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
