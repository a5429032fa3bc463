"""Every field of the OpenAI and Oobabooga dialects, and what each one means here.

``FIELDS`` is the one table: names (a field and its aliases), how its value is read, which values
are "off". When a field and its aliases come with different values, the first name in the table's
order whose value is not off wins. Off values are normalised to the core's, so 0 as a penalty range
(Oobabooga: the whole context) becomes ``WHOLE_CONTEXT``. ``NOT_APPLIED`` holds the fields that
this server knows and cannot apply yet: a value that is not off is reported in ``warnings``.
What restricts the reply's form is in ``constraints``. A dialect with names of its own takes
``renamed`` fields: the same meanings.
"""

import math
from collections.abc import Container, Mapping
from typing import Any, NamedTuple

from innkeeper.api import constraints, values
from innkeeper.api.sampler_order import kobold_ids, kobold_order, sampler_order, step_names
from innkeeper.core import SamplingParams
from innkeeper.core.presets import PRESETS
from innkeeper.core.request import WHOLE_CONTEXT
from innkeeper.errors import InvalidRequestError

MAX_CHOICES = 32
_MAX_COUNT = 1_000_000_000
_CUTOFFS_PER_ONE = 10_000
_MAX_TEXT_CHARS = 16 * 1024 * 1024
_MAX_LOOKUP = 64
_DEFAULT_LOOKUP = 15


class Field(NamedTuple):
    """One meaning, under all its names."""

    target: str
    """Key in ``resolve``'s result."""
    names: tuple[str, ...]
    read: values.Reader
    about: str
    off: tuple[Any, ...] = ()
    kind: str = "number"
    """JSON type, for the documentation."""


def _field(names: str, read: values.Reader, about: str, *off: Any, kind: str = "number") -> Field:
    every = tuple(names.split())
    return Field(every[0], every, read, about, off, kind)


_unit = values.number(0, 1)
_any_number = values.number(-1e9, 1e9)
_count = values.integer(0, _MAX_COUNT)
_range = values.integer(-1, _MAX_COUNT)

