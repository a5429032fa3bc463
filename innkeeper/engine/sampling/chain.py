"""One choice's sampler: biases and penalties on the logits, then steps over candidates, a draw."""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from innkeeper.core import SamplingParams
from innkeeper.core.request import WHOLE_CONTEXT
from innkeeper.engine.runner import Logits
from innkeeper.engine.sampling import steps
from innkeeper.engine.sampling.candidates import Candidates
from innkeeper.errors import InvalidRequestError


class Step(Protocol):
    """One named step of the chain."""

    def apply(self, candidates: Candidates) -> None:
        """Narrows, reweights or selects, in place."""

    def accept(self, token_id: int) -> None:
        """Learns a token of the prompt or the reply."""

    def close(self) -> None:
        """Frees native memory."""


NativeSteps = Mapping[str, Callable[[SamplingParams, int, Sequence[int]], Step | None]]
"""By step name: a backend's own form, from (parameters, seed, prompt tokens); None if off."""


class Plain:
    """A step without memory, from a function over candidates."""

    def __init__(self, function: Callable[[Candidates], None]) -> None:
        self.apply = function

    def accept(self, token_id: int) -> None:
        pass

    def close(self) -> None:
        pass


class Xtc(Plain):
    """``steps.xtc`` with probability ``chance`` at each token."""

    def __init__(self, params: SamplingParams, rng: np.random.Generator) -> None:
        def apply(candidates: Candidates) -> None:
            if rng.random() < params.xtc_probability:
                steps.xtc(candidates, params.xtc_threshold, params.min_keep)

        super().__init__(apply)


class Penalties:
    """Repetition (CTRL, arXiv:1909.05858), presence and frequency (OpenAI) penalties.

    They read a window of the last tokens and write the raw logits, before any candidate list
    exists: only tokens that occurred change, so the cost does not grow with the vocabulary.
    """

    def __init__(self, params: SamplingParams, prompt: Sequence[int]) -> None:
        self._params = params
        size = None if params.penalty_range == WHOLE_CONTEXT else params.penalty_range
        self._window: deque[int] = deque(maxlen=size)
        self._counts: Counter[int] = Counter()
        for token_id in prompt if size is None else prompt[max(0, len(prompt) - size) :]:
            self.accept(token_id)

    @staticmethod
    def is_on(params: SamplingParams) -> bool:
        changes = (
            params.repetition_penalty != 1.0 or params.presence_penalty or params.frequency_penalty
        )
        return bool(changes) and params.penalty_range != 0

    def accept(self, token_id: int) -> None:
        window = self._window
        if window.maxlen is not None and len(window) == window.maxlen:
            oldest = window[0]
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]
        window.append(token_id)
        self._counts[token_id] += 1

    def apply_to_logits(self, logits: Logits) -> None:
        num_seen = len(self._counts)
        if not num_seen:
            return
        ids = np.fromiter(self._counts.keys(), np.int64, num_seen)
        counts = np.fromiter(self._counts.values(), np.float32, num_seen)
        seen, params = logits[ids], self._params
        repetition = np.float32(params.repetition_penalty)
        seen = np.where(seen > 0, seen / repetition, seen * repetition)
        seen -= counts * np.float32(params.frequency_penalty) + np.float32(params.presence_penalty)
        logits[ids] = seen


class PenaltiesStep:
    """``Penalties`` in the middle of a chain, where the order puts another step before them."""

    def __init__(self, penalties: Penalties, num_vocab: int) -> None:
        self._penalties = penalties
        self._logits = np.zeros(num_vocab, np.float32)
        self.accept = penalties.accept

    def apply(self, candidates: Candidates) -> None:
        ids = candidates.data["id"]
        self._logits[ids] = candidates.logits
        self._penalties.apply_to_logits(self._logits)
        candidates.logits[:] = self._logits[ids]
        candidates.is_sorted = False

    def close(self) -> None:
        pass


