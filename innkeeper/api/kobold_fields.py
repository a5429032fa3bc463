"""KoboldAI's and KoboldCpp's fields, with the defaults and off values of KoboldCpp."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from innkeeper.api import fields, requests, schema, values
from innkeeper.core import GenerateRequest, SamplingParams
from innkeeper.core.request import WHOLE_CONTEXT
from innkeeper.errors import InvalidRequestError

DEFAULT_MAX_LENGTH = 768
_MAX_PROMPT_CHARS = 64 * 1024 * 1024
_MAX_KEY_CHARS = 1000
_DEFAULT_LOGPROBS = 10
_RANGE = 320

_REPLACES = "replace_instruct_placeholders"

TABLE = fields.renamed(
    {
        "max_tokens": "max_length",
        "temperature": "",
        "dynatemp_range": "",
        "dynatemp_exponent": "",
        "top_p": "",
        "min_p": "",
        "guidance_scale": "",
        "negative_prompt": "",
        "top_k": "",
        "typical_p": "typical typical_p",
        "top_n_sigma": "nsigma top_n_sigma",
        "top_a": "",
        "tfs": "",
        "smoothing_factor": "",
        "smoothing_curve": "",
        "xtc_threshold": "",
        "xtc_probability": "",
        "repetition_penalty": "rep_pen repetition_penalty repeat_penalty",
        "presence_penalty": "",
        "repetition_penalty_range": "rep_pen_range",
        "rep_pen_slope": "",
        "dry_multiplier": "",
        "dry_base": "",
        "dry_allowed_length": "",
        "dry_penalty_last_n": "",
        "dry_sequence_breakers": "",
        "mirostat_mode": "mirostat",
        "mirostat_tau": "",
        "mirostat_eta": "",
        "adaptive_target": "",
        "adaptive_decay": "",
        "sampler_order": "",
        "banned_strings": "banned_tokens banned_strings",
        "logit_bias": "",
        "custom_token_bans": "",
        "ban_eos_token": "ban_eos_token use_default_badwordsids",
        "seed": "sampler_seed seed",
        "stop": "stop_sequence stop",
        "truncation_length": "max_context_length",
        "kv_reuse": "",
        "n": "",
    }
)

_DEFAULTS: dict[str, Any] = {
    "temperature": 0.75,
    "top_k": 100,
    "top_p": 0.92,
    "xtc_threshold": 0.2,
    "dry_sequence_breakers": (),
    "sampler_order": (6, 0, 1, 3, 4, 2, 5),
}

_OFF: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys("use_story use_memory use_authors_note use_world_info".split(), ()),
    **dict.fromkeys("use_userscripts soft_prompt bypass_eos".split(), ()),
    **dict.fromkeys("frmttriminc frmtrmblln frmtrmspch frmtadsnsp reasoning_effort".split(), ()),
    **dict.fromkeys("disable_output_formatting disable_input_formatting".split(), (True,)),
}
BODY = schema.body(
    {
        "prompt": schema.plain("string", "the text to continue"),
        "memory": schema.plain("string", "stands before it, and is never cut"),
        "genkey": schema.plain("string", "a name for check and abort"),
        "trim_stop": schema.plain("boolean", "false = the stop text belongs to the reply"),
        "singleline": schema.plain("boolean", "the reply ends with the line"),
        "render_special": schema.plain("boolean", "special tokens show as text"),
        "logprobs": schema.plain("boolean", "report log probabilities"),
        "grammar": schema.plain("string", "GBNF, Lark, or a JSON schema as text"),
        **schema.properties(TABLE),
        **schema.reported(_OFF),
        _REPLACES: schema.plain("boolean", "reported in warnings if needed"),
        "images": schema.plain("array", "refused: models read text only"),
        "audio": schema.plain("array", "refused: models read text only"),
        "debug": schema.plain("boolean", "show the final prompt and its token ids in the answer"),
    },
    ("prompt",),
)

_PLACEHOLDERS = ("{{[INPUT]}}", "{{[OUTPUT]}}", "{{[SYSTEM]}}")
_KNOWN = (
    *_OFF,
    *("memory", "genkey", "quiet", "trim_stop", "singleline", "images", "audio", "render_special"),
    *("logprobs", _REPLACES, "sampler_full_determinism"),
)


class Call(Struct, frozen=True, kw_only=True):
    """One parsed call."""

    request: GenerateRequest
    memory: str
    """Stands before the prompt, and is never cut."""
    key: str
    keeps_stop: bool
    """The stop text belongs to the reply."""


def parse(body: Mapping[str, Any]) -> Call:
    """Raises: InvalidRequestError naming the field."""
    for name in ("images", "audio"):
        if body.get(name):
            raise InvalidRequestError(f"{name}: this model reads text only", field=name)
    prompt = values.text(_MAX_PROMPT_CHARS)("prompt", body.get("prompt"))
    warnings = requests.ignored(body, _OFF)
    replaces = values.flag(_REPLACES, body.get(_REPLACES, True))
    if replaces and any(text in prompt for text in _PLACEHOLDERS):
        warnings.append(f"not applied: {_REPLACES} ({{{{[INPUT]}}}} and such stay as they are)")
    request = requests.build(
        body,
        table=TABLE,
        known=_KNOWN,
        defaults=_DEFAULTS,
        default_max_tokens=DEFAULT_MAX_LENGTH,
        adjust=_adjust,
        warnings=warnings,
        prompt=prompt,
        logprobs=_logprobs(body),
        skip_special_tokens=not _flag(body, "render_special"),
    )
    if _flag(body, "singleline"):
        request = msgspec.structs.replace(request, stop=(*request.stop, "\n"))
    return Call(
        request=request,
        memory=values.text(_MAX_PROMPT_CHARS)("memory", body.get("memory") or ""),
        key=key_of(body),
        keeps_stop=body.get("trim_stop") is not None and not _flag(body, "trim_stop"),
    )


def key_of(body: Mapping[str, Any]) -> str:
    """``genkey``; empty if there is none. Raises: InvalidRequestError."""
    key: str = values.text(_MAX_KEY_CHARS)("genkey", body.get("genkey") or "")
    return key


def _adjust(sampling: SamplingParams, found: Mapping[str, Any]) -> SamplingParams:
    """0 switches the penalties off; DRY's range is its own, and 0 is everything."""
    dry_range = found.get("dry_penalty_last_n", _RANGE)
    return msgspec.structs.replace(
        sampling,
        penalty_range=found.get("repetition_penalty_range", _RANGE),
        dry_range=dry_range if dry_range > 0 else WHOLE_CONTEXT,
        xtc_protect=False,
    )


def _logprobs(body: Mapping[str, Any]) -> int | None:
    wanted = body.get("logprobs")
    if wanted is None or isinstance(wanted, bool):
        return _DEFAULT_LOGPROBS if wanted else None
    return values.integer(0, 100)("logprobs", wanted) or None


def _flag(body: Mapping[str, Any], name: str) -> bool:
    return values.flag(name, body.get(name) or False)
