"""How far a download is: never backwards, with speed and time left."""

import time
from collections import deque
from collections.abc import Callable

from msgspec import Struct

_WINDOW_SECONDS = 5.0


class Progress(Struct, frozen=True, kw_only=True):
    """A download at one moment, over all its files."""

    stage: str
    """``checking`` (what is there already), ``downloading``, ``waiting`` (to try again)."""
    file: str
    done_bytes: int
    total_bytes: int
    bytes_per_second: float = 0.0
    seconds_left: float | None = None

    @property
    def fraction(self) -> float:
        return self.done_bytes / self.total_bytes if self.total_bytes else 1.0


OnProgress = Callable[[Progress], None]


class Meter:
    """Turns counts into ``Progress``. ``done_bytes`` never falls, whatever has to be read again."""

    def __init__(
        self, total_bytes: int, report: OnProgress, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total = total_bytes
        self._report = report
        self._clock = clock
        self._shown = 0
        self._samples: deque[tuple[float, int]] = deque()
        self._last = ("", "", -1)

    def show(self, stage: str, file: str, done_bytes: int) -> None:
        """``done_bytes`` are of all files together."""
        now = self._clock()
        if stage == "downloading":
            self._samples.append((now, done_bytes))
        while self._samples and now - self._samples[0][0] > _WINDOW_SECONDS:
            self._samples.popleft()
        self._shown = max(self._shown, min(done_bytes, self._total))
        state = (stage, file, self._shown)
        if state == self._last:
            return
        self._last = state
        speed = self._speed(now)
        left = (self._total - self._shown) / speed if speed else None
        self._report(
            Progress(
                stage=stage,
                file=file,
                done_bytes=self._shown,
                total_bytes=self._total,
                bytes_per_second=speed,
                seconds_left=left,
            )
        )

    def _speed(self, now: float) -> float:
        if len(self._samples) < 2 or now <= self._samples[0][0]:
            return 0.0
        (began, first), (_, last) = self._samples[0], self._samples[-1]
        return max(0.0, (last - first) / (now - began))
