"""The table of fields: aliases, off values, ranges, warnings."""

import math
from typing import Any

import pytest

from innkeeper.api import fields, requests
from innkeeper.api.sampler_order import sampler_order, step_names
from innkeeper.core import DEFAULT_SAMPLER_ORDER, SamplingParams
from innkeeper.core.presets import with_preset
from innkeeper.errors import InvalidRequestError


def sampling(**body: Any) -> SamplingParams:
    return fields.sampling(fields.resolve(body))[0]


def test_nothing_given_is_plain_sampling() -> None:
    assert sampling() == SamplingParams(xtc_protect=True)


@pytest.mark.parametrize("field", fields.FIELDS, ids=lambda field: field.target)
def test_every_alias_means_the_same(field: fields.Field) -> None:
    samples: list[Any] = [True, 1, 0.5, [1], ["a"], {"1": 1}, "1", "exact", "min-p", list(range(7))]
    for sample in samples:
        try:
            wanted = field.read(field.target, sample)
        except InvalidRequestError:
            continue
        for name in field.names:
            assert fields.resolve({name: sample}) == {field.target: wanted}
        return
    pytest.fail("no sample value fits this field")


def test_first_name_that_is_not_off_wins() -> None:
    assert fields.resolve({"rep_pen": 1.2, "repetition_penalty": 1})["repetition_penalty"] == 1.2
    assert fields.resolve({"rep_pen": 1.2, "repetition_penalty": 1.1})["repetition_penalty"] == 1.1
    assert fields.resolve({"top_n_sigma": 0, "nsigma": 1.5})["top_n_sigma"] == 1.5


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"do_sample": False, "temperature": 2}, {"temperature": 0.0}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"top_k": 40.0}, {"top_k": 40}),
        ({"top_k": "40"}, {"top_k": 40}),
        ({"temperature": "0.7"}, {"temperature": 0.7}),
        ({"rep_pen_range": 0}, {"penalty_range": -1, "dry_range": -1}),
        ({"rep_pen_range": 600}, {"penalty_range": 600, "dry_range": 600}),
        ({"dry_penalty_last_n": 0, "repeat_last_n": 64}, {"dry_range": 64}),
        ({"dry_penalty_last_n": 32, "repeat_last_n": 64}, {"dry_range": 32}),
        ({"adaptive_target": -0.01}, {"adaptive_target": -1.0}),
        ({"adaptive_target": 0}, {"adaptive_target": -1.0}),
        ({"adaptive_target": 0.3}, {"adaptive_target": 0.3}),
        ({"nsigma": 0}, {"top_n_sigma": 0.0}),
        ({"top_n_sigma": -1}, {"top_n_sigma": 0.0}),
        ({"seed": -1}, {"seed": None}),
        ({"sampler_seed": 5}, {"seed": 5}),
        ({"ignore_eos": True}, {"ban_eos": True}),
        ({"min_length": 5}, {"min_tokens": 5}),
        ({"dry_sequence_breakers": '["\\n", ":"]'}, {"dry_breakers": ("\n", ":")}),
        ({"dry_sequence_breakers": '"\\n", "*"'}, {"dry_breakers": ("\n", "*")}),
        ({"dry_sequence_breakers": ["a", ""]}, {"dry_breakers": ("a",)}),
        ({"custom_token_bans": "1,2, 3"}, {"logit_bias": dict.fromkeys((1, 2, 3), -math.inf)}),
        ({"custom_token_bans": ""}, {"logit_bias": {}}),
        ({"logit_bias": {"7": -2, "8": False}}, {"logit_bias": {7: -2.0, 8: -math.inf}}),
        ({"logit_bias": [[7, 1.5]]}, {"logit_bias": {7: 1.5}}),
        ({"mirostat": 2, "mirostat_mode": 0}, {"mirostat": 2}),
        ({"epsilon_cutoff": 3, "eta_cutoff": 6}, {"epsilon_cutoff": 3e-4, "eta_cutoff": 6e-4}),
        ({"rep_pen_slope": 0}, {"repetition_slope": 1.0}),
        ({"rep_pen_slope": 0.7}, {"repetition_slope": 0.7}),
        ({"no_repeat_ngram_size": 3}, {"no_repeat_ngram": 3}),
        ({"tfs": 1.0, "tfs_z": 0.9}, {"tfs": 0.9}),
        (
            {"dynamic_temperature": True, "dynatemp_low": 0.5, "dynatemp_high": 1.5},
            {"temperature": 1.0, "dynatemp_range": 0.5},
        ),
        (
            {"dynatemp_range": 0.25, "temperature": 0.8},
            {"temperature": 0.8, "dynatemp_range": 0.25},
        ),
        ({"dynatemp_range": 0.25, "dynamic_temperature": False}, {"dynatemp_range": 0.0}),
    ],
)
def test_values_mean_what_clients_mean(body: dict[str, Any], expected: dict[str, Any]) -> None:
    found = sampling(**body)
    assert {name: getattr(found, name) for name in expected} == expected


def test_null_is_absent() -> None:
    assert fields.resolve(dict.fromkeys(("temperature", "stop", "seed", "max_tokens"))) == {}


BAD = [
    math.nan,
    math.inf,
    1e400,
    10**40,
    "hot",
    True,
    [],
    {},
    [[[]]],
]


