"""From sampled tokens to released text: UTF-8, stops, banned phrases, hold-back, logprobs."""

import codecs
from collections import deque
from typing import NamedTuple

from innkeeper.core import TokenLogprob
from innkeeper.engine.banned import Automaton, Found


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


class _Mark(NamedTuple):
    """Where the text was before a token."""

    num_chars: int
    decoder: tuple[bytes, int]
    state: int


class ReplyText:
    """The text of one reply while it grows.

    Nothing that might be the beginning of a stop string, and no incomplete character, is ever
    released; an incomplete character at the very end of the reply is dropped. No token is released
    whose text might belong to a banned phrase.
    """

    def __init__(self, stops: tuple[str, ...], banned: Automaton | None = None) -> None:
        self.stop_text: str | None = None
        self.num_to_take_back = 0
        """Tokens that a banned phrase began with or after; ``push`` has undone them already."""
        self._banned = banned
        self._state = 0
        self._marks: deque[_Mark] = deque()
        """Of the tokens that are not released; only kept where phrases are banned."""
        self._stops = tuple(stop for stop in stops if stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""
        self._num_released = 0
        self._logprobs: deque[tuple[int, TokenLogprob]] = deque()

    def push(self, piece: bytes, logprob: TokenLogprob | None = None) -> Released:
        """Adds one token's bytes; returns what may be shown now.

        Sets ``stop_text`` at a stop string. Sets ``num_to_take_back`` where a banned phrase is
        complete: the text is then as it was before those tokens.
        """
        if logprob is not None:
            self._logprobs.append((self._num_chars, logprob))
        found = self._read(piece)
        match = find_stop(self._pending, self._stops)
        if found is not None and (match is None or found.end <= self._num_released + match.start):
            self._take_back(found)
            return Released("", ())
        if match is not None:
            self.stop_text = match.text
            released = self._release(match.start)
            self._pending = ""
            self._logprobs.clear()
            return released
        held = max(num_held(self._pending, self._stops), self._num_open())
        return self._release(len(self._pending) - held)

    def finish(self) -> Released:
        """Releases what was held back, once no more tokens come."""
        released = self._release(len(self._pending))
        rest = tuple(entry for _, entry in self._logprobs)
        self._logprobs.clear()
        return Released(released.text, released.logprobs + rest)

    @property
    def _num_chars(self) -> int:
        return self._num_released + len(self._pending)

    def _read(self, piece: bytes) -> Found | None:
        """Decodes a token; the banned phrase that it completes, by characters of the reply."""
        start = self._num_chars
        if self._banned is None:
            self._pending += self._decoder.decode(piece)
            return None
        self.num_to_take_back = 0
        self._marks.append(_Mark(start, self._decoder.getstate(), self._state))
        text = self._decoder.decode(piece)
        self._pending += text
        self._state, found = self._banned.step(self._state, text)
        return found and Found(found.start + start, found.end + start)

    def _first_token(self, start: int) -> int:
        """Index among the marks of the token that the character at ``start`` begins with."""
        index = max(i for i, mark in enumerate(self._marks) if mark.num_chars <= start)
        while index > 0 and self._marks[index].decoder[0]:
            index -= 1
        return index

    def _num_open(self) -> int:
        """Characters from the first token on that could become part of a banned phrase: now, or
        once the tokens behind them are taken back."""
        if self._banned is None:
            return 0
        end, state = self._num_chars, self._state
        while num_open := self._banned.num_open(state):
            end, _, state = self._marks[self._first_token(end - num_open)]
        return self._num_chars - end

    def _take_back(self, found: Found) -> None:
        first = self._first_token(found.start)
        mark = self._marks[first]
        self.num_to_take_back = len(self._marks) - first
        while len(self._marks) > first:
            self._marks.pop()
        while self._logprobs and len(self._logprobs) > first:
            self._logprobs.pop()
        self._pending = self._pending[: mark.num_chars - self._num_released]
        self._decoder.setstate(mark.decoder)
        self._state = mark.state

    def _release(self, length: int) -> Released:
        text, self._pending = self._pending[:length], self._pending[length:]
        self._num_released += length
        while self._marks and self._marks[0].num_chars < self._num_released:
            self._marks.popleft()
        entries: list[TokenLogprob] = []
        while self._logprobs and self._logprobs[0][0] < self._num_released:
            entries.append(self._logprobs.popleft()[1])
        return Released(text, tuple(entries))
