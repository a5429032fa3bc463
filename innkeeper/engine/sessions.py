"""Chats that a client keeps under a name: saved to a file, and loaded into the pool again.

No dialect names its chat and places are alike here, so a slot's number counts idle bases from the
most recently used one: slot 0 is the chat that was read last. Files are the user's own: nothing
deletes them to make room.
"""

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from innkeeper.core.frames import ChangeSlot, ErrorInfo, Failed, SlotChanged
from innkeeper.engine import state_file
from innkeeper.engine.bases import SavedBase
from innkeeper.engine.kv_cache import KVCache
from innkeeper.errors import EngineError, InnkeeperError, InvalidRequestError, NotFoundError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ .-]{0,99}")

Task = Callable[[], None]
"""Something that the loop's thread does between two steps."""
Emit = Callable[[list[msgspec.Struct]], None]


class Sessions:
    """Files in ``folder``; None = nothing can be saved. key: ``Runner.state_key``.

    hand_over: gives a task to the loop's thread, which alone may touch ``cache``. Files are read
    and written on threads of their own.
    """

    def __init__(
        self,
        cache: KVCache,
        key: str,
        folder: Path | None,
        hand_over: Callable[[Task], None],
        emit: Emit,
    ) -> None:
        self._cache = cache
        self._key = key
        self._folder = folder if key else None
        self._hand_over = hand_over
        self._emit = emit

    def begin(self, frame: ChangeSlot) -> None:
        """Does what ``frame`` asks for; answers it with ``SlotChanged`` or ``Failed``.

        Raises: InvalidRequestError naming the field.
        """
        started = time.perf_counter()
        if frame.action == "erase":
            self._hand_over(lambda: self._guarded(frame, lambda: self._erase(frame, started)))
            return
        path = self._path(frame.name)
        if frame.action == "save":
            self._hand_over(lambda: self._guarded(frame, lambda: self._save(frame, path, started)))
        else:
            self._beside(frame, lambda: self._read(frame, path, started))

    def _path(self, name: str) -> Path:
        if self._folder is None:
            raise InvalidRequestError(
                "chats of this model cannot be saved", hint="they are kept in memory all the same"
            )
        if not _NAME.fullmatch(name):
            raise InvalidRequestError(
                f"filename must be a name, not {name[:80]!r}",
                field="filename",
                hint="use letters, digits, blanks and . _ -",
            )
        return self._folder / (name + state_file.SUFFIX)

    # --- save -------------------------------------------------------------------------------------

    def _save(self, frame: ChangeSlot, path: Path, started: float) -> None:
        base = self._cache.snapshot(frame.slot)
        self._beside(frame, lambda: self._write(frame, path, base, started))

    def _write(self, frame: ChangeSlot, path: Path, base: SavedBase, started: float) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        state_file.write(path, state_file.make_header(self._key, base), base)
        self._answer(frame, len(base.tokens), path.stat().st_size, started)

    # --- restore ----------------------------------------------------------------------------------

    def _read(self, frame: ChangeSlot, path: Path, started: float) -> None:
        if not path.is_file():
            raise NotFoundError(f"nothing was saved as {frame.name!r}", field="filename")
        try:
            header = state_file.read_header(path)
            if header.key != self._key:
                raise InvalidRequestError(
                    f"{frame.name!r} was saved from another model, or with other settings",
                    field="filename",
                    hint="load that model, with the number types and adapters that it had",
                )
            base = state_file.read_base(path, header)
        except state_file.StateFileError as error:
            raise InvalidRequestError(
                f"{frame.name!r} cannot be restored: {error}", field="filename"
            ) from None

        def adopt() -> None:
            self._cache.adopt(base)
            self._answer(frame, len(base.tokens), path.stat().st_size, started)

        self._hand_over(lambda: self._guarded(frame, adopt))

    # --- both -------------------------------------------------------------------------------------

    def _erase(self, frame: ChangeSlot, started: float) -> None:
        self._answer(frame, self._cache.forget(frame.slot), 0, started)

    def _answer(self, frame: ChangeSlot, num_tokens: int, num_bytes: int, started: float) -> None:
        milliseconds = 1000 * (time.perf_counter() - started)
        self._emit([SlotChanged(frame.id, num_tokens, num_bytes, milliseconds)])

    def _beside(self, frame: ChangeSlot, work: Task) -> None:
        threading.Thread(
            target=self._guarded, args=(frame, work), name="session", daemon=True
        ).start()

    def _guarded(self, frame: ChangeSlot, work: Task) -> None:
        """``work``, whose failure is the answer."""
        try:
            work()
        except InnkeeperError as error:
            self._emit([Failed(frame.id, ErrorInfo.of(error))])
        except OSError as error:
            why = EngineError(f"{frame.name!r} cannot be kept: {error.strerror or error}")
            self._emit([Failed(frame.id, ErrorInfo.of(why))])