FIELDS: tuple[Field, ...] = (
    _field(
        "max_tokens max_completion_tokens max_new_tokens n_predict num_predict",
        values.integer(-2, _MAX_COUNT),
        "most tokens of the reply; negative = until the context is full",
        kind="integer",
    ),
    _field("auto_max_new_tokens", values.flag, "ignore max_tokens", False, kind="boolean"),
    _field("temperature", values.number(0, 100), "0 = always the likeliest token"),
    _field("do_sample", values.flag, "false = always the likeliest token", True, kind="boolean"),
    _field("dynamic_temperature", values.flag, "use dynatemp_low and _high", kind="boolean"),
    _field("dynatemp_low", values.number(0, 100), "temperature where the model is sure"),
    _field("dynatemp_high", values.number(0, 100), "temperature where it is not"),
    _field("dynatemp_range", values.number(0, 100), "temperature +- this, by entropy", 0),
    _field("dynatemp_exponent", values.number(0, 100), "how entropy maps to temperature"),
    _field("top_p", _unit, "keep the likeliest tokens up to this sum of probability", 1),
    _field("min_p", _unit, "drop tokens below this part of the best one's probability", 0),
    _field("top_k", _range, "keep this many tokens; 0 or -1 = off", 0, -1, kind="integer"),
    _field("typical_p typical", _unit, "keep the most typical tokens up to this sum", 1),
    _field("top_n_sigma nsigma", values.number(-1, 1000), "keep logits within n sigma", 0, -1),
    _field("top_a", _unit, "drop tokens below this times the best probability squared", 0),
    _field("tfs tfs_z", _unit, "tail-free sampling: keep up to this part of the curvature", 1),
    _field("epsilon_cutoff", values.number(0, 10_000), "drop tokens below this, in 0.0001", 0),
    _field("eta_cutoff", values.number(0, 10_000), "the same, lowered by entropy", 0),
    _field("smoothing_factor", values.number(0, 1000), "quadratic sampling: push down by this", 0),
    _field("smoothing_curve", values.number(-100, 100), "its cubic part; 1 = none"),
    _field("skew", values.number(-100, 100), "above 0 favours the tail, below 0 the head", 0),
    _field("xtc_threshold", _unit, "tokens above it may be excluded"),
    _field("xtc_probability", _unit, "how often XTC excludes the top choices", 0),
    _field(
        "repetition_penalty rep_pen repeat_penalty",
        values.number(0.01, 100),
        "divides the logits of tokens that occurred",
        1,
    ),
    _field("presence_penalty", values.number(-100, 100), "subtracted once from such logits", 0),
    _field("frequency_penalty", values.number(-100, 100), "subtracted per occurrence", 0),
    _field(
        "repetition_penalty_range rep_pen_range repeat_last_n penalty_range",
        _range,
        "last tokens that the penalties look at; 0 or -1 = the whole context",
        0,
        -1,
        kind="integer",
    ),
    _field(
        "rep_pen_slope",
        values.number(0, 100),
        "part of it for the older half; above 1: KoboldAI's",
        0,
        1,
    ),
    _field(
        "repetition_decay rep_pen_decay",
        _count,
        "tokens before the range over which the penalties fade in",
        0,
        kind="integer",
    ),
    _field(
        "encoder_repetition_penalty",
        values.number(0.01, 100),
        "above 1 favours the tokens of the prompt",
        1,
    ),
    _field(
        "no_repeat_ngram_size",
        _count,
        "no sequence of this many tokens occurs twice",
        0,
        kind="integer",
    ),
    _field("dry_multiplier", values.number(0, 100), "strength of DRY", 0),
    _field("dry_base", values.number(0, 100), "growth of DRY with the length of a repeat"),
    _field("dry_allowed_length", _count, "repeats up to this are free", kind="integer"),
    _field(
        "dry_penalty_last_n dry_range",
        _range,
        "last tokens that DRY looks at; 0 or -1 = as far as the penalties",
        0,
        -1,
        kind="integer",
    ),
    _field("dry_sequence_breakers", values.json_texts(128, 256), "DRY stops there", kind="array"),
    _field("mirostat_mode mirostat", values.integer(0, 2), "0 = off", 0, kind="integer"),
    _field("mirostat_tau", values.number(0, 100), "surprise to aim for"),
    _field("mirostat_eta", values.number(0, 10), "learning rate"),
    _field("adaptive_target", values.number(-1e9, 1), "probability to aim for; <= 0 = off"),
    _field("adaptive_decay", values.number(0, 0.99), "memory of adaptive_target"),
    _field("guidance_scale", values.number(-10, 100), "away from negative_prompt; 1 = off", 1),
    _field(
        "negative_prompt",
        values.text(_MAX_TEXT_CHARS),
        "what guidance moves away from: a text in place of the prompt, or a system message",
        "",
        kind="string",
    ),
    _field("min_keep", _count, "truncation leaves at least this many", 0, kind="integer"),
    _field("sampler_priority samplers", step_names, "order of the steps", kind="array"),
    _field("sampler_order", kobold_ids, "KoboldAI's order of the steps", kind="array"),
    _field("temperature_last", values.flag, "temperature after truncation", kind="boolean"),
    _field("logit_bias", values.token_biases, "token id to bias; false bans", {}, kind="object"),
    _field("custom_token_bans", values.token_ids, "token ids never chosen", (), kind="string"),
    _field(
        "banned_strings",
        values.json_texts(1024, 4096),
        "phrases that the reply never shows",
        (),
        kind="array",
    ),
    _field(
        "prompt_lookup_num_tokens",
        values.integer(0, _MAX_LOOKUP),
        "most tokens to guess at once where the text repeats itself",
        0,
        kind="integer",
    ),
    _field(
        "draft_max speculative.n_max",
        values.integer(0, _MAX_LOOKUP),
        "most tokens that the draft model guesses at once; 0 = none",
        kind="integer",
    ),
    _field("speculative_ngram", values.flag, "guess so", False, kind="boolean"),
    _field("ban_eos_token ignore_eos", values.flag, "never end by itself", False, kind="boolean"),
    _field("min_tokens min_length", _count, "tokens before it may end", 0, kind="integer"),
    _field("seed sampler_seed", values.integer(-(2**63), 2**64), "-1 = random", kind="integer"),
    _field("stop", values.texts(256, 4096), "texts that end the reply", (), kind="array"),
    _field("stopping_strings", values.texts(256, 4096), "more of stop", (), kind="array"),
    _field(
        "truncation_length num_ctx",
        _count,
        "context size: longer prompts lose their start, which is reported; 0 = the server's",
        0,
        kind="integer",
    ),
    _field("add_bos_token", values.flag, "put the model's BOS in front", True, kind="boolean"),
    _field(
        "token_healing",
        values.flag,
        "the prompt's last token may grow longer",
        False,
        kind="boolean",
    ),
    _field(
        "preset",
        values.choice("", *PRESETS),
        f"in place of all samplers: {', '.join(PRESETS)}",
        "",
        kind="string",
    ),
    _field("skip_special_tokens", values.flag, "no special tokens as text", True, kind="boolean"),
    _field(
        "kv_reuse",
        values.choice("exact", "auto", "fast", "turbo"),
        "which edits of the prompt may reuse the cache; absent = as the server is set",
        kind="string",
    ),
    _field("n", values.integer(1, MAX_CHOICES), "number of replies", 1, kind="integer"),
)

