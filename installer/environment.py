"""The virtual environment, what is known of it, and the lock that one set-up at a time holds."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from installer.progress import say

LLAMA = "llama-cpp-python"


class SetupError(Exception):
    """Set-up cannot go on; the text is one line for the user."""


def digest(*parts: bytes) -> str:
    """A short name for this content."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


class Environment:
    """``.venv`` under ``root``. ``state`` lives inside it, so that it goes when it is deleted."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.venv = root / ".venv"
        self.logs = root / ".setup"
        self._state_file = self.venv / "innkeeper-setup.json"

    @property
    def python(self) -> str:
        return self.script("python")

    def script(self, name: str) -> str:
        """Path of an installed command."""
        folder, suffix = ("Scripts", ".exe") if os.name == "nt" else ("bin", "")
        return str(self.venv / folder / (name + suffix))

    def uv(self, *arguments: str) -> list[str]:
        """A ``uv pip`` command for this environment."""
        pip, rest = arguments[0], arguments[1:]
        command = [self.python, "-m", "uv", "pip", pip, "--python", self.python, "--quiet"]
        return [*command, *rest]

    def works(self) -> bool:
        """Whether there is a usable interpreter (its base may have been removed) with pip."""
        probe = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
        try:
            return subprocess.run([self.python, "-c", probe], capture_output=True).returncode == 0
        except OSError:
            return False

    @property
    def state(self) -> dict[str, Any]:
        """What earlier steps remembered; empty where nothing is (or the file is damaged)."""
        try:
            state = json.loads(self._state_file.read_text())
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def remember(self, key: str, value: Any) -> None:
        """Adds to ``state``, whole or not at all."""
        partial = self._state_file.with_suffix(".partial")
        partial.write_text(json.dumps({**self.state, key: value}, indent=1))
        partial.replace(self._state_file)

    def write_stamp(self) -> None:
        """Lets ``./start`` skip all this next time."""
        if stamp := os.environ.get("INNKEEPER_STAMP"):
            (self.venv / "innkeeper-stamp").write_text(stamp + "\n")

    def split_lock(self, lock: Path) -> tuple[Path, Path]:
        """``lock`` as two files: llama-cpp-python's entry, and the rest."""
        entries: list[list[str]] = []
        for line in lock.read_text().splitlines(keepends=True):
            if line[:1].isspace() and entries:
                entries[-1].append(line)
            else:
                entries.append([line])
        llama, rest = self.venv / "llama.lock", self.venv / "rest.lock"
        is_llama = [entry[0].startswith(f"{LLAMA}==") for entry in entries]
        for target, wanted in ((llama, True), (rest, False)):
            chosen = [
                entry for entry, found in zip(entries, is_llama, strict=True) if found is wanted
            ]
            target.write_text("".join("".join(entry) for entry in chosen))
        return llama, rest

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One set-up at a time; the system drops the lock when the process ends, however."""
        self.logs.mkdir(exist_ok=True)
        with (self.logs / "lock").open("a+b") as file:
            if not _try_lock(file):
                say("another ./start is setting up; waiting for it")
                _wait_for_lock(file)
            yield


def _try_lock(file: BinaryIO) -> bool:
    try:
        _lock(file, wait=False)
    except OSError:
        return False
    return True


def _wait_for_lock(file: BinaryIO) -> None:
    while True:
        try:
            return _lock(file, wait=True)
        except OSError:  # Windows gives up after ten seconds
            continue


def _lock(file: BinaryIO, *, wait: bool) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
