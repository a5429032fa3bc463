"""DRY, "don't repeat yourself": the longer a repetition would become, the less likely it gets.

For every token t, L(t) is the length of the longest end of the text that occurred before and was
followed by t. Where L >= the allowed length, its logit falls by multiplier * base ** (L - allowed).
A repetition ends at a sequence breaker. Source: text-generation-webui pull request 5677; breakers
of many tokens, and that a breaker of one token is never penalised, as in llama.cpp (pull request
9702).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from innkeeper.core import SamplingParams
from innkeeper.core.request import WHOLE_CONTEXT
from innkeeper.engine.sampling.candidates import Candidates, Indices
from innkeeper.engine.sampling.history import History
from innkeeper.engine.vocabulary import Breakers

_LN_LARGEST_FLOAT = 88.7228391


class _Break(NamedTuple):
    """The last breaker of a text: it begins at ``start``, and ``end`` follows it."""

    start: int
    end: int


def suffix_lengths(tokens: Sequence[int]) -> list[int]:
    """For every prefix of ``tokens`` (n) the length of the longest end that it shares with the
    whole, so the last one is n. The Z-function of the reversed text: linear in n.

    Source: Gusfield 1997, "Algorithms on Strings, Trees and Sequences", section 1.4.
    """
    text = list(reversed(tokens))
    num_tokens = len(text)
    lengths = [num_tokens] * num_tokens
    left = right = 0
    for start in range(1, num_tokens):
        length = min(right - start, lengths[start - left]) if start < right else 0
        while start + length < num_tokens and text[length] == text[start + length]:
            length += 1
        lengths[start] = length
        if start + length > right:
            left, right = start, start + length
    lengths.reverse()
    return lengths


class Dry:
    """Keeps, for every earlier place, how much of the text's end it repeats: one vector step per
    token, whatever the text looks like. Implements ``chain.Step``."""

    is_sparse = True

    def __init__(self, params: SamplingParams, breakers: Breakers, history: History) -> None:
        self._params = params
        self._breakers = breakers
        self._history = history
        is_whole = params.dry_range == WHOLE_CONTEXT
        self._size = None if is_whole else params.dry_range
        growth = math.log(params.dry_base)
        self._max_exponent = _LN_LARGEST_FLOAT // growth if growth > 1e-6 else math.inf
        self.rewind()

    @staticmethod
    def is_on(params: SamplingParams) -> bool:
        return params.dry_multiplier > 0 and params.dry_base >= 1 and params.dry_range != 0

    def rewind(self) -> None:
        tokens = self._history.tokens.tolist()
        first = self._window_start()
        self._lengths = np.zeros(2 * len(tokens) + 64, np.int32)
        self._lengths[first : len(tokens)] = suffix_lengths(tokens[first:])
        self._break = _Break(-1, 0)
        for end in range(first + 1, len(tokens) + 1):
            self._note_breaker(tokens, end)

    def accept(self, token_id: int) -> None:
        num_before = len(self._history) - 1
        if self._lengths.size <= num_before:
            self._lengths = np.concatenate([self._lengths, np.zeros_like(self._lengths)])
        if num_before:
            lengths, first = self._lengths, max(1, self._window_start())
            lengths[first:num_before] = lengths[first - 1 : num_before - 1] + 1
            lengths[0] = 1
            first -= 1
            lengths[first:num_before] *= self._history.tokens[first:num_before] == token_id
        self._note_breaker(self._history.tokens, num_before + 1)

    def apply(self, candidates: Candidates) -> None:
        ids, repeats = self._repeats()
        if not ids.size:
            return
        positions, present = candidates.locate(ids)
        params = self._params
        exponents = np.minimum(repeats[present] - params.dry_allowed_length, self._max_exponent)
        penalties = params.dry_multiplier * params.dry_base**exponents
        with np.errstate(over="ignore"):  # -inf is what is meant then
            candidates.logits[positions] -= penalties.astype(np.float32)
        candidates.is_sorted = False

    def _window_start(self) -> int:
        return 0 if self._size is None else max(0, len(self._history) - self._size)

    def _note_breaker(self, tokens: Sequence[int] | NDArray[np.int32], end: int) -> None:
        """The breaker that begins last counts; of several that begin there, the longest."""
        length = self._breakers.ending_at(tokens, end)
        if length and end - length >= self._break.start:
            self._break = _Break(end - length, end)

    def _repeats(self) -> tuple[Indices, NDArray[np.float64]]:
        """Tokens that would prolong a repetition, and the length that it has now."""
        size, first = len(self._history), self._window_start()
        limit = size - (self._break.end if self._break.start >= first else first)
        allowed = self._params.dry_allowed_length
        if limit < allowed or size - first < 2:
            return np.zeros(0, np.int64), np.zeros(0)
        in_window = np.arange(1, size - first)
        lengths = np.minimum(self._lengths[first : size - 1], np.minimum(in_window, limit))
        places = np.flatnonzero(lengths >= allowed)
        following = self._history.tokens[first + 1 + places]
        ids, inverse = np.unique(following, return_inverse=True)
        longest = np.zeros(ids.size)
        np.maximum.at(longest, inverse, lengths[places])
        free = np.fromiter((int(i) not in self._breakers.single for i in ids), np.bool_, ids.size)
        return ids[free].astype(np.int64), longest[free]