NOT_APPLIED: tuple[Field, ...] = (
    _field("penalty_alpha", _any_number, "contrastive search", 0),
    _field("num_beams", _any_number, "beam search", 0, 1),
    _field("length_penalty", _any_number, "beam search", 1),
    _field("early_stopping", values.flag, "beam search", False, kind="boolean"),
    _field("max_tokens_second", _any_number, "speed limit", 0),
    _field("include_reasoning", values.flag, "split reasoning off", True, kind="boolean"),
    _field("suffix", values.text(_MAX_TEXT_CHARS), "text after the reply", "", kind="string"),
    _field("best_of", _any_number, "choose among replies", 0, 1),
    _field("trim_stop", values.flag, "keeping the stop text", True, kind="boolean"),
    _field(
        "include_stop_str_in_output", values.flag, "keeping the stop text", False, kind="boolean"
    ),
    _field("spaces_between_special_tokens", values.flag, "leaving them out", True, kind="boolean"),
    _field("tools functions", values.anything, "tool calls", [], {}, kind="array"),
)

_HARMLESS = frozenset(
    "api_type api_server user model metadata store service_tier cache_prompt static_cache"
    " safety_identifier prompt_cache_key parallel_tool_calls grammar_retain_state stream"
    " stream_options prompt messages echo logprobs n_probs top_logprobs response_format"
    " tool_choice function_call debug".split()
)


def renamed(names: Mapping[str, str]) -> tuple[Field, ...]:
    """The fields of ``FIELDS`` that a dialect has, by its names: target to names, with spaces
    between; an empty string stands for the target itself."""
    return tuple(
        field._replace(names=tuple((names[field.target] or field.target).split()))
        for field in FIELDS
        if field.target in names
    )


def resolve(body: Mapping[str, Any], table: tuple[Field, ...] = FIELDS) -> dict[str, Any]:
    """What the fields of ``body`` mean, by target. Absent fields, and null, are absent.

    Raises: InvalidRequestError naming the first bad field.
    """
    found: dict[str, Any] = {}
    for field in table:
        given = _given(field, body)
        if given:
            found[field.target] = next((v for _, v in given if v not in field.off), given[0][1])
    return found


def not_applied(
    body: Mapping[str, Any], known: Container[str] = (), table: tuple[Field, ...] = FIELDS
) -> tuple[str, ...]:
    """Warnings for what ``body`` asks and this server ignores. ``known``: the route's own fields.

    Raises: InvalidRequestError for a value of a wrong type.
    """
    warnings = [
        f"not applied: {name} = {values.shown(body[name])} ({field.about} is not supported yet)"
        for field in NOT_APPLIED
        for name, value in _given(field, body)
        if value not in field.off and name not in known
    ]
    names = {name for field in (*table, *NOT_APPLIED) for name in field.names}
    expected = names | _HARMLESS | constraints.NAMES
    return (*warnings, *unknown(body, expected, known))


def unknown(
    body: Mapping[str, Any], expected: Container[str], known: Container[str] = ()
) -> list[str]:
    """One warning for all fields of ``body`` that nobody knows; none if there are none."""
    names = [name for name in body if name not in expected and name not in known]
    if not names:
        return []
    listed = ", ".join(values.shown(name) for name in names[:10])
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return [f"unknown fields ignored: {listed}{more}"]


