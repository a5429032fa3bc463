"""Draws follow the distribution, seeds repeat them, and the steps that draw keep their aim."""

import math
from typing import Any

import numpy as np
import pytest

from innkeeper.core import SamplingParams
from innkeeper.engine.sampling import active_steps
from innkeeper.engine.sampling.candidates import Candidates
from innkeeper.engine.sampling.drawing import draw
from innkeeper.errors import EngineError, InvalidRequestError
from tests.unit.engine.sampling import reference
from tests.unit.engine.sampling.conftest import (
    as_dict,
    assert_same,
    distribution,
    random_logits,
    sampler,
)

NUM_DRAWS = 4_000


def shares(draws: list[int], num_vocab: int) -> np.ndarray[Any, Any]:
    return np.bincount(draws, minlength=num_vocab) / len(draws)


def assert_drawn_from(draws: list[int], p: reference.Logits) -> None:
    """No share is more than five standard deviations off; the rare tokens count as one."""
    found = shares(draws, max(p) + 1)
    common = [token for token, share in p.items() if share * len(draws) > 20]
    pairs = [(float(found[token]), p[token]) for token in common]
    pairs.append((1 - sum(seen for seen, _ in pairs), 1 - sum(share for _, share in pairs)))
    for seen, share in pairs:
        deviation = math.sqrt(max(0.0, share * (1 - share)) / len(draws))
        assert abs(seen - share) < 5 * deviation + 1e-9


@pytest.mark.parametrize("num_vocab", [8, 512, 2_000])
def test_draw_follows_the_probabilities(num_vocab: int) -> None:
    logits = random_logits(num_vocab, 4, spread=2)
    made = sampler(num_vocab)
    draws = [made.sample(logits.copy()) for _ in range(NUM_DRAWS)]
    assert_drawn_from(draws, reference.softmax(as_dict(logits)))


def test_draw_is_the_inverse_of_the_cumulative_probability() -> None:
    candidates = Candidates(3_000)
    candidates.begin(random_logits(3_000, 8))
    total = np.cumsum(candidates.probabilities())
    for uniform in np.linspace(0, 0.999999, 500):
        index = draw(candidates, float(uniform))
        assert total[index] >= uniform - 1e-6
        assert index == 0 or total[index - 1] <= uniform + 1e-6


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_draw_never_ends_on_a_token_without_mass(uniform: float) -> None:
    logits = np.full(2_000, -np.inf, np.float32)
    logits[[700, 701, 1_300]] = 0.0
    candidates = Candidates(2_000)
    candidates.begin(logits)
    assert draw(candidates, uniform) in (700, 701, 1_300)


def test_skewed_draw_equals_the_warped_uniform_number() -> None:
    logits = random_logits(40, 3, spread=2)
    made = sampler(40, skew=0.9)
    draws = [made.sample(logits.copy()) for _ in range(NUM_DRAWS)]
    p, order = reference.softmax(as_dict(logits)), reference.ranked(as_dict(logits))
    total = np.cumsum([p[token] for token in order])
    warped = np.random.default_rng(9).random(200_000) ** math.exp(-0.9)
    wanted = np.bincount(np.minimum(np.searchsorted(total, warped), 39), minlength=40) / 200_000
    assert_drawn_from(draws, dict(zip(order, wanted.tolist(), strict=True)))


def test_xtc_acts_as_often_as_it_is_told() -> None:
    logits = np.full(512, -30.0, np.float32)
    logits[[1, 2]] = [1.0, 0.5]
    made = sampler(512, xtc_probability=0.3, xtc_threshold=0.2)
    draws = [made.sample(logits.copy()) for _ in range(NUM_DRAWS)]
    first = reference.softmax(as_dict(logits))[1]
    assert_drawn_from(draws, {1: 0.7 * first, 2: 1 - 0.7 * first})


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tau", [2.0, 4.0])
def test_mirostat_holds_the_surprise(version: int, tau: float) -> None:
    made = sampler(2_000, mirostat=version, mirostat_tau=tau, mirostat_eta=0.1, order=("mirostat",))
    surprises = []
    for step in range(1_500):
        logits = random_logits(2_000, step % 50, spread=2.5)
        ids, p = made.distribution(logits.copy())
        token = made.sample(logits)
        surprises.append(-math.log2(float(p[ids.tolist().index(token)])))
        made.accept(token)
    assert abs(np.mean(surprises[300:]) - tau) < 0.15


