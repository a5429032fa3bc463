"""How many threads: measured while it runs, since other programs come and go.

Two spinning threads beside a busy program take 50 times as long as one (docs/experiments.md), so a
step that is suddenly slow is answered at once, and the neighbours of the current number are tried
from time to time.
"""

import os
import time
from collections import deque
from collections.abc import Callable
from statistics import median

import psutil

_SLOW_FACTOR = 3.0
_NUM_TRIES = 3
_MIN_GAIN = 0.95
_FIRST_TRY_SECONDS = 1.0
_LONGEST_TRY_SECONDS = 60.0


def usable_cores() -> int:
    """Physical cores that this process may use, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    physical = psutil.cpu_count(logical=False)
    return max(1, min(n for n in (allowed, physical) if n))


class ThreadTuner:
    """Chooses among ``max_threads``, half of it, and so on down to 1.

    ``observe`` follows every step; ``num_threads`` is what the next one should use. Steps are
    compared with steps of about the same number of rows only.
    """

    def __init__(
        self, max_threads: int, *, is_fixed: bool = False, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._levels = [max_threads]
        while not is_fixed and self._levels[-1] > 1:
            self._levels.append(self._levels[-1] // 2)
        self._level = 0
        self._trial: int | None = None
        self._times: dict[tuple[int, int], deque[float]] = {}
        self._now = now
        self._pause = _FIRST_TRY_SECONDS
        self._next_trial = now() + self._pause
        self._goes_down_next = True
        self._num_slow = 0

    @property
    def num_threads(self) -> int:
        return self._levels[self._level if self._trial is None else self._trial]

    def observe(self, num_rows: int, seconds: float) -> None:
        """Learns that a step of ``num_rows`` took ``seconds`` with ``num_threads``."""
        if len(self._levels) == 1:
            return
        size = num_rows.bit_length()
        level = self._level if self._trial is None else self._trial
        times = self._times.setdefault((level, size), deque(maxlen=5))
        usual = median(times) if len(times) >= _NUM_TRIES else None
        times.append(seconds)
        if self._trial is not None:
            self._judge(size)
        elif usual is not None and seconds > _SLOW_FACTOR * usual:
            self._notice_slow(size)
        else:
            self._num_slow = 0
            if self._now() >= self._next_trial and usual is not None:
                self._begin_trial(size)

    def _notice_slow(self, size: int) -> None:
        """Steps down after two slow steps in a row; what was normal before no longer counts."""
        self._num_slow += 1
        if self._num_slow >= 2 and self._level + 1 < len(self._levels):
            slow = self._times[(self._level, size)]
            for _ in range(len(slow) - 2):
                slow.popleft()
            self._trial = self._level + 1
            self._times.pop((self._trial, size), None)
            self._num_slow = 0

    def _begin_trial(self, size: int) -> None:
        target = self._level + (1 if self._goes_down_next else -1)
        if not 0 <= target < len(self._levels):
            target = self._level - (1 if self._goes_down_next else -1)
        self._goes_down_next = not self._goes_down_next
        self._trial = target
        self._times.pop((target, size), None)

    def _judge(self, size: int) -> None:
        """Ends a trial once both numbers have been measured, for the faster one."""
        assert self._trial is not None
        tried = self._times.get((self._trial, size), deque())
        current = self._times.get((self._level, size), deque())
        if len(tried) < _NUM_TRIES and current:
            return
        if current and tried and median(tried) < _MIN_GAIN * median(current):
            self._level = self._trial
            self._pause = _FIRST_TRY_SECONDS
        else:
            self._pause = min(self._pause * 2, _LONGEST_TRY_SECONDS)
        self._trial = None
        self._next_trial = self._now() + self._pause