@pytest.mark.parametrize("field", fields.FIELDS, ids=lambda field: field.target)
def test_bad_values_name_their_field(field: fields.Field) -> None:
    refused = 0
    for name in field.names:
        for value in BAD:
            try:
                fields.sampling(fields.resolve({name: value}))
            except InvalidRequestError as error:
                refused += 1
                assert error.field == name
                assert len(error.message) < 300
    assert refused >= 4 * len(field.names)


def test_message_holds_value_and_limit() -> None:
    with pytest.raises(InvalidRequestError, match=r"top_p must be a number from 0 to 1, not 1\.5"):
        fields.resolve({"top_p": 1.5})


def test_long_values_are_shortened() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        fields.resolve({"temperature": "x" * 10_000_000})
    assert len(caught.value.message) < 200


NOT_OFF = {
    "penalty_alpha": 0.6,
    "num_beams": 4,
    "length_penalty": 2,
    "early_stopping": True,
    "max_tokens_second": 5,
    "include_reasoning": False,
    "best_of": 3,
    "tools": [{"type": "function"}],
}


@pytest.mark.parametrize("name", NOT_OFF)
def test_what_cannot_be_applied_is_reported(name: str) -> None:
    (warning,) = fields.not_applied({name: NOT_OFF[name]})
    assert warning.startswith(f"not applied: {name} = ")


def test_off_values_are_not_worth_a_word() -> None:
    off = {field.target: field.off[0] or None for field in fields.NOT_APPLIED}
    off |= {"early_stopping": False}
    assert fields.not_applied({**off, "rep_pen_slope": 1, "api_type": "ooba", "user": "me"}) == ()


def test_unknown_fields_are_listed_once() -> None:
    (warning,) = fields.not_applied({"frobnicate": 1, "temperature": 1, "<b>": 2})
    assert warning == "unknown fields ignored: 'frobnicate', '<b>'"


def test_stop_lists_join_without_repeats() -> None:
    found = fields.resolve({"stop": "a", "stopping_strings": ["b", "a", ""]})
    assert fields.stop_texts(found) == ("a", "b")


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        ({}, 512),
        ({"max_tokens": 0}, 0),
        ({"max_new_tokens": 5}, 5),
        ({"n_predict": -1}, None),
        ({"max_tokens": 5, "auto_max_new_tokens": True}, None),
    ],
)
def test_max_tokens(body: dict[str, Any], limit: int | None) -> None:
    assert fields.max_tokens(fields.resolve(body), 512) == limit


@pytest.mark.parametrize(
    ("length", "limit", "kept"),
    [(8192, 350, 7842), (0, 350, None), (100, 100, 100), (100, None, 100)],
)
def test_truncation_leaves_room_for_the_reply(
    length: int, limit: int | None, kept: int | None
) -> None:
    assert fields.truncate_to({"truncation_length": length}, limit) == kept


def test_dynatemp_bounds_must_be_in_order() -> None:
    with pytest.raises(InvalidRequestError, match="dynatemp_low"):
        sampling(dynamic_temperature=True, dynatemp_low=2, dynatemp_high=1)


SILLY_TAVERN_ORDER = (
    "repetition_penalty presence_penalty frequency_penalty dry temperature dynamic_temperature"
    " quadratic_sampling top_n_sigma top_k top_p typical_p epsilon_cutoff eta_cutoff tfs top_a"
    " min_p adaptive_p mirostat xtc encoder_repetition_penalty no_repeat_ngram"
).split()


def test_priority_names_become_steps_in_order() -> None:
    order, warnings = sampler_order(SILLY_TAVERN_ORDER, temperature_last=False)
    expected = [name for name in SILLY_TAVERN_ORDER if name != "dynamic_temperature"]
    assert [step for step in order if step in expected] == [
        *(name for name in expected if name not in ("adaptive_p", "mirostat")),
        *("adaptive_p", "mirostat"),
    ]
    assert warnings == ()


def test_temperature_last_moves_it_behind_truncation() -> None:
    order, _ = sampler_order(SILLY_TAVERN_ORDER, temperature_last=True)
    assert order[-4:] == ("temperature", "quadratic_sampling", "adaptive_p", "mirostat")


def test_order_always_holds_every_step() -> None:
    order, warnings = sampler_order(
        step_names("sampler_priority", "min_p\ntemperature\nwarp"), temperature_last=False
    )
    assert order[:2] == ("min_p", "temperature")
    assert sorted(order) == sorted(DEFAULT_SAMPLER_ORDER)
    assert warnings == ("sampler_priority: 'warp' is no sampler",)
    assert sampler_order((), temperature_last=False)[0] == DEFAULT_SAMPLER_ORDER


def test_a_preset_stands_for_all_samplers_but_not_for_bans_and_seeds() -> None:
    body = {"preset": "dry-xtc", "top_k": 5, "temperature": 3, "seed": 7, "ban_eos_token": True}
    found = requests.build(body, prompt="x").sampling
    assert found == with_preset(SamplingParams(seed=7, ban_eos=True), "dry-xtc")
    assert found.dry_multiplier == 0.8 and found.top_k == 0
    with pytest.raises(InvalidRequestError, match=r"preset must be one of .*mirostat"):
        requests.build({"preset": "nobody's"}, prompt="x")
