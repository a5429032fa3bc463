"""What the engine does while nobody asks: the speakers of a group hear what the others have said,
approximate cache is made exact, and chats are written."""

import time

from innkeeper.engine.admission import Admission
from innkeeper.engine.catch_up import Behind
from innkeeper.engine.kv_cache import KVCache
from innkeeper.engine.scheduler import Scheduler
from innkeeper.engine.sequence import Sequence, Status

_QUIET_SECONDS = 3.0
_WRITTEN_PER_SECOND = 4e6


class IdleWork:
    """Begins after ``pause`` seconds of silence, so that a client that sends its next request at
    once does not wait for a step of it; and makes way for every request."""

    def __init__(
        self,
        cache: KVCache,
        admission: Admission,
        scheduler: Scheduler,
        *,
        refreshes: bool,
        pause: float,
    ) -> None:
        self._cache = cache
        self._admission = admission
        self._scheduler = scheduler
        self._refreshes = refreshes
        self._pause = pause
        self._current: Sequence | None = None
        self._behind: list[Behind] | None = None
        """Who is still to catch up in this silence, each once; None = not looked up yet."""
        self._busy_until = self._next_write = 0.0

    def begin(self) -> bool:
        """Schedules the next thing to read; False if there is none, or if it is not the time."""
        if not self._may_read() or self._busy_until + self._pause > time.monotonic():
            return False
        self._current = self._catch_up() or self._refresh()
        if self._current is None:
            return False
        self._scheduler.add(self._current)
        return True

    def follow(self) -> None:
        """Notes that a step was made."""
        if self._current is None:
            self._busy_until = time.monotonic()

    def stop(self) -> None:
        """Makes way for a request; what was read is kept."""
        self.end()
        self._behind = None

    def end(self) -> None:
        """Ends what is being read, wherever it is: it stays in the speaker's base, or in the base
        that was approximate."""
        current, self._current = self._current, None
        if current is None:
            return
        if current.status is Status.PREFILL:  # it may have taken a base over and read nothing yet
            self._cache.make_exact(current.sequence_id)
        self._scheduler.finish(current, keep=bool(current.speaker))
        current.sampler.close()

    def wait(self) -> float | None:
        """Seconds of silence until there is something to do; None if there is nothing."""
        now = time.monotonic()
        if self._has_to_read():
            return max(0.0, self._busy_until + self._pause - now)
        return max(_QUIET_SECONDS, self._next_write - now) if self._cache.has_unwritten() else None

    def write(self) -> None:
        """Writes a chat to disk if nothing else is to do, so that a crash costs little, and at a
        rate that spares the disk."""
        if not self._has_to_read():
            num_bytes = self._cache.write_one()
            self._next_write = time.monotonic() + num_bytes / _WRITTEN_PER_SECOND

    def _may_read(self) -> bool:
        return self._refreshes and not self._scheduler.waiting

    def _has_to_read(self) -> bool:
        """Whether there is, or may be, something to read."""
        if not self._may_read():
            return False
        return self._behind is None or bool(self._behind) or self._cache.stale_base() is not None

    def _catch_up(self) -> Sequence | None:
        """Goes first: it is short, and the next turn needs it."""
        if self._behind is None:
            self._behind = self._cache.left_behind()
        while self._behind:
            tokens, speaker = self._behind.pop(0)
            if self._cache.has_room_to_read(tokens):
                return self._admission.idle_work(tokens, speaker)
        return None

    def _refresh(self) -> Sequence | None:
        tokens = self._cache.stale_base()
        return None if tokens is None else self._admission.idle_work(tokens)