class TokenSampler:
    """Implements ``runner.Sampler``. Penalties that come first work on the raw logits, where they
    cost nothing that grows with the vocabulary."""

    def __init__(
        self,
        params: SamplingParams,
        chain: Sequence[Step],
        penalties: Penalties | None,
        num_vocab: int,
        rng: np.random.Generator,
    ) -> None:
        self._params = params
        self._chain = chain
        self._penalties = penalties
        self._rng = rng
        self._candidates = Candidates(num_vocab)
        self._is_greedy = params.temperature <= 0
        self._bias_ids = np.fromiter(params.logit_bias.keys(), np.int64, len(params.logit_bias))
        self._bias = np.fromiter(params.logit_bias.values(), np.float32, len(params.logit_bias))
        if self._bias_ids.size and int(self._bias_ids.max()) >= num_vocab:
            raise InvalidRequestError(
                f"token id {int(self._bias_ids.max())} is outside the vocabulary (0 to"
                f" {num_vocab - 1})",
                field="logit_bias",
            )

    def accept(self, token_id: int) -> None:
        if self._penalties is not None:
            self._penalties.accept(token_id)
        for step in self._chain:
            step.accept(token_id)

    def sample(self, logits: Logits) -> int:
        self._adjust(logits)
        if self._is_greedy and not self._chain:
            return int(logits.argmax())
        candidates = self._narrow(logits)
        if candidates.selected >= 0:
            index = candidates.selected
        elif self._is_greedy:
            index = int(candidates.logits.argmax())
        else:
            total = np.cumsum(candidates.probabilities())
            index = int(np.searchsorted(total, self._rng.random() * total[-1], side="right"))
            index = min(index, candidates.size - 1)
        return int(candidates.data["id"][index])

    def distribution(self, logits: Logits) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        self._adjust(logits)
        candidates = self._narrow(logits)
        if self._is_greedy:
            steps.top_k(candidates, 1)
        candidates.keep(~np.isneginf(candidates.logits))
        candidates.sort()
        return candidates.data["id"].copy(), candidates.probabilities().astype(np.float32)

    def close(self) -> None:
        for step in self._chain:
            step.close()
        self._chain = ()

    def _adjust(self, logits: Logits) -> None:
        if self._bias_ids.size:
            logits[self._bias_ids] += self._bias
        if self._penalties is not None:
            self._penalties.apply_to_logits(logits)

    def _narrow(self, logits: Logits) -> Candidates:
        candidates = self._candidates
        candidates.fill(logits)
        if candidates.size == 0:
            raise InvalidRequestError("every token is banned", field="logit_bias")
        for step in self._chain:
            step.apply(candidates)
        return candidates


def build_sampler(
    params: SamplingParams,
    seed: int,
    prompt: Sequence[int],
    num_vocab: int,
    native: NativeSteps | None = None,
) -> TokenSampler:
    """The sampler of one choice, its history begun with ``prompt``.

    Raises: InvalidRequestError naming the field, for a step that is not known here.
    """
    rng = np.random.default_rng(seed)
    chain: list[Step] = []
    first_penalties: Penalties | None = None
    for name in _drawing_last(params.order):
        if name == "penalties":
            if not Penalties.is_on(params):
                continue
            penalties = Penalties(params, prompt)
            if chain:
                chain.append(PenaltiesStep(penalties, num_vocab))
            else:
                first_penalties = penalties
            continue
        step = _step(name, params, seed, prompt, rng, native or {})
        if step is not None:
            chain.append(step)
    return TokenSampler(params, chain, first_penalties, num_vocab, rng)


def _drawing_last(order: Sequence[str]) -> list[str]:
    """Adaptive-p and mirostat draw the token themselves, so nothing can come after them."""
    drawing = ("adaptive_p", "mirostat")
    return [n for n in order if n not in drawing] + [n for n in order if n in drawing]


def _step(
    name: str,
    params: SamplingParams,
    seed: int,
    prompt: Sequence[int],
    rng: np.random.Generator,
    native: NativeSteps,
) -> Step | None:
    if params.temperature <= 0 and name != "dry":
        return None  # truncation and reweighting never change which token is the likeliest
    if name in native:
        return native[name](params, seed, prompt)
    if name == "xtc":
        return Xtc(params, rng) if params.xtc_probability > 0 else None
    if name not in _BUILT_IN:
        raise InvalidRequestError(f"the step {name!r} is not known here", field="sampler_priority")
    function = _BUILT_IN[name](params)
    return Plain(function) if function is not None else None


_Function = Callable[[Candidates], None]


def _temperature(params: SamplingParams) -> _Function | None:
    if params.dynatemp_range:
        return partial(
            steps.dynamic_temperature,
            value=params.temperature,
            spread=params.dynatemp_range,
            exponent=params.dynatemp_exponent,
        )
    return partial(steps.temperature, value=params.temperature) if params.temperature != 1 else None


def _when(is_on: bool, function: Callable[..., None], *values: float) -> _Function | None:
    return (lambda candidates: function(candidates, *values)) if is_on else None


_BUILT_IN: dict[str, Callable[[SamplingParams], _Function | None]] = {
    "temperature": _temperature,
    "top_k": lambda p: _when(p.top_k > 0, steps.top_k, p.top_k, p.min_keep),
    "top_p": lambda p: _when(p.top_p < 1, steps.top_p, p.top_p, p.min_keep),
    "min_p": lambda p: _when(p.min_p > 0, steps.min_p, p.min_p, p.min_keep),
    "typical_p": lambda p: _when(p.typical_p < 1, steps.typical_p, p.typical_p, p.min_keep),
    "top_n_sigma": lambda p: _when(p.top_n_sigma > 0, steps.top_n_sigma, p.top_n_sigma),
}