@pytest.mark.parametrize("target", [0.2, 0.5])
def test_adaptive_p_draws_tokens_of_its_probability(target: float) -> None:
    made = sampler(100, adaptive_target=target, adaptive_decay=0.9, min_p=0.05)
    random = np.random.default_rng(4)
    drawn: list[float] = []
    for step in range(800):
        slope = float(random.uniform(0.2, 2.5))  # the likeliest token has 0.2 to 0.9
        logits = (-slope * random.permutation(100)).astype(np.float32)
        before = reference.min_p(as_dict(logits), 0.05)
        if step in (0, 1, 7, 100):
            wanted = reference.adaptive_p(before, target, 0.9, drawn)
            assert_same(distribution(made, logits), wanted)
        token = made.sample(logits)
        made.accept(token)
        drawn.append(reference.softmax(before)[token])
    assert abs(np.mean(drawn[50:]) - target) < 0.07


@pytest.mark.parametrize("fields", [{"mirostat": 1}, {"mirostat": 2}, {"adaptive_target": 0.4}])
def test_steps_that_draw_go_back_with_the_tokens(fields: dict[str, Any]) -> None:
    made = sampler(512, **fields)
    seen = []
    for step in range(20):
        logits = random_logits(512, step)
        seen.append(distribution(made, logits))
        made.accept(made.sample(logits.copy()))
    made.rewind(8)
    assert distribution(made, random_logits(512, 12)) == seen[12]
    assert distribution(made, random_logits(512, 12)) != seen[0]


def test_seed_repeats_every_draw() -> None:
    def run(seed: int) -> list[int]:
        made = sampler(512, seed=seed, xtc_probability=0.5, xtc_threshold=0.01, temperature=1.5)
        draws = []
        for step in range(40):
            draws.append(made.sample(random_logits(512, step)))
            made.accept(draws[-1])
        return draws

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_steps_that_draw_come_last_and_mirostat_wins() -> None:
    params = SamplingParams(
        order=("adaptive_p", "mirostat", "top_k", "skew"),
        adaptive_target=0.5,
        mirostat=2,
        top_k=5,
        skew=0.2,
    )
    assert active_steps(params) == ["top_k", "skew", "mirostat"]


def test_steps_that_are_off_are_not_there() -> None:
    assert active_steps(SamplingParams()) == []
    assert active_steps(SamplingParams(temperature=0, top_k=5, dry_multiplier=1)) == ["dry"]


def test_unknown_step_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequestError, match="'top_x'") as caught:
        active_steps(SamplingParams(order=("top_k", "top_x")))
    assert caught.value.field == "sampler_priority"


def test_everything_banned_is_refused() -> None:
    biases = dict.fromkeys(range(64), -math.inf)
    with pytest.raises(InvalidRequestError, match="every token is banned"):
        sampler(64, logit_bias=biases).sample(random_logits(64, 1))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("fields", [{}, {"top_k": 5}, {"top_p": 0.5}, {"temperature": 0}])
def test_broken_logits_are_an_error_and_no_hang(value: float, fields: dict[str, Any]) -> None:
    logits = random_logits(64, 1)
    logits[7] = value
    with pytest.raises(EngineError, match="best logit"):
        sampler(64, **fields).sample(logits)


@pytest.mark.parametrize(
    "fields",
    [
        {"smoothing_factor": 0.3},
        {"smoothing_factor": 0.3, "smoothing_curve": 2.0},
        {"dynatemp_range": 0.5},
        {"typical_p": 0.9},
        {"eta_cutoff": 0.001},
        {"top_n_sigma": 1.0},
        {"tfs": 0.9},
        {"top_p": 0.9},
        {"skew": 0.3},
        {"mirostat": 1},
        {"mirostat": 2},
        {"adaptive_target": 0.3},
        {"xtc_probability": 1.0},
    ],
)
def test_token_that_a_penalty_has_forbidden_stays_so(fields: dict[str, Any]) -> None:
    history = [5] * 200
    order = ("temperature", "dry", *SamplingParams().order)
    made = sampler(
        64, history, order=order, temperature=1.1, dry_multiplier=100.0, dry_base=4.0, **fields
    )
    found = distribution(made, random_logits(64, 1))
    assert found.get(5, 0.0) == 0.0
    assert math.isclose(sum(found.values()), 1.0, abs_tol=1e-5)


def test_bias_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="512") as caught:
        sampler(512, logit_bias={512: 1.0})
    assert caught.value.field == "logit_bias"
