"""Prompt lookup: where the text repeats itself, the next tokens are guessed from what followed the
last time, and one ``forward`` checks them all.

Each guess is compared with the token that the sampler draws at its place, with the same random
numbers as without guesses, so the reply is the same; wrong guesses only cost time. Source: Saxena
2023, "Prompt Lookup Decoding".
"""

from collections import deque
from collections.abc import Sequence

import numpy as np

from innkeeper.engine.sampling.history import History

_LEAST_MATCH, _MOST_MATCH = 3, 8
_FIRST_LENGTH = 3
_LONGEST_WAIT = 128
_TRIES, _REMEMBERED = 2, 8


class CheckCosts:
    """What it takes one engine to check guesses: some numbers of rows suit its kernels, and others
    cost twice as much a row."""

    def __init__(self) -> None:
        self._steps: dict[int, deque[float]] = {}
        """Seconds of recent ones, by the number of guesses."""

    def observe(self, num_guesses: int, seconds: float) -> None:
        """Learns what the step took that checked them."""
        self._steps.setdefault(num_guesses, deque(maxlen=_REMEMBERED)).append(seconds)

    def next_length(self, length: int, most: int) -> int:
        """How many to check next where ``length`` guesses were right: what costs the least a token
        if all are right. With the token before them, lengths are powers of two: numbers of rows
        that kernels like. What is not known is tried."""
        longer = min(most, 2 * length + 1)
        if len(self._steps.get(longer, ())) < _TRIES:
            return longer
        known = [n for n in (length // 2, length, longer) if n in self._steps]
        return min(known, key=self._a_token)

    def _a_token(self, num_guesses: int) -> float:
        # the shortest: other programs only ever add to the time
        return min(self._steps[num_guesses]) / (num_guesses + 1)


class PromptLookup:
    """Guesses for one sequence. Guesses more at once while they are right and that pays; after
    wrong ones it waits twice as many steps each time, so that a text without repetition loses next
    to nothing."""

    def __init__(self, prompt: Sequence[int], most: int, costs: CheckCosts) -> None:
        self._most = most
        self._costs = costs
        self._history = History(prompt)
        self._length = min(_FIRST_LENGTH, most)
        self._wait = 0
        self._num_failures = 0

    def draft(self, tokens: Sequence[int], room: int) -> list[int]:
        """Up to ``room`` tokens that may follow ``tokens``, the sequence as it is now."""
        for token_id in tokens[len(self._history) :]:
            self._history.append(token_id)
        if self._wait > 0:
            self._wait -= 1
            return []
        start = self._match()
        if start is None:
            return []
        found: list[int] = self._history.tokens[start : start + min(self._length, room)].tolist()
        return found

    def forget(self, length: int) -> None:
        """Follows the sequence, which was cut to its first ``length`` tokens."""
        self._history.rewind(max(0, len(self._history) - length))

    def observe(self, num_drafted: int, num_right: int, seconds: float) -> None:
        """Learns how many of the last guesses were right, and what the step took that checked
        them."""
        self._costs.observe(num_drafted, seconds)
        if num_right == num_drafted:
            self._length = self._costs.next_length(self._length, self._most)
        elif 2 * num_right < num_drafted:
            self._length = max(1, self._length // 2)
        if num_right:
            self._num_failures = 0
        else:
            self._num_failures += 1
            self._wait = min(_LONGEST_WAIT, 2**self._num_failures)

    def _match(self) -> int | None:
        """What follows the latest of the longest earlier occurrences of the text's end."""
        tokens = self._history.tokens
        size, best = tokens.size, None
        ends = np.flatnonzero(tokens[:-1] == tokens[-1]) + 1
        for length in range(2, min(_MOST_MATCH, size - 1) + 1):
            ends = ends[ends >= length]
            ends = ends[tokens[ends - length] == tokens[size - length]]
            if not ends.size:
                break
            if length >= _LEAST_MATCH:
                best = int(ends[-1])
        return best
