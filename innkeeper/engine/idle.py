"""What the engine does while nobody asks: it makes approximate cache exact, and writes chats."""

import time

from innkeeper.engine.admission import Admission
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
        self._refresh: Sequence | None = None
        self._busy_until = self._next_write = 0.0

    def begin(self) -> bool:
        """Schedules what is approximate to be read again, exactly; False if it is not the time."""
        tokens = self._stale()
        if tokens is None or self._busy_until + self._pause > time.monotonic():
            return False
        self._refresh = self._admission.refresh(tokens)
        self._scheduler.add(self._refresh)
        return True

    def follow(self) -> None:
        """Notes that a step was made."""
        if self._refresh is None:
            self._busy_until = time.monotonic()

    def stop(self) -> None:
        """Makes way for a request; what was read stays in the base that was approximate."""
        refresh, self._refresh = self._refresh, None
        if refresh is None:
            return
        if refresh.status is Status.PREFILL:  # it may have taken a base over and read nothing yet
            self._cache.make_exact(refresh.sequence_id)
        self._scheduler.finish(refresh, keep=False)
        refresh.sampler.close()

    def wait(self) -> float | None:
        """Seconds of silence until there is something to do; None if there is nothing."""
        now = time.monotonic()
        if self._stale() is not None:
            return max(0.0, self._busy_until + self._pause - now)
        return max(_QUIET_SECONDS, self._next_write - now) if self._cache.has_unwritten() else None

    def write(self) -> None:
        """Writes a chat to disk if nothing else is to do, so that a crash costs little, and at a
        rate that spares the disk."""
        if self._stale() is None:
            num_bytes = self._cache.write_one()
            self._next_write = time.monotonic() + num_bytes / _WRITTEN_PER_SECOND

    def _stale(self) -> list[int] | None:
        if not self._refreshes or self._scheduler.waiting:
            return None
        return self._cache.stale_base()
