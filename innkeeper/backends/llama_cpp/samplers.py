"""llama.cpp's C samplers as steps of our chain, working in place on our candidates."""

import ctypes
from collections.abc import Callable, Sequence

import llama_cpp.llama_cpp as lib

from innkeeper.core import SamplingParams
from innkeeper.core.request import WHOLE_CONTEXT
from innkeeper.engine.sampling import CANDIDATE, Candidates, NativeSteps, Step

_MIROSTAT_V1_M = 100
_MAX_DRY_TEMPLATES = 8

_Make = Callable[[SamplingParams, int], "lib.llama_sampler_p | None"]


class NativeStep:
    """One ``llama_sampler``. With ``has_memory`` it learns every token of the history."""

    def __init__(
        self, pointer: "lib.llama_sampler_p", *, has_memory: bool, history: Sequence[int] = ()
    ) -> None:
        self._pointer: lib.llama_sampler_p | None = pointer
        self._array = lib.llama_token_data_array()
        self._has_memory = has_memory
        for token_id in history:
            lib.llama_sampler_accept(pointer, token_id)

    def apply(self, candidates: Candidates) -> None:
        array, start = self._array, candidates.buffer.ctypes.data
        array.data = ctypes.cast(start, lib.llama_token_data_p)
        array.size = candidates.size
        array.selected = candidates.selected
        array.sorted = candidates.is_sorted
        lib.llama_sampler_apply(self._pointer, ctypes.byref(array))
        self._move_to_start(candidates, array.size)
        candidates.size = array.size
        candidates.selected = array.selected
        candidates.is_sorted = array.sorted

    def _move_to_start(self, candidates: Candidates, size: int) -> None:
        """A sampler may drop the first records by moving the array's start, as xtc does."""
        start = ctypes.cast(self._array.data, ctypes.c_void_p).value or 0
        skipped = (start - candidates.buffer.ctypes.data) // CANDIDATE.itemsize
        if skipped:
            candidates.buffer[:size] = candidates.buffer[skipped : skipped + size]

    def accept(self, token_id: int) -> None:
        if self._has_memory:
            lib.llama_sampler_accept(self._pointer, token_id)

    def close(self) -> None:
        if self._pointer is not None:
            lib.llama_sampler_free(self._pointer)
            self._pointer = None


def native_steps(vocab: "lib.llama_vocab_p", num_vocab: int, num_ctx: int) -> NativeSteps:
    """Every step of ``SamplingParams.order`` that llama.cpp has, for one model.

    ``penalties`` is not among them: in numpy it costs less (docs/experiments.md).
    """
    return {
        "dry": _Dry(vocab, num_ctx),
        "top_n_sigma": _plain(_top_n_sigma),
        "top_k": _plain(_top_k),
        "typical_p": _plain(_typical_p),
        "top_p": _plain(_top_p),
        "min_p": _plain(_min_p),
        "xtc": _plain(_xtc),
        "temperature": _plain(_temperature),
        "adaptive_p": _plain(_adaptive_p, has_memory=True),
        "mirostat": _plain(lambda p, seed: _mirostat(p, seed, num_vocab), has_memory=True),
    }


def _plain(
    make: _Make, *, has_memory: bool = False
) -> Callable[[SamplingParams, int, Sequence[int]], Step | None]:
    def build(params: SamplingParams, seed: int, prompt: Sequence[int]) -> Step | None:
        pointer = make(params, seed)
        return None if pointer is None else NativeStep(pointer, has_memory=has_memory)

    return build


def _top_n_sigma(params: SamplingParams, seed: int) -> "lib.llama_sampler_p | None":
    return (
        lib.llama_sampler_init_top_n_sigma(params.top_n_sigma) if params.top_n_sigma > 0 else None
    )


def _top_k(params: SamplingParams, seed: int) -> "lib.llama_sampler_p | None":
    k = max(params.top_k, params.min_keep)
    return lib.llama_sampler_init_top_k(k) if params.top_k > 0 else None


def _typical_p(params: SamplingParams, seed: int) -> "lib.llama_sampler_p | None":
    value = params.typical_p
    return lib.llama_sampler_init_typical(value, params.min_keep) if value < 1 else None


def _top_p(params: SamplingParams, seed: int) -> "lib.llama_sampler_p | None":
    value = params.top_p
    return lib.llama_sampler_init_top_p(value, params.min_keep) if value < 1 else None


def _min_p(params: SamplingParams, seed: int) -> "lib.llama_sampler_p | None":
    value = params.min_p
    return lib.llama_sampler_init_min_p(value, params.min_keep) if value > 0 else None


def _xtc(params: SamplingParams, seed: int) -> "lib.llama_sampler_p | None":
    chance, threshold = params.xtc_probability, params.xtc_threshold
    if chance <= 0 or threshold > 0.5:
        return None
    return lib.llama_sampler_init_xtc(chance, threshold, params.min_keep, seed)


def _temperature(params: SamplingParams, seed: int) -> "lib.llama_sampler_p | None":
    if params.dynatemp_range:
        return lib.llama_sampler_init_temp_ext(
            params.temperature, params.dynatemp_range, params.dynatemp_exponent
        )
    return lib.llama_sampler_init_temp(params.temperature) if params.temperature != 1 else None


def _adaptive_p(params: SamplingParams, seed: int) -> "lib.llama_sampler_p | None":
    if params.adaptive_target < 0 or params.mirostat:
        return None
    return lib.llama_sampler_init_adaptive_p(params.adaptive_target, params.adaptive_decay, seed)


def _mirostat(params: SamplingParams, seed: int, num_vocab: int) -> "lib.llama_sampler_p | None":
    tau, eta = params.mirostat_tau, params.mirostat_eta
    if params.mirostat == 1:
        return lib.llama_sampler_init_mirostat(num_vocab, seed, tau, eta, _MIROSTAT_V1_M)
    return lib.llama_sampler_init_mirostat_v2(seed, tau, eta) if params.mirostat == 2 else None


class _Dry:
    """DRY needs 130 ms to look the breakers up in a vocabulary of 152k, so each set of parameters
    is built once and cloned."""

    def __init__(self, vocab: "lib.llama_vocab_p", num_ctx: int) -> None:
        self._vocab = vocab
        self._num_ctx = num_ctx
        self._templates: dict[tuple[object, ...], lib.llama_sampler_p] = {}

    def __call__(self, params: SamplingParams, seed: int, prompt: Sequence[int]) -> Step | None:
        size = self._num_ctx if params.dry_range == WHOLE_CONTEXT else params.dry_range
        if params.dry_multiplier <= 0 or size <= 0 or params.dry_base < 1:
            return None
        template = self._template(params, size)
        return NativeStep(
            lib.llama_sampler_clone(template), has_memory=True, history=prompt[-size:]
        )

    def _template(self, params: SamplingParams, size: int) -> "lib.llama_sampler_p":
        key = (
            params.dry_multiplier,
            params.dry_base,
            params.dry_allowed_length,
            size,
            params.dry_breakers,
        )
        if key not in self._templates:
            if len(self._templates) >= _MAX_DRY_TEMPLATES:
                lib.llama_sampler_free(self._templates.pop(next(iter(self._templates))))
            breakers = [text.encode() for text in params.dry_breakers if text]
            self._templates[key] = lib.llama_sampler_init_dry(
                self._vocab,
                params.dry_multiplier,
                params.dry_base,
                params.dry_allowed_length,
                size,
                (ctypes.c_char_p * len(breakers))(*breakers),
                len(breakers),
            )
        return self._templates[key]
