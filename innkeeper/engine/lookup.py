"""Prompt lookup: where the text repeats itself, the next tokens are guessed from what followed the
last time, and one ``forward`` checks them all.

Each guess is compared with the token that the sampler draws at its place, with the same random
numbers as without guesses, so the reply is the same; wrong guesses only cost time. Source: Saxena
2023, "Prompt Lookup Decoding".
"""

from collections.abc import Sequence

import numpy as np

from innkeeper.engine.sampling.history import History

_LEAST_MATCH, _MOST_MATCH = 3, 8
_FIRST_LENGTH = 4
_LONGEST_WAIT = 128


class PromptLookup:
    """Guesses for one sequence. Guesses more at once while they are right; after wrong ones it
    waits twice as many steps each time, so that a text without repetition loses next to nothing."""

    def __init__(self, prompt: Sequence[int], most: int) -> None:
        self._most = most
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

    def observe(self, num_drafted: int, num_right: int) -> None:
        """Learns how many of the last guesses were right."""
        if num_right == num_drafted:
            self._length = min(self._most, 2 * self._length)
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
