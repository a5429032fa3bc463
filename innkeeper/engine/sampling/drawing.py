"""The draw: from the candidates as they are, or by a step that draws the token itself."""

from collections.abc import Callable

import numpy as np

from innkeeper.core import SamplingParams
from innkeeper.engine.sampling import truncation
from innkeeper.engine.sampling.candidates import Candidates
from innkeeper.engine.sampling.history import History

_BLOCK = 512
_ADAPTIVE_WIDTH = 0.3
_ADAPTIVE_PEAK = 5.0
_ADAPTIVE_SHARPNESS = 10.0
_ZIPF_TERMS = 100


def draw(candidates: Candidates, uniform: float) -> int:
    """Index of the candidate at ``uniform`` (0 to 1) of the cumulative probability.

    Adds up in blocks first: one running sum over 152k takes longer than all else.
    """
    weights = candidates.weights()
    sums = np.cumsum(np.add.reduceat(weights, np.arange(0, weights.size, _BLOCK), dtype=np.float64))
    target = uniform * float(sums[-1])
    block = min(int(np.searchsorted(sums, target, side="right")), sums.size - 1)
    start = block * _BLOCK
    inner = np.cumsum(weights[start : start + _BLOCK], dtype=np.float64)
    inner += sums[block - 1] if block else 0.0
    index = start + min(int(np.searchsorted(inner, target, side="right")), inner.size - 1)
    while weights[index] == 0 and index > 0:
        index -= 1  # rounding may end on a token that has no mass
    return index


class _Drawing:
    """A step that draws, and whose ``_state`` follows what it drew; the state before each token of
    the reply is kept, so that tokens can be taken back."""

    is_sparse = False

    def __init__(self, state: float, history: History, rng: np.random.Generator) -> None:
        self._history = history
        self._rng = rng
        self._states = [state]
        self._pending: tuple[int, float] | None = None

    @property
    def _state(self) -> float:
        return self._states[-1]

    def accept(self, token_id: int) -> None:
        follows = self._pending is not None and self._pending[0] == token_id
        self._states.append(self._pending[1] if follows and self._pending else self._state)
        self._pending = None

    def rewind(self) -> None:
        del self._states[self._history.num_reply + 1 :]
        self._pending = None

    def _choose(self, candidates: Candidates, next_state: Callable[[int], float]) -> None:
        index = draw(candidates, self._rng.random())
        candidates.selected = index
        self._pending = int(candidates.ids[index]), next_state(index)


class AdaptiveP(_Drawing):
    """Aims at tokens of probability ``adaptive_target``: over time they are as likely as that.

    With the fading mean m of the probabilities that were drawn, the next aim is a = clip(2 *
    target - m, 0, 1), and z' = 5 - 10 * x**2 / (1 + x) with x = |p - a| / 0.3.
    Source: llama.cpp pull request 17927.
    """

    def __init__(self, params: SamplingParams, history: History, rng: np.random.Generator) -> None:
        self._target = min(max(params.adaptive_target, 0.0), 1.0)
        self._decay = min(max(params.adaptive_decay, 0.0), 0.99)
        super().__init__(self._target, history, rng)

    def apply(self, candidates: Candidates) -> None:
        before = candidates.probabilities()
        aim = min(max(2 * self._target - self._state, 0.0), 1.0)
        distance = np.abs(before - aim) / _ADAPTIVE_WIDTH
        logits = _ADAPTIVE_PEAK - _ADAPTIVE_SHARPNESS * distance**2 / (1 + distance)
        candidates.logits[:] = np.where(before > 0, logits, -np.inf)
        candidates.is_sorted = False
        # The sums s' = p + d s and w' = 1 + d w began with s / w = target, w = 1 / (1 - d): so w
        # never changes and the mean is m' = (1 - d) p + d m.
        decay = self._decay
        self._choose(
            candidates, lambda index: (1 - decay) * float(before[index]) + decay * self._state
        )


class Mirostat(_Drawing):
    """Holds the surprise -log2 p of what is drawn near ``mirostat_tau`` bits: mu, at first 2 tau,
    falls by eta * (surprise - tau) after each token.

    Version 1 keeps k tokens: with s the exponent of Zipf's law through the 100 likeliest and e =
    s - 1, k = (e * 2**mu / (1 - V**-e)) ** (1 / s), V the vocabulary's size. Version 2 keeps those
    with a surprise of at most mu. Source: Basu et al. 2020, arXiv:2007.14966.
    """

    def __init__(
        self, params: SamplingParams, history: History, rng: np.random.Generator, num_vocab: int
    ) -> None:
        self._params = params
        self._num_vocab = num_vocab
        super().__init__(2 * params.mirostat_tau, history, rng)

    def apply(self, candidates: Candidates) -> None:
        candidates.drop_banned()
        if self._params.mirostat == 1:
            truncation.top_k(candidates, self._num_kept(candidates))
        else:
            total = float(candidates.weights().sum(dtype=np.float64))
            truncation.keep_above(candidates, float(np.log(total) - self._state * np.log(2)))
        kept = candidates.probabilities()
        params = self._params

        def next_mu(index: int) -> float:
            surprise = -float(np.log2(kept[index]))
            return self._state - params.mirostat_eta * (surprise - params.mirostat_tau)

        self._choose(candidates, next_mu)

    def _num_kept(self, candidates: Candidates) -> int:
        head = Candidates(0)
        head.ids, head.logits = candidates.ids, candidates.logits
        truncation.top_k(head, _ZIPF_TERMS)
        head.sort()
        if head.size < 2:
            return 1
        ratios = -np.diff(head.logits.astype(np.float64))
        ranks = np.arange(1, head.size)
        steps = np.log((ranks + 1) / ranks)
        exponent = float(np.sum(steps * ratios) / np.sum(steps**2))
        excess = exponent - 1
        if exponent <= 0 or excess == 0:
            return candidates.size
        spread = 1 - float(self._num_vocab) ** -excess
        kept = (excess * 2.0 ** min(self._state, 1000.0) / spread) ** (1 / exponent)
        return max(1, int(min(kept, candidates.size)))
