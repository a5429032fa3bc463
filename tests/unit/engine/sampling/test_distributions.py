"""Every step gives the distribution of its definition, at small and large vocabularies."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from innkeeper.core import DEFAULT_SAMPLER_ORDER, SamplingParams
from innkeeper.engine.sampling.chain import active_steps
from tests.unit.engine.sampling import reference
from tests.unit.engine.sampling.conftest import (
    NEWLINE,
    as_dict,
    assert_same,
    distribution,
    random_logits,
    sampler,
)

Reference = Callable[[reference.Logits], reference.Logits]


def case(name: str, wanted: Reference, **fields: Any) -> Any:
    return pytest.param(fields, wanted, id=name)


CASES = [
    case("plain", lambda z: z),
    case("temperature", partial(reference.temperature, value=0.7), temperature=0.7),
    case(
        "dynamic temperature",
        partial(reference.dynamic_temperature, value=1.0, spread=0.7, exponent=1.4),
        dynatemp_range=0.7,
        dynatemp_exponent=1.4,
    ),
    case(
        "dynamic temperature turned round",
        partial(reference.dynamic_temperature, value=1.2, spread=-0.5, exponent=1.0),
        temperature=1.2,
        dynatemp_range=-0.5,
    ),
    case("quadratic", partial(reference.quadratic, factor=0.3, curve=1), smoothing_factor=0.3),
    case(
        "quadratic with a curve",
        partial(reference.quadratic, factor=0.2, curve=2.5),
        smoothing_factor=0.2,
        smoothing_curve=2.5,
    ),
    case("top-k", partial(reference.top_k, k=40), top_k=40),
    case("top-k, min_keep", partial(reference.top_k, k=3, min_keep=9), top_k=3, min_keep=9),
    case("top-p", partial(reference.top_p, limit=0.9), top_p=0.9),
    case(
        "top-p, min_keep",
        partial(reference.top_p, limit=0.01, min_keep=30),
        top_p=0.01,
        min_keep=30,
    ),
    case("min-p", partial(reference.min_p, ratio=0.05), min_p=0.05),
    case(
        "min-p, min_keep", partial(reference.min_p, ratio=0.9, min_keep=20), min_p=0.9, min_keep=20
    ),
    case("top-a", partial(reference.top_a, a=0.6), top_a=0.6),
    case("tail-free", partial(reference.tail_free, z=0.95), tfs=0.95),
    case("tail-free, nearly all", partial(reference.tail_free, z=0.99999), tfs=0.99999),
    case(
        "tail-free, min_keep",
        partial(reference.tail_free, z=0.1, min_keep=50),
        tfs=0.1,
        min_keep=50,
    ),
    case("typical", partial(reference.typical_p, limit=0.6), typical_p=0.6),
    case(
        "typical, min_keep",
        partial(reference.typical_p, limit=0.01, min_keep=25),
        typical_p=0.01,
        min_keep=25,
    ),
    case("epsilon", partial(reference.epsilon_cutoff, epsilon=1e-3), epsilon_cutoff=1e-3),
    case("epsilon above all", partial(reference.epsilon_cutoff, epsilon=0.99), epsilon_cutoff=0.99),
    case("eta", partial(reference.eta_cutoff, epsilon=2e-3), eta_cutoff=2e-3),
    case("top-n-sigma", partial(reference.top_n_sigma, n=1.1), top_n_sigma=1.1),
    case("xtc", partial(reference.xtc, threshold=0.01), xtc_probability=1.0, xtc_threshold=0.01),
    case("skew to the tail", partial(reference.skew, amount=0.5), skew=0.5),
    case("skew to the head", partial(reference.skew, amount=-0.8), skew=-0.8),
    case(
        "adaptive-p",
        partial(reference.adaptive_p, target=0.3, decay=0.9, drawn=()),
        adaptive_target=0.3,
    ),
    case(
        "mirostat 2",
        partial(reference.mirostat_v2, mu=6.0),
        mirostat=2,
        mirostat_tau=3.0,
    ),
]


@pytest.mark.parametrize("num_vocab", [512, 32_000, 152_000])
@pytest.mark.parametrize(("fields", "wanted"), CASES)
def test_step_follows_its_definition(
    fields: dict[str, Any], wanted: Reference, num_vocab: int
) -> None:
    logits = random_logits(num_vocab, seed=num_vocab)
    found = distribution(sampler(num_vocab, **fields), logits)
    assert_same(found, wanted(as_dict(logits)))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("fields", "wanted"), CASES)
def test_step_follows_its_definition_at_every_spread(
    fields: dict[str, Any], wanted: Reference, seed: int
) -> None:
    logits = random_logits(300, seed, spread=[0.1, 0.5, 1, 2, 5, 12][seed % 6])
    assert_same(distribution(sampler(300, **fields), logits), wanted(as_dict(logits)))


@pytest.mark.parametrize("num_vocab", [512, 32_000, 152_000])
@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_mirostat_1_follows_its_definition(num_vocab: int, tau: float) -> None:
    logits = random_logits(num_vocab, seed=num_vocab)
    found = distribution(sampler(num_vocab, mirostat=1, mirostat_tau=tau), logits)
    assert_same(found, reference.mirostat_v1(as_dict(logits), 2 * tau, num_vocab))


@pytest.mark.parametrize("seed", range(30))
def test_steps_apply_in_the_asked_for_order(seed: int) -> None:
    random = np.random.default_rng(seed)
    steps: dict[str, tuple[dict[str, Any], Reference]] = {
        "temperature": ({"temperature": 1.7}, partial(reference.temperature, value=1.7)),
        "top_p": ({"top_p": 0.8}, partial(reference.top_p, limit=0.8)),
        "min_p": ({"min_p": 0.02}, partial(reference.min_p, ratio=0.02)),
        "top_k": ({"top_k": 60}, partial(reference.top_k, k=60)),
        "typical_p": ({"typical_p": 0.9}, partial(reference.typical_p, limit=0.9)),
        "tfs": ({"tfs": 0.98}, partial(reference.tail_free, z=0.98)),
        "top_n_sigma": ({"top_n_sigma": 2.0}, partial(reference.top_n_sigma, n=2.0)),
        "quadratic_sampling": (
            {"smoothing_factor": 0.1},
            partial(reference.quadratic, factor=0.1, curve=1),
        ),
        "penalties": (
            {"repetition_penalty": 1.3},
            lambda z: reference.penalties(z, [1, 2, 3], repetition=1.3),
        ),
    }
    order = tuple(random.permutation(list(steps)).tolist())
    logits = random_logits(800, seed)
    wanted = as_dict(logits)
    fields: dict[str, Any] = {"order": order}
    for name in order:
        fields |= steps[name][0]
        known = {i: wanted.get(i, -math.inf) for i in (1, 2, 3)}
        wanted = steps[name][1]({**known, **wanted} if name == "penalties" else wanted)
        wanted = {i: z for i, z in wanted.items() if z > -math.inf}
    assert_same(distribution(sampler(800, [1, 2, 3], **fields), logits), wanted)


def test_top_p_and_min_p_in_one_equal_the_two_apart() -> None:
    for seed in range(50):
        logits = random_logits(2_000, seed, spread=[1, 3, 8][seed % 3])
        wanted = reference.min_p(reference.top_p(as_dict(logits), 0.9), 0.03)
        found = distribution(sampler(2_000, top_p=0.9, min_p=0.03), logits)
        assert found.keys() == wanted.keys()


def test_equal_logits_are_cut_by_id() -> None:
    flat = np.zeros(1_000, np.float32)
    assert sorted(distribution(sampler(1_000, top_k=7), flat)) == list(range(7))
    assert sorted(distribution(sampler(1_000, top_p=0.0105), flat)) == list(range(11))


def test_banned_tokens_never_come_back() -> None:
    biases = {3: -math.inf, 9: 100.0}
    for fields in [{}, {"top_k": 600, "min_keep": 600}, {"typical_p": 0.99}, {"tfs": 0.99}]:
        found = distribution(sampler(512, logit_bias=biases, **fields), random_logits(512, 1))
        assert 3 not in found
        assert next(iter(found)) == 9


def test_xtc_leaves_a_protected_token_and_all_others_alone() -> None:
    logits = np.zeros(512, np.float32)
    logits[[NEWLINE, 65, 66]] = [9.0, 8.5, 8.0]
    fields = {"xtc_probability": 1.0, "xtc_threshold": 0.1}
    assert 65 not in distribution(sampler(512, **fields), logits)
    assert {NEWLINE, 65, 66} <= distribution(
        sampler(512, xtc_protect=True, **fields), logits
    ).keys()
    logits[NEWLINE] = 7.9  # it would be the one that stays, so nothing protected is lost
    found = distribution(sampler(512, xtc_protect=True, **fields), logits)
    assert NEWLINE in found and 65 not in found


def test_greedy_takes_the_best_after_biases_and_penalties() -> None:
    logits = np.zeros(512, np.float32)
    logits[[7, 8]] = [2.0, 1.9]
    assert sampler(512, temperature=0).sample(logits.copy()) == 7
    assert sampler(512, [7], temperature=0, repetition_penalty=1.5).sample(logits.copy()) == 8
    assert sampler(512, temperature=0, xtc_probability=1.0).sample(logits.copy()) == 7


@pytest.mark.parametrize("num_vocab", [512, 32_000, 152_000])
@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_follows_its_definition_while_the_reply_grows(
    version: int, num_vocab: int
) -> None:
    define = {1: partial(reference.mirostat_v1, num_vocab=num_vocab), 2: reference.mirostat_v2}
    tau, eta, mu = 3.0, 0.3, 6.0
    made = sampler(num_vocab, mirostat=version, mirostat_tau=tau, mirostat_eta=eta)
    for step in range(5):
        logits = random_logits(num_vocab, seed=step)
        token = made.sample(logits.copy())
        kept = define[version](as_dict(logits), mu=mu)
        assert token in kept
        mu -= eta * (-math.log2(reference.softmax(kept)[token]) - tau)
        made.accept(token)
    logits = random_logits(num_vocab, seed=99)
    assert_same(distribution(made, logits), define[version](as_dict(logits), mu=mu))


def test_every_step_has_a_definition_to_follow() -> None:
    """Here, or in ``test_penalties``, at all three sizes."""
    held = {step for case in CASES for step in active_steps(SamplingParams(**case.values[0]))}
    penalties = {"penalties", "encoder_repetition_penalty", "no_repeat_ngram", "dry"}
    assert held | penalties == set(DEFAULT_SAMPLER_ORDER)
