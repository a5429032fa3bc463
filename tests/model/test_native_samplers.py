"""llama.cpp's C samplers and our numpy steps give the same distribution."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from innkeeper.backends.llama_cpp.samplers import native_steps
from innkeeper.core import SamplingParams
from innkeeper.engine.runner import Logits
from innkeeper.engine.sampling import NativeSteps, build_sampler

CASES: list[dict[str, Any]] = [
    {"temperature": 0.7},
    {"temperature": 1.3, "dynatemp_range": 0.5, "dynatemp_exponent": 1.5},
    {"top_k": 40},
    {"top_p": 0.9},
    {"min_p": 0.05},
    {"typical_p": 0.8},
    {"top_n_sigma": 1.2},
    {"xtc_probability": 1.0, "xtc_threshold": 0.02},
    {"top_k": 100, "top_p": 0.95, "min_p": 0.01, "temperature": 0.8, "repetition_penalty": 1.1},
    {"top_p": 0.5, "min_keep": 10},
    {"order": ("temperature", "top_p", "min_p"), "temperature": 1.5, "top_p": 0.9, "min_p": 0.1},
]


@pytest.fixture(scope="module")
def native(tiny_llama: Path) -> Iterator[NativeSteps]:
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(tiny_llama).encode(), params)
    yield native_steps(llama_cpp.llama_model_get_vocab(model), 512, 1024)
    llama_cpp.llama_model_free(model)


def logits(num_vocab: int, seed: int) -> Logits:
    random = np.random.default_rng(seed)
    values: Logits = (random.standard_normal(num_vocab) * 3).astype(np.float32)
    return values


@pytest.mark.parametrize("num_vocab", [512, 32_000, 152_000])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "+".join(case))
def test_native_steps_equal_ours(native: NativeSteps, case: dict[str, Any], num_vocab: int) -> None:
    params = SamplingParams(**case)
    prompt = [1, 5, 5, 7]
    found = []
    for steps in (native, None):
        order = [name for name in params.order if name not in ("dry", "adaptive_p", "mirostat")]
        plain = SamplingParams(**{**case, "order": tuple(order)})
        sampler = build_sampler(plain, 1, prompt, num_vocab, steps)
        ids, p = sampler.distribution(logits(num_vocab, seed=num_vocab))
        sampler.close()
        found.append(dict(zip(ids.tolist(), p.tolist(), strict=True)))
    # llama.cpp adds probabilities up in 32 bits, so a few of the least likely tokens may differ.
    ids = found[0].keys() | found[1].keys()
    distance = sum(abs(found[0].get(i, 0.0) - found[1].get(i, 0.0)) for i in ids) / 2
    assert distance < 1e-3
    assert len(found[0].keys() ^ found[1].keys()) <= max(1, num_vocab // 1_000)


def test_banned_tokens_are_never_drawn(native: NativeSteps) -> None:
    params = SamplingParams(logit_bias={3: float("-inf"), 9: 100.0})
    sampler = build_sampler(params, 1, [], 512, native)
    ids, p = sampler.distribution(logits(512, 1))
    assert 3 not in ids
    assert ids[0] == 9 and p[0] > 0.99


def test_dry_breaks_a_repetition(native: NativeSteps) -> None:
    loop = [10, 11, 12, 13] * 3 + [10, 11, 12]
    flat = np.zeros(512, np.float32)
    flat[13] = 2.0
    params = SamplingParams(dry_multiplier=0.8, temperature=0)
    sampler = build_sampler(params, 1, loop, 512, native)
    assert sampler.sample(flat.copy()) != 13
    plain = build_sampler(SamplingParams(temperature=0), 1, loop, 512, native)
    assert plain.sample(flat.copy()) == 13
