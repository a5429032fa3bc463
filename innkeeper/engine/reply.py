"""From sampled tokens to released text: UTF-8, stop strings, hold-back, logprobs."""

import codecs
from collections import deque
from typing import NamedTuple

from innkeeper.core import TokenLogprob


class Match(NamedTuple):
    start: int
    end: int
    text: str


class Released(NamedTuple):
    text: str
    logprobs: tuple[TokenLogprob, ...]


def find_stop(text: str, stops: tuple[str, ...]) -> Match | None:
    """The stop string that is complete first, reading ``text`` character by character.

    Of those that end at the same place, the longest. So the result does not depend on how the
    text was cut into tokens.
    """
    best: Match | None = None
    for stop in stops:
        start = text.find(stop)
        if start < 0:
            continue
        match = Match(start, start + len(stop), stop)
        if best is None or (match.end, match.start) < (best.end, best.start):
            best = match
    return best


def num_held(text: str, stops: tuple[str, ...]) -> int:
    """Length of the longest end of ``text`` that could still become a stop string."""
    longest = max((len(stop) for stop in stops), default=0)
    for length in range(min(len(text), longest - 1), 0, -1):
        tail = text[-length:]
        if any(stop.startswith(tail) for stop in stops):
            return length
    return 0


class ReplyText:
    """The text of one reply while it grows.

    Nothing that might be the beginning of a stop string, and no incomplete character, is ever
    released; an incomplete character at the very end of the reply is dropped.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.stop_text: str | None = None
        self._stops = tuple(stop for stop in stops if stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""
        self._num_released = 0
        self._logprobs: deque[tuple[int, TokenLogprob]] = deque()

    def push(self, piece: bytes, logprob: TokenLogprob | None = None) -> Released:
        """Adds one token's bytes; returns what may be shown now. Sets ``stop_text`` on a match."""
        if logprob is not None:
            self._logprobs.append((self._num_released + len(self._pending), logprob))
        self._pending += self._decoder.decode(piece)
        match = find_stop(self._pending, self._stops)
        if match is not None:
            self.stop_text = match.text
            released = self._release(match.start)
            self._pending = ""
            self._logprobs.clear()
            return released
        return self._release(len(self._pending) - num_held(self._pending, self._stops))

    def finish(self) -> Released:
        """Releases what was held back, once no more tokens come."""
        released = self._release(len(self._pending))
        rest = tuple(entry for _, entry in self._logprobs)
        self._logprobs.clear()
        return Released(released.text, released.logprobs + rest)

    def _release(self, length: int) -> Released:
        text, self._pending = self._pending[:length], self._pending[length:]
        self._num_released += length
        entries: list[TokenLogprob] = []
        while self._logprobs and self._logprobs[0][0] < self._num_released:
            entries.append(self._logprobs.popleft()[1])
        return Released(text, tuple(entries))
