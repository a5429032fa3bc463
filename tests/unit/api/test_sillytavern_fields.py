"""Each of the 71 fields that SillyTavern's ``ooba`` type sends does something, or says so."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from innkeeper.api import completions
from innkeeper.core import GenerateRequest

FRESH: dict[str, Any] = {
    "prompt": "Once",
    "max_new_tokens": 350,
    "max_tokens": 350,
    "temperature": 1,
    "top_p": 0.95,
    "typical_p": 1,
    "typical": 1,
    "min_p": 0.01,
    "repetition_penalty": 1.1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "top_k": 0,
    "skew": 0,
    "min_length": 0,
    "min_tokens": 0,
    "num_beams": 1,
    "length_penalty": 1,
    "early_stopping": False,
    "add_bos_token": True,
    "smoothing_factor": 0,
    "smoothing_curve": 1,
    "dry_allowed_length": 2,
    "dry_multiplier": 0,
    "dry_base": 1.75,
    "dry_sequence_breakers": '["\\n",":","\\"","*"]',
    "dry_penalty_last_n": 0,
    "max_tokens_second": 0,
    "sampler_priority": ["repetition_penalty", "dry", "temperature", "top_k", "min_p", "xtc"],
    "stopping_strings": ["\nUser:", "\n***"],
    "stop": ["\nUser:", "\n***"],
    "truncation_length": 8192,
    "ban_eos_token": False,
    "skip_special_tokens": True,
    "include_reasoning": True,
    "top_a": 0,
    "tfs": 1,
    "epsilon_cutoff": 0,
    "eta_cutoff": 0,
    "mirostat_mode": 0,
    "mirostat_tau": 5,
    "mirostat_eta": 0.1,
    "custom_token_bans": "",
    "banned_strings": [],
    "api_type": "ooba",
    "api_server": "http://127.0.0.1:5000/",
    "xtc_threshold": 0.1,
    "xtc_probability": 0,
    "nsigma": 0,
    "top_n_sigma": 0,
    "min_keep": 0,
    "adaptive_target": -0.01,
    "adaptive_decay": 0.9,
    "rep_pen": 1.1,
    "rep_pen_range": 0,
    "repetition_penalty_range": 0,
    "encoder_repetition_penalty": 1,
    "no_repeat_ngram_size": 0,
    "penalty_alpha": 0,
    "temperature_last": True,
    "do_sample": True,
    "guidance_scale": 1,
    "negative_prompt": "",
    "repeat_penalty": 1.1,
    "repeat_last_n": 0,
    "n_predict": 350,
    "num_predict": 350,
    "num_ctx": 8192,
    "mirostat": 0,
    "ignore_eos": False,
    "rep_pen_slope": 1,
    "stream": True,
}

CHANGED: dict[str, Any] = {
    "prompt": "Twice",
    "max_new_tokens": 20,
    "max_tokens": 20,
    "temperature": 0.5,
    "top_p": 0.5,
    "typical_p": 0.5,
    "typical": 0.5,
    "min_p": 0.2,
    "repetition_penalty": 1.3,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "top_k": 40,
    "skew": 0.5,
    "min_length": 5,
    "min_tokens": 5,
    "num_beams": 4,
    "length_penalty": 2,
    "early_stopping": True,
    "add_bos_token": False,
    "smoothing_factor": 0.3,
    "smoothing_curve": 2,
    "dry_allowed_length": 4,
    "dry_multiplier": 0.8,
    "dry_base": 2,
    "dry_sequence_breakers": '["x"]',
    "dry_penalty_last_n": 50,
    "max_tokens_second": 5,
    "sampler_priority": ["temperature", "top_p", "dry"],
    "stopping_strings": ["\nBob:"],
    "stop": ["\nBob:"],
    "truncation_length": 1024,
    "ban_eos_token": True,
    "skip_special_tokens": False,
    "include_reasoning": False,
    "top_a": 0.2,
    "tfs": 0.9,
    "epsilon_cutoff": 4,
    "eta_cutoff": 4,
    "mirostat_mode": 2,
    "mirostat_tau": 3,
    "mirostat_eta": 0.2,
    "custom_token_bans": "5,6",
    "banned_strings": ["shivers"],
    "xtc_threshold": 0.2,
    "xtc_probability": 0.5,
    "nsigma": 1,
    "top_n_sigma": 1,
    "min_keep": 2,
    "adaptive_target": 0.4,
    "adaptive_decay": 0.5,
    "rep_pen": 1.3,
    "rep_pen_range": 64,
    "repetition_penalty_range": 64,
    "encoder_repetition_penalty": 1.2,
    "no_repeat_ngram_size": 3,
    "penalty_alpha": 0.6,
    "temperature_last": False,
    "do_sample": False,
    "guidance_scale": 1.5,
    "negative_prompt": "bad",
    "repeat_penalty": 1.3,
    "repeat_last_n": 64,
    "n_predict": 20,
    "num_predict": 20,
    "num_ctx": 1024,
    "mirostat": 2,
    "ignore_eos": True,
    "rep_pen_slope": 0.7,
    "stream": False,
}
WITHOUT_MEANING = {"api_type", "api_server"}
ALIASES = {
    name: {other for other in group if other != name}
    for group in (
        {"max_new_tokens", "max_tokens", "n_predict", "num_predict"},
        {"typical_p", "typical"},
        {"repetition_penalty", "rep_pen", "repeat_penalty"},
        {"truncation_length", "num_ctx"},
    )
    for name in group
}


def parsed(body: dict[str, Any]) -> tuple[GenerateRequest, bool, tuple[str, ...]]:
    """What the engine gets, whether it streams, and the warnings."""
    call = completions.parse(body)
    (request,) = call.requests
    return msgspec.structs.replace(request, warnings=()), call.stream, request.warnings


def test_fresh_profile_has_71_fields_and_no_warning() -> None:
    assert len(FRESH) == 71
    request, is_streamed, warnings = parsed(FRESH)
    assert warnings == ()
    assert is_streamed
    assert (request.max_tokens, request.truncate_to) == (350, 7842)
    assert request.stop == ("\nUser:", "\n***")
    assert request.sampling.repetition_penalty == 1.1
    last = ("temperature", "quadratic_sampling", "adaptive_p", "mirostat")
    assert request.sampling.order[-4:] == last


@pytest.mark.parametrize("name", sorted(set(FRESH) - WITHOUT_MEANING))
def test_changed_field_changes_the_request_or_is_reported(name: str) -> None:
    body = {key: value for key, value in FRESH.items() if key not in ALIASES.get(name, ())}
    before = parsed(body)
    after = parsed({**body, name: CHANGED[name]})
    if after[:2] == before[:2]:
        (warning,) = after[2]
        assert warning.startswith(f"not applied: {name} = ")
    else:
        assert after[2] == ()


def recorded() -> dict[str, Any]:
    root = Path(__file__).resolve().parents[3]
    folder = Path(os.environ.get("INNKEEPER_SHARED") or root.parent / "shared")
    path = folder / "traces" / "ooba.bodies.json"
    if not path.exists():
        pytest.skip(f"no recorded bodies at {path}")
    bodies: dict[str, Any] = json.loads(path.read_text())["bodies"]
    return bodies


def test_recorded_bodies_parse_without_a_warning() -> None:
    bodies = {step: body for step, body in recorded().items() if "/v1/completions" in step}
    assert len(bodies) >= 10
    for step, recording in bodies.items():
        request, is_streamed, warnings = parsed(recording["body"])
        assert warnings == ()
        assert is_streamed == step.startswith("stream")
        assert request.prompt == recording["body"]["prompt"]


def test_recorded_fields_are_the_ones_tested_here() -> None:
    body = recorded()["stream/send POST /v1/completions"]["body"]
    assert body.keys() == FRESH.keys()
