"""The steps that make tokens of the past less likely. They change the logits of those tokens only,
so on the whole vocabulary they cost what the history costs.

Each reads the sampler's ``History`` and implements ``chain.Step``. z is a logit.
"""

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from innkeeper.core import SamplingParams
from innkeeper.core.request import WHOLE_CONTEXT
from innkeeper.engine.sampling.candidates import Candidates, Indices
from innkeeper.engine.sampling.history import History

Floats = NDArray[np.float32]


class Seen(NamedTuple):
    """The distinct tokens of a window, and how much each one counts."""

    ids: Indices
    strengths: Floats
    """1 = the whole repetition and presence penalty (the newest occurrence decides)."""
    counts: Floats
    """Occurrences, each with its strength."""


def repeat_penalty(logits: Floats, penalty: Floats | np.float32) -> Floats:
    """z / r above 0, else z * r. Source: CTRL, Keskar et al. 2019, arXiv:1909.05858."""
    changed: Floats = np.where(logits > 0, logits / penalty, logits * penalty)
    return changed


class Penalties:
    """Repetition, presence (z - a) and frequency (z - b * count) penalties over the last
    ``penalty_range`` tokens; ``names`` says which of the three.

    ``repetition_slope``: a token that occurs in the range's older half only gets 1 + (r - 1) *
    slope (KoboldCpp). ``repetition_curve`` c: strength (y + 1) / 2 with y = c * x / (1 + |x| *
    (c - 1)), x from -1 (oldest) to 1 (KoboldAI). ``repetition_decay``: before the range follow so
    many tokens whose strength falls to 0 in even steps (ExLlama).
    """

    is_sparse = True

    def __init__(self, params: SamplingParams, names: Collection[str], history: History) -> None:
        self._repetition = np.float32(
            params.repetition_penalty if "repetition_penalty" in names else 1.0
        )
        self._presence = np.float32(params.presence_penalty if "presence_penalty" in names else 0)
        self._frequency = np.float32(
            params.frequency_penalty if "frequency_penalty" in names else 0
        )
        self._params = params
        self._history = history
        is_whole = params.penalty_range == WHOLE_CONTEXT
        self._size = None if is_whole else params.penalty_range + params.repetition_decay
        self._is_even = (
            params.repetition_slope == 1
            and not params.repetition_curve
            and (is_whole or not params.repetition_decay)
        )
        self._counts: Counter[int] = Counter()
        self.rewind()

    @staticmethod
    def is_on(params: SamplingParams, names: Collection[str]) -> bool:
        changes = (
            ("repetition_penalty" in names and params.repetition_penalty != 1)
            or ("presence_penalty" in names and params.presence_penalty)
            or ("frequency_penalty" in names and params.frequency_penalty)
        )
        return bool(changes) and (params.penalty_range != 0 or params.repetition_decay > 0)

    def apply(self, candidates: Candidates) -> None:
        seen = self._seen() if self._is_even else self._weighted()
        positions, present = candidates.locate(seen.ids)
        logits, strengths = candidates.logits[positions], seen.strengths[present]
        logits = repeat_penalty(logits, 1 + (self._repetition - 1) * strengths)
        logits -= self._frequency * seen.counts[present] + self._presence * strengths
        candidates.logits[positions] = logits
        candidates.is_sorted = False

    def accept(self, token_id: int) -> None:
        if not self._is_even:
            return
        counts, history = self._counts, self._history
        counts[token_id] += 1
        if self._size is not None and len(history) > self._size:
            oldest = int(history.tokens[-self._size - 1])
            counts[oldest] -= 1
            if not counts[oldest]:
                del counts[oldest]

    def rewind(self) -> None:
        if self._is_even:
            self._counts = Counter(self._window().tolist())

    def _window(self) -> NDArray[np.int32]:
        return self._history.tokens if self._size is None else self._history.last(self._size)

    def _seen(self) -> Seen:
        num_seen = len(self._counts)
        ids = np.fromiter(self._counts.keys(), np.int64, num_seen)
        counts = np.fromiter(self._counts.values(), np.float32, num_seen)
        return Seen(ids, np.ones(num_seen, np.float32), counts)

    def _weighted(self) -> Seen:
        window = self._window()
        strengths = self._strengths(window.size)
        ids, inverse = np.unique(window, return_inverse=True)
        newest = np.zeros(ids.size, np.float32)
        newest[inverse] = strengths  # a later assignment wins, and later is newer
        counts = np.bincount(inverse, strengths, minlength=ids.size)
        return Seen(ids.astype(np.int64), newest, counts.astype(np.float32))

    def _strengths(self, count: int) -> Floats:
        """Of the window's ``count`` tokens, oldest first."""
        params = self._params
        strengths = np.ones(count)
        inner = count if self._size is None else min(count, params.penalty_range)
        if inner > 1 and params.repetition_curve:
            x, curve = np.linspace(-1, 1, inner), params.repetition_curve
            strengths[count - inner :] = (1 + curve * x / (1 + np.abs(x) * (curve - 1))) / 2
        strengths[count - inner : count - inner + inner // 2] *= params.repetition_slope
        if inner < count:
            steps = params.repetition_decay + 1
            fade = np.arange(count - inner, 0, -1) / steps
            strengths[: count - inner] = (1 - fade) * (strengths[count - inner] if inner else 1)
        return strengths.astype(np.float32)


class EncoderPenalty:
    """The repetition penalty turned round, on the prompt's tokens: r' = 1 / r, so that r > 1 keeps
    to the prompt's words. Source: transformers, ``EncoderRepetitionPenaltyLogitsProcessor``."""

    is_sparse = True

    def __init__(self, penalty: float, history: History) -> None:
        self._penalty = np.float32(1 / penalty)
        self._ids = np.unique(history.tokens[: history.num_prompt]).astype(np.int64)

    def apply(self, candidates: Candidates) -> None:
        positions, _ = candidates.locate(self._ids)
        candidates.logits[positions] = repeat_penalty(candidates.logits[positions], self._penalty)
        candidates.is_sorted = False

    def accept(self, token_id: int) -> None:
        pass

    def rewind(self) -> None:
        pass


class NoRepeatNgram:
    """Bans every token that would complete a sequence of ``size`` tokens which occurred before.

    Where that would ban every candidate, none is banned. Source: transformers,
    ``NoRepeatNGramLogitsProcessor`` (after Paulus et al. 2017, arXiv:1705.04304).
    """

    is_sparse = True

    def __init__(self, size: int, history: History) -> None:
        self._size = size
        self._history = history

    def apply(self, candidates: Candidates) -> None:
        tokens = self._history.tokens
        num_before = self._size - 1
        if tokens.size < self._size:
            return
        starts = np.arange(tokens.size - num_before)
        for offset in range(num_before):
            wanted = tokens[tokens.size - num_before + offset]
            starts = starts[tokens[starts + offset] == wanted]
        banned = np.unique(tokens[starts + num_before]).astype(np.int64)
        positions, _ = candidates.locate(banned)
        saved = candidates.logits[positions]
        candidates.logits[positions] = -np.inf
        if candidates.logits.max() == -np.inf:
            candidates.logits[positions] = saved
        candidates.drop_banned()

    def accept(self, token_id: int) -> None:
        pass

    def rewind(self) -> None:
        pass
