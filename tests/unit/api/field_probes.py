"""Does a field of a request do anything? Asked through the front door, for every dialect.

A probe is a value of one field, and the rest of a body in which that value must show.
``Prober.outcome`` sends the body with and without it. The names to try come from the OpenAPI
document (``names_of``), so that a field nobody probes fails its dialect's table test.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import httpx

from innkeeper.api.fields import FIELDS, Field

Outcome = Literal["changed", "reported", "refused", "lost"]

_UNSTEADY = re.compile(
    r"id|created|created_at|warnings|.*_ms|.*_per_second|.*_duration|prompt_n|cache.*_n"
    r"|restored_n|cached_tokens|tokens_cached|input_tokens|cache_read_input_tokens"
    r"|generation_settings"
)
"""Keys whose values differ between two answers to one request, or only repeat the request."""


class Probe(NamedTuple):
    """``value`` shows where the body has ``given`` too. A null there takes a field out of it."""

    value: Any
    given: Mapping[str, Any] = {}


class Route(NamedTuple):
    """Where fields are sent. body: the least that is answered. inside: the object of the body that
    holds them; empty = the body itself."""

    path: str
    body: Mapping[str, Any]
    inside: str = ""


def renamed(probes: Mapping[str, Probe], table: Iterable[Field]) -> dict[str, Probe]:
    """``probes``, which are by target, for every name in a dialect's ``table``; its own names are
    inside too."""
    first = {field.target: field.names[0] for field in table}
    own = {name: first.get(field.target, name) for field in FIELDS for name in field.names}
    found: dict[str, Probe] = {}
    for field in table:
        if (probe := probes.get(field.target)) is not None:
            given = {own.get(name, name): value for name, value in probe.given.items()}
            found |= dict.fromkeys(field.names, Probe(probe.value, given))
    return found


def names_of(client: httpx.Client, route: Route) -> dict[str, str]:
    """The fields that the OpenAPI document names for ``route``, with what it says of them."""
    operation = client.get("/openapi.json").json()["paths"][route.path]["post"]
    properties = operation["requestBody"]["content"]["application/json"]["schema"]["properties"]
    found = properties[route.inside]["properties"] if route.inside else properties
    return {name: about.get("description", "") for name, about in found.items()}


class Prober:
    """Tries the fields of one route. What the body says without a field is asked once."""

    def __init__(self, client: httpx.Client, route: Route) -> None:
        self._client = client
        self._route = route
        self._plain: dict[str, Any] = {}

    def outcome(self, name: str, probe: Probe) -> Outcome:
        """What ``name`` does: the answer shows it, a warning names it, a refusal (4xx, or 501 for
        what the model cannot do) names it; or nothing at all, which is ``lost``."""
        answer = self._send({**probe.given, name: probe.value})
        if 400 <= answer.status_code < 500 or answer.status_code == 501:
            return "refused" if _mentions(answer.text, name) else "lost"
        answer.raise_for_status()
        shown = _documents(answer)
        if any(_mentions(warning, name) for warning in _warnings(shown)):
            return "reported"
        return "changed" if _steady(shown) != self._without(probe.given) else "lost"

    def seed_outcome(self, name: str, given: Mapping[str, Any]) -> Outcome:
        """The same seed twice is the same reply, another one is another."""
        answers = [self._send({**given, name: value}) for value in (7, 7, 8)]
        first, again, other = [_steady(_documents(answer)) for answer in answers]
        return "changed" if first == again != other else "lost"

    def _without(self, given: Mapping[str, Any]) -> Any:
        key = json.dumps(given)
        if key not in self._plain:
            answer = self._send(given)
            answer.raise_for_status()
            self._plain[key] = _steady(_documents(answer))
        return self._plain[key]

    def _send(self, fields: Mapping[str, Any]) -> httpx.Response:
        path, body, inside = self._route
        if inside:
            fields = {inside: {**body.get(inside, {}), **fields}}
        return self._client.post(path, json={**body, **fields})


def _documents(answer: httpx.Response) -> list[Any]:
    """The JSON of an answer: one document, or those of its events or lines."""
    try:
        return [answer.json()]
    except ValueError:
        lines = [line.removeprefix("data: ") for line in answer.text.splitlines()]
        return [json.loads(line) if line.startswith("{") else line for line in lines if line]


def _warnings(shown: Any) -> Iterator[str]:
    if isinstance(shown, dict):
        yield from (text for text in shown.get("warnings") or () if isinstance(text, str))
        shown = list(shown.values())
    for item in shown if isinstance(shown, list) else ():
        yield from _warnings(item)


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", text) is not None


def _steady(shown: Any) -> Any:
    if isinstance(shown, dict):
        return {k: _steady(v) for k, v in shown.items() if not _UNSTEADY.fullmatch(k)}
    return [_steady(item) for item in shown] if isinstance(shown, list) else shown


_LOOP = {"logit_bias": {"97": 100}}
_DRY = {"dry_multiplier": 9, **_LOOP}
_ENDS = {"logit_bias": {"257": 100}}
_HALF = {"dynamic_temperature": True, "dynatemp_low": 0.1, "dynatemp_high": 3}

SAMPLING: dict[str, Probe] = {
    "max_tokens": Probe(3),
    "auto_max_new_tokens": Probe(True, {"truncation_length": 0}),
    "temperature": Probe(3),
    "do_sample": Probe(False),
    "dynamic_temperature": Probe(True, {"dynatemp_low": 0.1, "dynatemp_high": 3}),
    "dynatemp_low": Probe(2.5, _HALF),
    "dynatemp_high": Probe(0.2, _HALF),
    "dynatemp_range": Probe(1),
    "dynatemp_exponent": Probe(8, _HALF),
    "top_p": Probe(0.3),
    "min_p": Probe(0.5),
    "top_k": Probe(1),
    "typical_p": Probe(0.2),
    "top_n_sigma": Probe(0.1),
    "top_a": Probe(0.9),
    "tfs": Probe(0.2),
    "epsilon_cutoff": Probe(3000),
    "eta_cutoff": Probe(6000),
    "smoothing_factor": Probe(10),
    "smoothing_curve": Probe(9, {"smoothing_factor": 0.3}),
    "skew": Probe(3),
    "xtc_threshold": Probe(0.3, {"xtc_probability": 1}),
    "xtc_probability": Probe(1),
    "repetition_penalty": Probe(3),
    "presence_penalty": Probe(5),
    "frequency_penalty": Probe(5),
    "repetition_penalty_range": Probe(1, {"presence_penalty": 5}),
    "rep_pen_slope": Probe(0.1, {"repetition_penalty": 9}),
    "repetition_decay": Probe(20, {"presence_penalty": 5, "repetition_penalty_range": 1}),
    "encoder_repetition_penalty": Probe(0.1),
    "no_repeat_ngram_size": Probe(1),
    "dry_multiplier": Probe(9, _LOOP),
    "dry_base": Probe(9, {**_LOOP, "dry_multiplier": 0.5}),
    "dry_allowed_length": Probe(20, _DRY),
    "dry_penalty_last_n": Probe(2, _DRY),
    "dry_sequence_breakers": Probe(["a"], _DRY),
    "mirostat_mode": Probe(2, {"mirostat_tau": 1}),
    "mirostat_tau": Probe(0.5, {"mirostat_mode": 2}),
    "mirostat_eta": Probe(0.9, {"mirostat_mode": 2, "mirostat_tau": 1}),
    "adaptive_target": Probe(0.1),
    "adaptive_decay": Probe(0.1, {"adaptive_target": 0.3}),
    "guidance_scale": Probe(0, {"negative_prompt": "bad"}),
    "negative_prompt": Probe("bad", {"guidance_scale": 0}),
    "min_keep": Probe(5, {"top_k": 1}),
    "sampler_priority": Probe(["temperature", "min_p"], {"temperature": 3, "min_p": 0.3}),
    "sampler_order": Probe([5, 6, 0, 1, 2, 3, 4], {"temperature": 3, "min_p": 0.3}),
    "temperature_last": Probe(
        True,
        {"temperature": 3, "min_p": 0.3, "sampler_priority": ["temperature", "min_p"]},
    ),
    "logit_bias": Probe({"97": 100}),
    "custom_token_bans": Probe("97,98,99,100,101,102"),
    "banned_strings": Probe(["a", "b", "c", "d", "e"]),
    "prompt_lookup_num_tokens": Probe(4, _LOOP),
    "draft_max": Probe(4),
    "speculative_ngram": Probe(True, _LOOP),
    "ban_eos_token": Probe(True, _ENDS),
    "min_tokens": Probe(3, _ENDS),
    "seed": Probe(7),
    "stop": Probe(["a", "e", "i", "o", "u", " "]),
    "stopping_strings": Probe(["a", "e", "i", "o", "u", " "]),
    "truncation_length": Probe(36),
    "add_bos_token": Probe(False),
    "token_healing": Probe(True),
    "preset": Probe("min-p", {"temperature": 3}),
    "skip_special_tokens": Probe(False, {"logit_bias": {"256": 100}}),
    "n": Probe(2),
    "penalty_alpha": Probe(0.6),
    "num_beams": Probe(4),
    "length_penalty": Probe(2),
    "early_stopping": Probe(True),
    "max_tokens_second": Probe(5),
    "include_reasoning": Probe(False),
    "suffix": Probe("the end"),
    "best_of": Probe(3),
    "trim_stop": Probe(False),
    "include_stop_str_in_output": Probe(True),
    "spaces_between_special_tokens": Probe(False),
    "response_format": Probe({"type": "json_object"}),
    "json_schema": Probe({"type": "integer"}),
    "grammar": Probe('root ::= "yes"'),
    "guided_regex": Probe("[0-9]+"),
    "guided_choice": Probe(["yes", "no"]),
    "structured_outputs": Probe({"choice": ["yes", "no"]}),
}
"""By the target's name in ``api.fields``: what a value does to a reply of the fake backend."""
