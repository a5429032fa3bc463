"""The folder of states on disk: ``INNKEEPER_HOME/cache``, bounded, least recently used first out.

Used by the loop's thread and by one that writes. Two engines may share the folder while one model
replaces another: each sees the files of its own ``state_key`` only, and a file that the other has
deleted is a file that is not there.
"""

import contextlib
import hashlib
import os
import shutil
import threading
import time
from pathlib import Path

from innkeeper.engine import state_file
from innkeeper.engine.bases import SavedBase
from innkeeper.engine.reuse import Policy, plan_reuse
from innkeeper.engine.state_file import Header, StateFileError

_ABANDONED_SECONDS = 600
"""A part that nobody has written to for this long was left by an engine that is gone."""
_SAME_CHAT = 0.75
"""A new state takes the place of an old one of which it reuses at least this share."""


class DiskState:
    """A file of the folder, by what its header says."""

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self.header = header
        self.tokens = header.token_list()
        self.num_exact = header.num_exact
        self.speaker = header.speaker
        self.cuts = [length for length, _ in header.checkpoints]
        """As ``SavedBase.cuts``."""
        self.num_bytes = header.num_bytes


class DiskCache:
    """What is on disk for one ``key``. Never more than ``max_bytes`` in the folder, nor more than
    leaves three quarters of the disk's free space free."""

    def __init__(self, folder: Path, max_bytes: int, key: str) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._key = key
        self._lock = threading.Lock()
        self._states: dict[Path, DiskState] = {}
        self._others: set[Path] = set()
        """Files of other keys."""
        self._seen = 0
        """When the folder last changed, as far as it is known."""
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._remove_abandoned()

    def states(self) -> list[DiskState]:
        """Those that can be used, as the folder is now."""
        with self._lock:
            self._look_through()
            return list(self._states.values())

    def num_bytes(self) -> int:
        """Of the states that can be used now."""
        return sum(state.num_bytes for state in self.states())

    def write(self, base: SavedBase) -> bool:
        """Keeps a base; what it makes needless goes, and what is too much. False if it alone is
        too much.

        Raises: OSError if it cannot be written.
        """
        if not self._make_room(base.num_bytes):
            return False
        header = state_file.make_header(self._key, base)
        name = hashlib.sha256(self._key.encode() + header.tokens).hexdigest()[:32]
        path = self._folder / (name + state_file.SUFFIX)
        state_file.write(path, header, base)
        for old in self.states():
            if old.path != path and _is_replaced(old, base.tokens, base.num_exact):
                self.drop(old)
        with self._lock:
            self._states[path] = DiskState(path, header)
        return True

    def read(self, state: DiskState) -> SavedBase | None:
        """The base, checked; None, and the file gone, if it is not what was written."""
        try:
            found = state_file.read_base(state.path, state.header)
            os.utime(state.path)
        except (OSError, ValueError, StateFileError):
            self.drop(state)
            return None
        return found

    def drop(self, state: DiskState) -> None:
        with self._lock:
            self._states.pop(state.path, None)
        with contextlib.suppress(OSError):
            state.path.unlink()

    def _look_through(self) -> None:
        """Takes in what another engine has written, and forgets what it has deleted."""
        try:
            changed = self._folder.stat().st_mtime_ns
            if changed == self._seen:
                return
            paths = set(self._folder.glob(f"*{state_file.SUFFIX}"))
        except OSError:
            return
        for path in paths - self._others - set(self._states):
            with contextlib.suppress(OSError):
                self._take_in(path)
        self._states = {path: state for path, state in self._states.items() if path in paths}
        self._seen = changed

    def _take_in(self, path: Path) -> None:
        try:
            header = state_file.read_header(path)
        except StateFileError:
            path.unlink()
            return
        if header.key == self._key:
            self._states[path] = DiskState(path, header)
        else:
            self._others.add(path)

    def _remove_abandoned(self) -> None:
        for path in self._folder.glob(f"*{state_file.PART_SUFFIX}"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()

    def _make_room(self, num_bytes: int) -> bool:
        """Deletes the least recently used states, of any key. False if it would never fit."""
        files = []
        for path in self._folder.glob(f"*{state_file.SUFFIX}"):
            with contextlib.suppress(OSError):
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        used = sum(size for _, size, _ in files)
        limit = min(self._max_bytes, used + shutil.disk_usage(self._folder).free // 4)
        if num_bytes > limit:
            return False
        for _, size, path in sorted(files):
            if used + num_bytes <= limit:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                used -= size
            with self._lock:
                self._states.pop(path, None)
        return used + num_bytes <= limit


def _is_replaced(old: DiskState, tokens: list[int], num_exact: int) -> bool:
    """Whether ``old`` is an earlier moment of the chat that ``tokens`` are, and no more exact."""
    if old.num_exact > num_exact:
        return False
    plan = plan_reuse(old.tokens, tokens, Policy.FAST)
    return plan.num_reused() >= _SAME_CHAT * len(old.tokens)
