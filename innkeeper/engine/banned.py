"""Phrases that must not appear in a reply, in any case of letters, found while the text grows.

An automaton after Aho and Corasick (1975, "Efficient string matching") reads each character once,
however many phrases there are. Its state says how much of the text's end could still become a
phrase; ``reply.ReplyText`` holds that much back, and where a phrase is complete, the engine takes
the tokens back from the one where it began ("anti-slop", as in KoboldCpp and ExLlamaV3).
"""

from collections import deque
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

_SHORT = 2
"""Characters up to which the tokens that hold a phrase are never chosen at all."""
_NUM_AUTOMATA = 8


class Found(NamedTuple):
    """A phrase in a text, by characters."""

    start: int
    end: int


class Automaton:
    """All phrases in one machine. State 0 is the beginning; states never change, so replies and
    threads share it."""

    def __init__(self, phrases: Iterable[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._depth = [0]
        self._longest = [0]
        """By state: length of the longest phrase that ends there; 0 = none."""
        for phrase in phrases:
            self._add(phrase)
        self._fallback = [0] * len(self._next)
        self._link()

    def step(self, state: int, text: str) -> tuple[int, Found | None]:
        """Reads ``text`` from ``state`` on; stops behind the first phrase that is complete.

        Of those that end there, the longest is found; ``start`` is negative if it began before
        ``text``.
        """
        for index, letter in enumerate(fold(text)):
            while state and letter not in self._next[state]:
                state = self._fallback[state]
            state = self._next[state].get(letter, 0)
            if self._longest[state]:
                return state, Found(index + 1 - self._longest[state], index + 1)
        return state, None

    def num_open(self, state: int) -> int:
        """Characters at the text's end that could become a phrase."""
        return self._depth[state]

    def _add(self, phrase: str) -> None:
        state = 0
        for letter in fold(phrase):
            following = self._next[state].get(letter)
            if following is None:
                following = self._next[state][letter] = len(self._next)
                self._next.append({})
                self._depth.append(self._depth[state] + 1)
                self._longest.append(0)
            state = following
        self._longest[state] = self._depth[state]

    def _link(self) -> None:
        waiting = deque(self._next[0].values())
        while waiting:
            state = waiting.popleft()
            for letter, child in self._next[state].items():
                fallback = self._fallback[state]
                while fallback and letter not in self._next[fallback]:
                    fallback = self._fallback[fallback]
                self._fallback[child] = self._next[fallback].get(letter, 0)
                self._longest[child] = self._longest[child] or self._longest[self._fallback[child]]
                waiting.append(child)


@lru_cache(_NUM_AUTOMATA)
def automaton(phrases: tuple[str, ...]) -> Automaton | None:
    """The automaton of ``phrases``, kept for the next request; None if there are none."""
    given = [phrase for phrase in phrases if phrase]
    return Automaton(given) if given else None


def short_phrases(phrases: tuple[str, ...]) -> tuple[str, ...]:
    """Those that come so often that taking them back would cost too much."""
    return tuple(phrase for phrase in phrases if 0 < len(phrase) <= _SHORT)


def fold(text: str) -> str:
    """Small letters, one for each character, so that places stay the same."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(low if len(low := letter.lower()) == 1 else letter for letter in text)
