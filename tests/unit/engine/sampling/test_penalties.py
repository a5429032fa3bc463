"""Penalties, no-repeat n-grams and DRY against their definitions, token by token."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from innkeeper.engine.sampling.dry import suffix_lengths
from innkeeper.engine.vocabulary import Vocabulary
from tests.unit.engine.sampling import reference
from tests.unit.engine.sampling.conftest import (
    LetterTokenizer,
    as_dict,
    assert_same,
    distribution,
    random_logits,
    sampler,
)

Strength = Callable[[int, int], float]


def slope(index: int, size: int) -> float:
    return 1.0 if index >= size // 2 else 0.4


def curve(index: int, size: int) -> float:
    x = 2 * index / (size - 1) - 1 if size > 1 else 1.0
    return (1 + 3 * x / (1 + abs(x) * 2)) / 2


def decay(index: int, size: int) -> float:
    """Of 12 tokens at full strength, and 8 before them."""
    age = size - 1 - index
    return 1.0 if age < 12 else 1 - (age - 11) / 9


CASES: dict[str, tuple[dict[str, Any], int | None, Strength]] = {
    "whole context": ({}, None, lambda index, size: 1.0),
    "range": ({"penalty_range": 20}, 20, lambda index, size: 1.0),
    "slope": ({"penalty_range": 20, "repetition_slope": 0.4}, 20, slope),
    "curve": ({"penalty_range": 20, "repetition_curve": 3.0}, 20, curve),
    "decay": ({"penalty_range": 12, "repetition_decay": 8}, 20, decay),
}
ALL_THREE = {"repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2}


@pytest.mark.parametrize("num_vocab", [512, 32_000, 152_000])
@pytest.mark.parametrize("name", CASES)
def test_penalties_follow_their_definition_while_the_reply_grows(name: str, num_vocab: int) -> None:
    fields, size, strength = CASES[name]
    random = np.random.default_rng(5)
    history = random.integers(0, 40, 15).tolist()
    made = sampler(num_vocab, history, **ALL_THREE, **fields)
    num_tokens = 40 if num_vocab == 512 else 3
    for step in range(num_tokens):
        logits = random_logits(num_vocab, step)
        window = history if size is None else history[-size:]
        wanted = reference.penalties(
            as_dict(logits), window, repetition=1.3, presence=0.4, frequency=0.2, strength=strength
        )
        assert_same(distribution(made, logits), wanted)
        history.append(int(random.integers(0, 40)))
        made.accept(history[-1])


@pytest.mark.parametrize("name", CASES)
def test_penalties_forget_tokens_that_are_taken_back(name: str) -> None:
    fields = CASES[name][0]
    history = np.random.default_rng(6).integers(0, 40, 60).tolist()
    taken_back, never_seen = (
        sampler(512, history[:30], **ALL_THREE, **fields),
        sampler(512, history[:30], **ALL_THREE, **fields),
    )
    for token in history[30:50]:
        taken_back.accept(token)
    taken_back.rewind(15)
    for token in history[30:35]:
        never_seen.accept(token)
    for token in history[50:]:
        taken_back.accept(token)
        never_seen.accept(token)
    logits = random_logits(512, 1)
    assert distribution(taken_back, logits) == distribution(never_seen, logits)


def test_penalties_take_their_own_places_in_the_order() -> None:
    logits = random_logits(512, 2)
    history = [4, 4, 9]
    order = ("presence_penalty", "temperature", "repetition_penalty")
    found = distribution(sampler(512, history, order=order, temperature=2.0, **ALL_THREE), logits)
    wanted = reference.penalties(as_dict(logits), history, presence=0.4)
    wanted = reference.temperature(wanted, 2.0)
    assert_same(found, reference.penalties(wanted, history, repetition=1.3))
    joint = distribution(
        sampler(512, history, order=("penalties", "repetition_penalty"), **ALL_THREE), logits
    )
    wanted = reference.penalties(as_dict(logits), history, presence=0.4, frequency=0.2)
    assert_same(joint, reference.penalties(wanted, history, repetition=1.3))


def test_penalty_after_a_truncation_changes_those_that_are_left() -> None:
    logits = random_logits(512, 3)
    history = list(range(100))
    order = ("top_k", "penalties")
    found = distribution(
        sampler(512, history, order=order, top_k=50, repetition_penalty=1.8), logits
    )
    kept = reference.top_k(as_dict(logits), 50)
    seen = [token for token in history if token in kept]
    assert_same(found, reference.penalties(kept, seen, repetition=1.8))


@pytest.mark.parametrize("num_vocab", [512, 32_000, 152_000])
def test_encoder_penalty_favours_the_prompt_alone(num_vocab: int) -> None:
    logits = random_logits(num_vocab, 3)
    made = sampler(num_vocab, [5, 6, 6], encoder_repetition_penalty=1.6)
    made.accept(200)
    wanted = reference.penalties(as_dict(logits), [5, 6], repetition=1 / 1.6)
    assert_same(distribution(made, logits), wanted)


@pytest.mark.parametrize("num_vocab", [512, 32_000, 152_000])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_no_ngram_comes_twice(size: int, num_vocab: int) -> None:
    history = np.random.default_rng(size).integers(0, 3, 60).tolist()
    logits = random_logits(num_vocab, size)
    found = distribution(sampler(num_vocab, history, no_repeat_ngram=size), logits)
    assert_same(found, reference.no_repeat_ngram(as_dict(logits), history, size))


def test_ngram_ban_gives_way_where_nothing_is_left() -> None:
    history = [1, 2, 1, 2, 1]
    found = distribution(
        sampler(512, history, no_repeat_ngram=2, top_k=1, order=("top_k", "no_repeat_ngram")),
        as_only(2),
    )
    assert list(found) == [2]


def as_only(token_id: int) -> np.ndarray[Any, Any]:
    logits = np.zeros(512, np.float32)
    logits[token_id] = 9
    return logits


@pytest.mark.parametrize("seed", range(60))
def test_dry_follows_its_definition_while_the_reply_grows(seed: int) -> None:
    random = np.random.default_rng(seed)
    num_letters = int(random.integers(1, 5))
    history = random.integers(97, 97 + num_letters, int(random.integers(0, 40))).tolist()
    size = [None, 12, 25][seed % 3]
    breakers = [(), ("a",), ("ab", "c"), ("bb", "abc", "d")][seed % 4]
    fields: dict[str, Any] = {
        "dry_multiplier": 0.7,
        "dry_base": [1.0, 1.75, 2.5][seed % 3],
        "dry_allowed_length": seed % 5,
    }
    made = sampler(
        512, history, dry_range=-1 if size is None else size, dry_breakers=breakers, **fields
    )
    for step in range(30):
        logits = random_logits(512, step)
        wanted = reference.dry(
            as_dict(logits),
            history if size is None else history[-size:],
            *fields.values(),
            [tuple(map(ord, text)) for text in breakers],
        )
        assert_same(distribution(made, logits), wanted)
        history.append(int(random.integers(97, 97 + num_letters)))
        made.accept(history[-1])
        if step % 7 == 6:
            made.rewind(3)
            del history[-3:]


@pytest.mark.parametrize("num_vocab", [32_000, 152_000])
def test_dry_costs_the_same_definition_at_large_vocabularies(num_vocab: int) -> None:
    history = [97, 98, 99, 100] * 6
    logits = random_logits(num_vocab, 1)
    wanted = reference.dry(as_dict(logits), history, 0.8, 1.75, 2)
    found = distribution(sampler(num_vocab, history, dry_multiplier=0.8, dry_breakers=()), logits)
    assert_same(found, wanted)


def test_dry_penalty_of_a_very_long_repeat_stays_finite() -> None:
    made = sampler(512, [97] * 2_000, dry_multiplier=0.8, dry_base=4.0)
    found = distribution(made, random_logits(512, 1))
    assert found.get(97, 0.0) == 0.0 and math.isfinite(sum(found.values()))


def test_dry_is_linear_on_a_text_that_loops() -> None:
    def seconds(size: int) -> float:
        least = math.inf
        for _ in range(3):
            started = time.process_time()
            made = sampler(512, [97] * size, dry_multiplier=0.8)
            for _ in range(20):
                made.accept(97)
                made.sample(random_logits(512, 1))
            least = min(least, time.process_time() - started)
        return least

    assert seconds(32_000) < 12 * max(seconds(4_000), 0.002)


def test_suffix_lengths_are_the_common_ends() -> None:
    for seed in range(30):
        text = np.random.default_rng(seed).integers(0, 2, 30).tolist()
        for end, length in enumerate(suffix_lengths(text), 1):
            longest = next(n for n in range(end, -1, -1) if text[end - n : end] == text[30 - n :])
            assert length == longest


class PairTokenizer(LetterTokenizer):
    """Beside letters, token 300 is "tern" and 301 is ":x"."""

    def piece(self, token_id: int, *, special: bool) -> bytes:
        return {300: b"tern", 301: b":x"}.get(token_id, super().piece(token_id, special=special))


def test_breakers_are_found_inside_tokens_and_across_them() -> None:
    vocabulary = Vocabulary(PairTokenizer(), 400, ())
    colon = vocabulary.breakers((":",))
    assert colon.single == {ord(":"), 301}
    across = vocabulary.breakers(("n long",))
    rest = [ord(letter) for letter in " long"]
    assert across.ending_at([300, *rest], 6) == 6
    assert across.ending_at([ord("n"), *rest], 6) == 6
    assert across.ending_at([ord("m"), *rest], 6) == 0
    assert vocabulary.breakers(("n long",)) is across
