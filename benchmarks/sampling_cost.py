"""What does choosing a token cost beside the forward pass, at a vocabulary of 152k?

    python benchmarks/sampling_cost.py

Each preset draws tokens from the same logits over a history of 8,192 tokens and learns each. Two
kinds of logits: ``peaked``, as a trained model gives (a few likely tokens over a low noise), and
``flat``, where thousands of tokens are in play.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.report import Table
from innkeeper.core import SamplingParams
from innkeeper.engine.runner import Logits
from innkeeper.engine.sampling import TokenSampler, build_sampler
from innkeeper.engine.vocabulary import Vocabulary

NUM_VOCAB, NUM_HISTORY, NUM_TOKENS = 152_000, 8_192, 60

PRESETS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "plain": {},
    "chat: top-p .95, min-p .01, penalty 1.1": {
        "top_p": 0.95,
        "min_p": 0.01,
        "repetition_penalty": 1.1,
    },
    "chat, temperature .8 first": {
        "order": ("penalties", "temperature", "top_k", "top_p", "min_p"),
        "temperature": 0.8,
        "top_p": 0.95,
        "min_p": 0.01,
        "repetition_penalty": 1.1,
    },
    "min-p .05": {"min_p": 0.05},
    "top-k 40, top-p .95": {"top_k": 40, "top_p": 0.95},
    "top-p .95 alone": {"top_p": 0.95},
    "DRY .8 + XTC .5 + min-p .05": {
        "dry_multiplier": 0.8,
        "xtc_probability": 0.5,
        "min_p": 0.05,
    },
    "mirostat 2": {"mirostat": 2},
    "mirostat 1": {"mirostat": 1},
    "adaptive-p .4 + min-p .02": {"adaptive_target": 0.4, "min_p": 0.02},
    "typical .95": {"typical_p": 0.95},
    "tail-free .95": {"tfs": 0.95},
    "top-n-sigma 1": {"top_n_sigma": 1.0},
    "quadratic .3": {"smoothing_factor": 0.3},
    "dynamic temperature .5 to 1.5": {"dynatemp_range": 0.5},
}


class NumberTokenizer:
    """Tokens are numbers; only DRY's breakers ask for their text."""

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, tokens: Sequence[int]) -> str:
        return " ".join(map(str, tokens))

    def piece(self, token_id: int, *, special: bool) -> bytes:
        return chr(token_id).encode() if token_id < 128 else b"%d" % token_id


def peaked(random: np.random.Generator) -> Logits:
    logits = random.standard_normal(NUM_VOCAB).astype(np.float32)
    likely = random.integers(0, NUM_VOCAB, 200)
    logits[likely] += np.linspace(18, 4, 200, dtype=np.float32)
    return logits


def flat(random: np.random.Generator) -> Logits:
    return 3 * random.standard_normal(NUM_VOCAB).astype(np.float32)


def cost_ms(sampler: TokenSampler, make: Callable[[np.random.Generator], Logits]) -> list[float]:
    random = np.random.default_rng(1)
    some = [make(random) for _ in range(8)]
    costs = []
    for index in range(NUM_TOKENS):
        logits = some[index % len(some)].copy()
        started = time.perf_counter()
        sampler.accept(sampler.sample(logits))
        costs.append((time.perf_counter() - started) * 1000)
    return costs[4:]


def main() -> None:
    vocabulary = Vocabulary(NumberTokenizer(), NUM_VOCAB, (0,))
    history = np.random.default_rng(0).zipf(1.3, NUM_HISTORY) % NUM_VOCAB
    table = Table("preset", "peaked, ms a token (least)", "flat, ms a token (least)")
    for name, fields in PRESETS.items():
        cells = []
        for make in (peaked, flat):
            params = SamplingParams(**fields)
            costs = cost_ms(build_sampler(params, 1, history.tolist(), vocabulary), make)
            cells.append(f"{statistics.median(costs):.2f} ({min(costs):.2f})")
        table.add(name, *cells)
    print(table.markdown("median of 56 tokens"))


if __name__ == "__main__":
    main()
