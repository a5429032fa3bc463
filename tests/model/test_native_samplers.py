"""llama.cpp's C samplers and our numpy steps give the same distribution."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from innkeeper.backends.llama_cpp.tokenizer import LlamaTokenizer
from innkeeper.core import SamplingParams
from innkeeper.engine.runner import Logits
from innkeeper.engine.sampling import build_sampler
from innkeeper.engine.vocabulary import Vocabulary
from tests.model.native_samplers import native_distribution

# llama.cpp has no other steps; mirostat there stands in for every truncation.
ORDER = tuple(
    "penalties dry top_n_sigma top_k typical_p top_p min_p xtc temperature adaptive_p".split()
)
MIROSTAT = ("penalties", "dry", "temperature", "mirostat")

CASES: list[dict[str, Any]] = [
    {"temperature": 0.7},
    {"temperature": 1.3, "dynatemp_range": 0.5, "dynatemp_exponent": 1.5},
    {"top_k": 40},
    {"top_k": 5, "min_keep": 20},
    {"top_p": 0.9},
    {"top_p": 0.5, "min_keep": 10},
    {"min_p": 0.05},
    {"min_p": 0.5, "min_keep": 30},
    {"typical_p": 0.8},
    {"typical_p": 0.2, "min_keep": 12},
    {"top_n_sigma": 1.2},
    {"xtc_probability": 1.0, "xtc_threshold": 0.02},
    {"xtc_probability": 1.0, "xtc_threshold": 0.02, "top_k": 50, "min_keep": 49},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 1.2, "penalty_range": 3},
    {"presence_penalty": 0.8, "frequency_penalty": 0.4},
    {"top_k": 100, "top_p": 0.95, "min_p": 0.01, "temperature": 0.8, "repetition_penalty": 1.1},
    {"order": ("temperature", "top_p", "min_p"), "temperature": 1.5, "top_p": 0.9, "min_p": 0.1},
    {"adaptive_target": 0.3, "min_p": 0.02},
    {"order": MIROSTAT, "mirostat": 1, "mirostat_tau": 3.0},
    {"order": MIROSTAT, "mirostat": 2, "mirostat_tau": 3.0, "temperature": 1.2},
]


@pytest.fixture(scope="module")
def vocab(tiny_llama: Path) -> Iterator[Any]:
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(tiny_llama).encode(), params)
    yield llama_cpp.llama_model_get_vocab(model)
    llama_cpp.llama_model_free(model)


def logits(num_vocab: int, seed: int) -> Logits:
    random = np.random.default_rng(seed)
    values: Logits = (random.standard_normal(num_vocab) * 3).astype(np.float32)
    return values


def ours(vocab: Any, params: SamplingParams, prompt: list[int], values: Logits) -> dict[int, float]:
    tokenizer = LlamaTokenizer(vocab)
    known = Vocabulary(tokenizer, values.size, ())
    known.__dict__["pieces"] = tuple(
        tokenizer.piece(i, special=True) for i in range(tokenizer.num_vocab)
    )
    sampler = build_sampler(params, 1, prompt, known)
    ids, p = sampler.distribution(values)
    return dict(zip(ids.tolist(), p.tolist(), strict=True))


def assert_same(left: dict[int, float], right: dict[int, float]) -> None:
    # llama.cpp adds probabilities up in 32 bits, so a few of the least likely tokens may differ.
    ids = left.keys() | right.keys()
    assert sum(abs(left.get(i, 0.0) - right.get(i, 0.0)) for i in ids) / 2 < 1e-3
    assert len(left.keys() ^ right.keys()) <= max(1, len(ids) // 300)


@pytest.mark.parametrize("num_vocab", [512, 32_000, 152_000])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "+".join(case))
def test_native_steps_equal_ours(vocab: Any, case: dict[str, Any], num_vocab: int) -> None:
    params = SamplingParams(**{"order": ORDER, **case})
    prompt = [1, 5, 5, 7]
    theirs = native_distribution(vocab, params, prompt, logits(num_vocab, seed=num_vocab))
    assert_same(theirs, ours(vocab, params, prompt, logits(num_vocab, seed=num_vocab)))


@pytest.mark.parametrize("seed", range(40))
def test_dry_equals_ours_on_texts_that_repeat(vocab: Any, seed: int) -> None:
    random = np.random.default_rng(seed)
    tokenizer = LlamaTokenizer(vocab)
    words = [" the", " dragon", ":", "\n", " long", " tavern", ' "', "er", "and"]
    text = "".join(random.choice(words, size=int(random.integers(20, 200))))
    prompt = tokenizer.encode(text, add_special=True, parse_special=False)
    params = SamplingParams(
        order=("dry",),
        dry_multiplier=float(random.uniform(0.2, 1.5)),
        dry_base=float(random.choice([1.0, 1.3, 1.75, 3.0])),
        dry_allowed_length=int(random.integers(0, 5)),
        dry_range=int(random.choice([-1, 10, 30])),
        dry_breakers=[(), ("\n", ":", '"', "*"), ("ern t", " long"), ("the dragon",)][seed % 4],
    )
    num_vocab = tokenizer.num_vocab
    theirs = native_distribution(vocab, params, prompt, logits(num_vocab, seed))
    assert_same(theirs, ours(vocab, params, prompt, logits(num_vocab, seed)))