def sampling(found: Mapping[str, Any]) -> tuple[SamplingParams, tuple[str, ...]]:
    """Sampling parameters of a resolved body, and warnings about it."""
    order, unknown = sampler_order(
        found.get("sampler_priority", ()), temperature_last=found.get("temperature_last", False)
    )
    if "sampler_order" in found and "sampler_priority" not in found:
        order = kobold_order(found["sampler_order"])
    penalty_range = found.get("repetition_penalty_range") or WHOLE_CONTEXT
    dry_range = found.get("dry_penalty_last_n") or WHOLE_CONTEXT
    target = found.get("adaptive_target", -1.0)
    seed = found.get("seed", -1)
    given = {
        "top_k": max(0, found.get("top_k", 0)),
        "top_n_sigma": max(0.0, found.get("top_n_sigma", 0.0)),
        "penalty_range": penalty_range,
        # Oobabooga's one range governs DRY too.
        "dry_range": dry_range if dry_range > 0 else penalty_range,
        "mirostat": found.get("mirostat_mode", 0),
        "adaptive_target": target if target > 0 else -1.0,
        "epsilon_cutoff": found.get("epsilon_cutoff", 0.0) / _CUTOFFS_PER_ONE,
        "eta_cutoff": found.get("eta_cutoff", 0.0) / _CUTOFFS_PER_ONE,
        **_slope(found.get("rep_pen_slope") or 1.0),
        "no_repeat_ngram": found.get("no_repeat_ngram_size", 0),
        "xtc_protect": True,
        "order": order,
        "logit_bias": _biases(found),
        "ban_eos": found.get("ban_eos_token", False),
        "seed": seed if seed >= 0 else None,
        **_temperature(found),
        **{name: found[name] for name in _SAME_NAMES if name in found},
    }
    if "dry_sequence_breakers" in found:
        given["dry_breakers"] = found["dry_sequence_breakers"]
    return SamplingParams(**given), unknown


_SAME_NAMES = (
    "top_p min_p typical_p xtc_threshold xtc_probability repetition_penalty presence_penalty"
    " frequency_penalty dry_multiplier dry_base dry_allowed_length mirostat_tau mirostat_eta"
    " adaptive_decay min_keep min_tokens top_a tfs smoothing_factor smoothing_curve skew"
    " repetition_decay encoder_repetition_penalty"
).split()


def stop_texts(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Both lists of stop strings, without repeats."""
    return tuple(dict.fromkeys([*found.get("stop", ()), *found.get("stopping_strings", ())]))


def max_tokens(found: Mapping[str, Any], default: int | None) -> int | None:
    """Most tokens of a reply; None = until the context is full."""
    limit = found.get("max_tokens", default)
    if found.get("auto_max_new_tokens") or (limit is not None and limit < 0):
        return None
    return int(limit) if limit is not None else None


def lookup(found: Mapping[str, Any]) -> int:
    """Most tokens to guess at once."""
    wanted = _DEFAULT_LOOKUP if found.get("speculative_ngram") else 0
    return int(found.get("prompt_lookup_num_tokens") or wanted)


def truncate_to(found: Mapping[str, Any], limit: int | None) -> int | None:
    """Tokens of the prompt to keep, so that ``limit`` new ones fit ``truncation_length``."""
    length = found.get("truncation_length", 0)
    if not length:
        return None
    room = length - (limit or 0)
    return int(room if room > 0 else length)


def _given(field: Field, body: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [
        (name, field.read(name, body[name])) for name in field.names if body.get(name) is not None
    ]


def _slope(value: float) -> dict[str, float]:
    """KoboldCpp's and KoboldAI's field of one name: the former's is never above 1."""
    return {"repetition_curve": value} if value > 1 else {"repetition_slope": value}


def _temperature(found: Mapping[str, Any]) -> dict[str, float]:
    if not found.get("do_sample", True):
        return {"temperature": 0.0}
    temperature = found.get("temperature", 1.0)
    spread = found.get("dynatemp_range", 0.0)
    exponent = found.get("dynatemp_exponent", 1.0)
    dynamic = found.get("dynamic_temperature")
    if dynamic and ("dynatemp_low" in found or "dynatemp_high" in found):
        low, high = found.get("dynatemp_low", 1.0), found.get("dynatemp_high", 1.0)
        if low > high:
            raise InvalidRequestError(
                f"dynatemp_low ({low:g}) must not exceed dynatemp_high ({high:g})",
                field="dynatemp_low",
            )
        temperature, spread = (low + high) / 2, (high - low) / 2
    if dynamic is False or spread == 0:
        return {"temperature": temperature}
    return {
        "temperature": temperature,
        "dynatemp_range": spread,
        "dynatemp_exponent": exponent,
    }


def _biases(found: Mapping[str, Any]) -> dict[int, float]:
    banned = dict.fromkeys(found.get("custom_token_bans", ()), -math.inf)
    return {**found.get("logit_bias", {}), **banned}
