"""Compares contestants that were measured in turns, while other programs come and go.

A round measures everyone once, one right after the other, so what else the machine does meets all.
Only ratios within a round count, and their median: a stall spoils one round, not the result.
"""

from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

_SURELY_SLOWER = 1.02
_OBVIOUSLY_SLOWER = 1.5
"""One round is enough to see it."""
_FEW_ROUNDS = 2
FEWEST_ROUNDS = 3
"""Of the first, before its own times mean anything."""
ENOUGH_ROUNDS = 5
"""Fewer prove nothing: three in a row may be chance."""
_MANY_ROUNDS = 8
"""Who does not look like a winner by then is not waited for."""


class Compared(NamedTuple):
    """How many times as long one takes as the other."""

    ratio: float
    """The median of all rounds."""
    low: float
    high: float
    """It lies between these two in 97 of 100 cases or more; with five rounds in 94."""
    num_rounds: int


def compare(pairs: Iterable[tuple[float, float]]) -> Compared | None:
    """``pairs``: what both took in each round; None without any.

    The bounds are those of a median by rank, which holds for noise of any shape.
    """
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    if not ratios:
        return None
    outer = max(0, int(len(ratios) / 2 - 1.16 * len(ratios) ** 0.5))
    return Compared(median(ratios), ratios[outer], ratios[-1 - outer], len(ratios))


class Race:
    """Who is still worth a round; number 0 is whom the others are compared with.

    ``worth``: the ratio that somebody must stay below to be of interest.
    """

    def __init__(self, contestants: Iterable[int], worth: float) -> None:
        self.running = list(contestants)
        self._worth = worth
        self._rounds: list[list[float | None]] = []

    def add(self, times: list[float | None]) -> None:
        """One round, by number; None for who was not measured in it. Drops who has lost."""
        self._rounds.append(times)
        self.running = [number for number in self.running if not self._has_lost(number)]

    @property
    def is_settled(self) -> bool:
        """Whether more rounds would change nothing: all who still run have surely won."""
        if sum(times[0] is not None for times in self._rounds) < FEWEST_ROUNDS:
            return False
        found = [self.against_first(number) for number in self.running if number]
        return all(
            one is not None and one.num_rounds >= ENOUGH_ROUNDS and one.high < self._worth
            for one in found
        )

    def against_first(self, number: int) -> Compared | None:
        pairs = ((times[number], times[0]) for times in self._rounds)
        return compare((ours, theirs) for ours, theirs in pairs if ours and theirs)

    def _has_lost(self, number: int) -> bool:
        found = self.against_first(number)
        if found is None or not number:
            return False
        if found.num_rounds < _FEW_ROUNDS:
            return found.ratio > _OBVIOUSLY_SLOWER
        if found.num_rounds >= _MANY_ROUNDS and found.ratio > self._worth:
            return True
        bound = _SURELY_SLOWER if found.num_rounds < ENOUGH_ROUNDS else self._worth
        return found.low > bound
