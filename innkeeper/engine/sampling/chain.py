"""One choice's sampler: biases, then named steps in the asked-for order, then a draw."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from innkeeper.core import SamplingParams
from innkeeper.engine.runner import Logits, Ranked
from innkeeper.engine.sampling import reweighting, truncation
from innkeeper.engine.sampling.candidates import Candidates
from innkeeper.engine.sampling.drawing import AdaptiveP, Mirostat, draw
from innkeeper.engine.sampling.dry import Dry
from innkeeper.engine.sampling.history import History
from innkeeper.engine.sampling.penalties import EncoderPenalty, NoRepeatNgram, Penalties
from innkeeper.engine.vocabulary import Vocabulary
from innkeeper.errors import EngineError, InvalidRequestError

_PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")
_ALWAYS_LAST = ("skew", "adaptive_p", "mirostat")
"""Skew is a way to draw, and the others draw the token themselves: nothing can follow."""
_KEEP_THE_BEST = frozenset(
    "top_n_sigma top_k top_a tfs typical_p top_p min_p epsilon_cutoff eta_cutoff xtc temperature"
    " quadratic_sampling skew adaptive_p mirostat".split()
)
"""Left out at temperature 0, which takes the likeliest token: biases, bans and penalties decide."""


class Step(Protocol):
    """One named step of the chain."""

    is_sparse: bool
    """Whether it changes the logits of few tokens only, so may run on the whole vocabulary."""

    def apply(self, candidates: Candidates) -> None:
        """Narrows, reweights or selects, in place."""

    def accept(self, token_id: int) -> None:
        """Follows the history, which has just got ``token_id``."""

    def rewind(self) -> None:
        """Follows the history, which has just lost its last tokens."""


class Plain:
    """A step without memory, from a function over candidates."""

    is_sparse = False

    def __init__(self, function: Callable[[Candidates], None]) -> None:
        self.apply = function

    def accept(self, token_id: int) -> None:
        pass

    def rewind(self) -> None:
        pass


class TokenSampler:
    """Implements ``runner.Sampler``. The steps at the front of the chain that touch few tokens
    work on the raw logits, where they cost nothing that grows with the vocabulary."""

    def __init__(
        self,
        params: SamplingParams,
        chain: Sequence[tuple[str, Step]],
        history: History,
        num_vocab: int,
        rng: np.random.Generator,
    ) -> None:
        self._names, steps = [name for name, _ in chain], [step for _, step in chain]
        num_sparse = next((i for i, step in enumerate(steps) if not step.is_sparse), len(steps))
        self._on_all, self._on_rest = steps[:num_sparse], steps[num_sparse:]
        self._history = history
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
        self._history.append(token_id)
        for step in (*self._on_all, *self._on_rest):
            step.accept(token_id)

    def rewind(self, count: int) -> None:
        self._history.rewind(count)
        for step in (*self._on_all, *self._on_rest):
            step.rewind()

    def sample(self, logits: Logits) -> int:
        candidates = self._narrow(logits)
        if candidates.selected >= 0:
            index = candidates.selected
        elif self._is_greedy:
            index = int(candidates.logits.argmax())
        else:
            index = draw(candidates, self._rng.random())
        return int(candidates.ids[index])

    def distribution(self, logits: Logits) -> Ranked:
        self._narrow(logits)
        return self.drawn_from()

    def drawn_from(self) -> Ranked:
        candidates = self._candidates
        candidates.drop_banned()
        if self._is_greedy:
            truncation.top_k(candidates, 1)
        return _ranked(candidates)

    def trace(self, logits: Logits) -> Iterator[tuple[str, int, Ranked]]:
        candidates = self._candidates
        candidates.begin(logits)
        if self._bias_ids.size:
            logits[self._bias_ids] += self._bias
            yield "logit_bias", *self._left()
        for name, step in zip(self._names, (*self._on_all, *self._on_rest), strict=True):
            step.apply(candidates)
            yield name, *self._left()
        if self._is_greedy:
            yield "greedy", 1, self.drawn_from()

    def _left(self) -> tuple[int, Ranked]:
        """Refuses what ``sample`` would refuse."""
        self._refuse_unusable(self._candidates)
        self._candidates.drop_banned()
        return self._candidates.size, _ranked(self._candidates)

    def close(self) -> None:
        pass

    def _narrow(self, logits: Logits) -> Candidates:
        candidates = self._candidates
        candidates.begin(logits)
        if self._bias_ids.size:
            logits[self._bias_ids] += self._bias
        for step in self._on_all:
            step.apply(candidates)
        self._refuse_unusable(candidates)
        if self._on_rest:
            candidates.drop_banned()
        for step in self._on_rest:
            step.apply(candidates)
        return candidates

    def _refuse_unusable(self, candidates: Candidates) -> None:
        best = float(candidates.logits.max())
        if best == -np.inf:
            raise InvalidRequestError("every token is banned", field="logit_bias")
        if not best < np.inf:
            raise EngineError(f"the model's best logit is {best}", hint="the file may be damaged")


def _ranked(candidates: Candidates) -> Ranked:
    """A copy: the candidates stay as they stand."""
    order = np.argsort(-candidates.logits, kind="stable")
    probabilities = candidates.probabilities().astype(np.float32)
    return candidates.ids[order], probabilities[order]


class Setting(NamedTuple):
    """What steps are made from."""

    params: SamplingParams
    history: History
    rng: np.random.Generator
    vocabulary: Vocabulary


def build_sampler(
    params: SamplingParams, seed: int, prompt: Sequence[int], vocabulary: Vocabulary
) -> TokenSampler:
    """The sampler of one choice, its history begun with ``prompt``.

    Raises: InvalidRequestError naming the field, for a step that is not known here.
    """
    setting = Setting(params, History(prompt), np.random.default_rng(seed), vocabulary)
    chain = [(name, _STEPS[name].make(setting)) for name in active_steps(params)]
    return TokenSampler(params, chain, setting.history, vocabulary.num_vocab, setting.rng)


def active_steps(params: SamplingParams) -> list[str]:
    """The names of the steps whose parameters are on, in order; each step once.

    Raises: InvalidRequestError naming the field, for a step that is not known here.
    """
    unknown = [name for name in params.order if name not in _STEPS]
    if unknown:
        raise InvalidRequestError(
            f"the step {unknown[0]!r} is not known here", field="sampler_priority"
        )
    order = list(dict.fromkeys(params.order))
    order = [n for n in order if n not in _ALWAYS_LAST] + [n for n in _ALWAYS_LAST if n in order]
    is_greedy = params.temperature <= 0
    names = [
        name
        for name in order
        if _STEPS[name].is_on(params) and not (is_greedy and name in _KEEP_THE_BEST)
    ]
    merged: list[str] = []
    for name in names:
        if name == "min_p" and merged[-1:] == ["top_p"] and params.min_keep <= 1:
            merged[-1] = _TOP_P_MIN_P
        else:
            merged.append(name)
    return merged


class _Entry(NamedTuple):
    is_on: Callable[[SamplingParams], bool]
    make: Callable[[Setting], Step]


_Function = Callable[[Candidates], None]
_TOP_P_MIN_P = "top_p, min_p"


def _plain(
    is_on: Callable[[SamplingParams], bool], make: Callable[[SamplingParams], _Function]
) -> _Entry:
    return _Entry(is_on, lambda setting: Plain(make(setting.params)))


def _truncation(
    name: str, is_on: Callable[[SamplingParams], bool], function: Callable[..., None]
) -> _Entry:
    return _plain(
        is_on, lambda p: lambda found: function(found, getattr(p, name), min_keep=p.min_keep)
    )


def _penalty_names(name: str, params: SamplingParams) -> tuple[str, ...]:
    if name != "penalties":
        return (name,)
    return tuple(each for each in _PENALTIES if each not in params.order)


def _penalty(name: str) -> _Entry:
    def is_on(params: SamplingParams) -> bool:
        return Penalties.is_on(params, _penalty_names(name, params))

    def make(setting: Setting) -> Step:
        return Penalties(setting.params, _penalty_names(name, setting.params), setting.history)

    return _Entry(is_on, make)


def _temperature(params: SamplingParams) -> _Function:
    if params.dynatemp_range:
        return partial(
            reweighting.dynamic_temperature,
            value=params.temperature,
            spread=params.dynatemp_range,
            exponent=params.dynatemp_exponent,
        )
    return partial(reweighting.temperature, value=params.temperature)


def _xtc(setting: Setting) -> Step:
    params, vocabulary = setting.params, setting.vocabulary
    protected = None
    if params.xtc_protect:
        protected = np.asarray([vocabulary.newline_id, *vocabulary.end_ids], np.int32)

    def apply(candidates: Candidates) -> None:
        if setting.rng.random() < params.xtc_probability:
            truncation.xtc(candidates, params.xtc_threshold, params.min_keep, protected)

    return Plain(apply)


def _dry(setting: Setting) -> Step:
    breakers = setting.vocabulary.breakers(setting.params.dry_breakers)
    return Dry(setting.params, breakers, setting.history)


def _mirostat(setting: Setting) -> Step:
    return Mirostat(setting.params, setting.history, setting.rng, setting.vocabulary.num_vocab)


_STEPS: dict[str, _Entry] = {
    "penalties": _penalty("penalties"),
    **{name: _penalty(name) for name in _PENALTIES},
    "encoder_repetition_penalty": _Entry(
        lambda p: p.encoder_repetition_penalty != 1,
        lambda s: EncoderPenalty(s.params.encoder_repetition_penalty, s.history),
    ),
    "no_repeat_ngram": _Entry(
        lambda p: p.no_repeat_ngram > 0,
        lambda s: NoRepeatNgram(s.params.no_repeat_ngram, s.history),
    ),
    "dry": _Entry(Dry.is_on, _dry),
    "top_n_sigma": _truncation("top_n_sigma", lambda p: p.top_n_sigma > 0, truncation.top_n_sigma),
    "top_k": _truncation("top_k", lambda p: p.top_k > 0, truncation.top_k),
    "top_a": _truncation("top_a", lambda p: p.top_a > 0, truncation.top_a),
    "tfs": _truncation("tfs", lambda p: p.tfs < 1, truncation.tail_free),
    "typical_p": _truncation("typical_p", lambda p: p.typical_p < 1, truncation.typical_p),
    "top_p": _truncation("top_p", lambda p: p.top_p < 1, truncation.top_p),
    "min_p": _truncation("min_p", lambda p: p.min_p > 0, truncation.min_p),
    _TOP_P_MIN_P: _plain(
        lambda p: False, lambda p: partial(truncation.top_p, p=p.top_p, floor=p.min_p)
    ),
    "epsilon_cutoff": _truncation(
        "epsilon_cutoff", lambda p: p.epsilon_cutoff > 0, truncation.epsilon_cutoff
    ),
    "eta_cutoff": _truncation("eta_cutoff", lambda p: p.eta_cutoff > 0, truncation.eta_cutoff),
    "xtc": _Entry(lambda p: p.xtc_probability > 0, _xtc),
    "temperature": _plain(lambda p: p.temperature != 1 or p.dynatemp_range != 0, _temperature),
    "quadratic_sampling": _plain(
        lambda p: p.smoothing_factor > 0,
        lambda p: partial(
            reweighting.quadratic, factor=p.smoothing_factor, curve=p.smoothing_curve
        ),
    ),
    "skew": _plain(lambda p: p.skew != 0, lambda p: partial(reweighting.skew, amount=p.skew)),
    "adaptive_p": _Entry(
        lambda p: p.adaptive_target >= 0 and not p.mirostat,
        lambda s: AdaptiveP(s.params, s.history, s.rng),
    ),
    "mirostat": _Entry(lambda p: p.mirostat != 0, _mirostat),
}
