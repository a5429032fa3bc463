"""llama.cpp's own C samplers, as a second opinion on ours."""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import llama_cpp.llama_cpp as lib
import numpy as np

from innkeeper.core import SamplingParams
from innkeeper.core.request import WHOLE_CONTEXT
from innkeeper.engine.runner import Logits

CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""The memory layout of ``llama_token_data``."""
_MIROSTAT_V1_M = 100


def native_distribution(
    vocab: Any, params: SamplingParams, prompt: Sequence[int], logits: Logits
) -> dict[int, float]:
    """Token id -> probability after every step of ``params.order`` that is on."""
    records = np.zeros(logits.size, CANDIDATE)
    records["id"] = np.arange(logits.size)
    records["logit"] = logits
    array = lib.llama_token_data_array()
    array.data = ctypes.cast(records.ctypes.data, lib.llama_token_data_p)
    array.size, array.selected, array.sorted = logits.size, -1, False
    for sampler in _samplers(vocab, params, logits.size):
        for token_id in prompt:
            lib.llama_sampler_accept(sampler, token_id)
        lib.llama_sampler_apply(sampler, ctypes.byref(array))
        lib.llama_sampler_free(sampler)
    # A sampler may drop the first records by moving the array's start, as xtc does.
    start = ctypes.cast(array.data, ctypes.c_void_p).value or 0
    first = (start - records.ctypes.data) // CANDIDATE.itemsize
    kept = records[first : first + array.size]
    kept = kept[kept["logit"] > -np.inf]  # top-n-sigma bans what it drops
    weights = np.exp(kept["logit"].astype(np.float64) - kept["logit"].max())
    return dict(zip(kept["id"].tolist(), (weights / weights.sum()).tolist(), strict=True))


def _samplers(vocab: Any, params: SamplingParams, num_vocab: int) -> Iterator[Any]:
    for name in params.order:
        sampler = _MAKE[name](params, vocab, num_vocab)
        if sampler is not None:
            yield sampler


def _penalties(params: SamplingParams, vocab: Any, num_vocab: int) -> Any:
    window = 4096 if params.penalty_range == WHOLE_CONTEXT else params.penalty_range
    return lib.llama_sampler_init_penalties(
        num_vocab,
        window,
        params.repetition_penalty,
        params.frequency_penalty,
        params.presence_penalty,
    )


def _dry(params: SamplingParams, vocab: Any, num_vocab: int) -> Any:
    if params.dry_multiplier <= 0:
        return None
    breakers = [text.encode() for text in params.dry_breakers]
    return lib.llama_sampler_init_dry(
        vocab,
        params.dry_multiplier,
        params.dry_base,
        params.dry_allowed_length,
        4096 if params.dry_range == WHOLE_CONTEXT else params.dry_range,
        (ctypes.c_char_p * len(breakers))(*breakers),
        len(breakers),
    )


def _temperature(params: SamplingParams, vocab: Any, num_vocab: int) -> Any:
    return lib.llama_sampler_init_temp_ext(
        params.temperature, params.dynatemp_range, params.dynatemp_exponent
    )


def _mirostat(params: SamplingParams, vocab: Any, num_vocab: int) -> Any:
    tau, eta = params.mirostat_tau, params.mirostat_eta
    if params.mirostat == 1:
        return lib.llama_sampler_init_mirostat(num_vocab, 1, tau, eta, _MIROSTAT_V1_M)
    return lib.llama_sampler_init_mirostat_v2(1, tau, eta) if params.mirostat == 2 else None


_MAKE: dict[str, Callable[[SamplingParams, Any, int], Any]] = {
    "penalties": _penalties,
    "dry": _dry,
    "top_n_sigma": lambda p, vocab, n: lib.llama_sampler_init_top_n_sigma(p.top_n_sigma),
    "top_k": lambda p, vocab, n: (
        lib.llama_sampler_init_top_k(max(p.top_k, p.min_keep)) if p.top_k else None
    ),
    "typical_p": lambda p, vocab, n: lib.llama_sampler_init_typical(p.typical_p, p.min_keep),
    "top_p": lambda p, vocab, n: lib.llama_sampler_init_top_p(p.top_p, p.min_keep),
    "min_p": lambda p, vocab, n: lib.llama_sampler_init_min_p(p.min_p, p.min_keep),
    "xtc": lambda p, vocab, n: lib.llama_sampler_init_xtc(
        p.xtc_probability, p.xtc_threshold, p.min_keep, 1
    ),
    "temperature": _temperature,
    "adaptive_p": lambda p, vocab, n: (
        lib.llama_sampler_init_adaptive_p(p.adaptive_target, p.adaptive_decay, 1)
        if p.adaptive_target >= 0
        else None
    ),
    "mirostat": _mirostat,
}
