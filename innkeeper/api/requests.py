"""From a body to a ``GenerateRequest``: what every dialect does alike."""

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

from innkeeper.api import constraints, fields, values
from innkeeper.api.values import shown
from innkeeper.core import GenerateRequest, SamplingParams
from innkeeper.core.presets import with_preset
from innkeeper.errors import InvalidRequestError

_MAX_NAME_CHARS = 1000

Adjust = Callable[[SamplingParams, Mapping[str, Any]], SamplingParams]
"""Sampling parameters as a dialect means them, from Oobabooga's meaning and the fields found."""


def build(
    body: Mapping[str, Any],
    *,
    table: tuple[fields.Field, ...] = fields.FIELDS,
    known: Container[str] = (),
    defaults: Mapping[str, Any] | None = None,
    default_max_tokens: int | None = None,
    adjust: Adjust | None = None,
    warnings: Iterable[str] = (),
    **given: Any,
) -> GenerateRequest:
    """The request that ``body`` is, but for its prompt.

    table: the dialect's names. known: its other names. defaults: by target, for absent fields.
    given: more of ``GenerateRequest``'s attributes.
    Raises: InvalidRequestError naming the field.
    """
    if "tools" not in given and body.get("tool_choice") not in (None, "none", "auto"):
        raise InvalidRequestError(
            "tool_choice asks for a tool call, which there is none of here",
            field="tool_choice",
            hint="leave it out, or use /v1/chat/completions",
        )
    found = {**(defaults or {}), **fields.resolve(body, table)}
    sampling, odd_steps = fields.sampling(found)
    if adjust is not None:
        sampling = adjust(sampling, found)
    if found.get("preset"):
        sampling = with_preset(sampling, found["preset"])
    limit = fields.max_tokens(found, default_max_tokens)
    attributes = {
        "constraint": constraints.constraint(body),
        "guidance_scale": found.get("guidance_scale", 1.0),
        "negative_prompt": found.get("negative_prompt", ""),
        "banned": found.get("banned_strings", ()),
        "lookup": fields.lookup(found),
        "draft_max": found.get("draft_max"),
        "stop": fields.stop_texts(found),
        "max_tokens": limit,
        "n": found.get("n", 1),
        "model": model(body),
        "debug": values.flag("debug", body.get("debug") or False),
        "heals_token": found.get("token_healing", False),
        "add_bos": found.get("add_bos_token", True),
        "skip_special_tokens": found.get("skip_special_tokens", True),
        "kv_reuse": found.get("kv_reuse"),
        "truncate_to": fields.truncate_to(found, limit),
        **given,
    }
    return GenerateRequest(
        sampling=sampling,
        warnings=(*fields.not_applied(body, known, table), *odd_steps, *warnings),
        **attributes,
    )


def model(body: Mapping[str, Any]) -> str:
    """The model that ``body`` names; empty = the current one. Raises: InvalidRequestError."""
    name: str = values.text(_MAX_NAME_CHARS)("model", body.get("model") or "")
    return name


def ignored(body: Mapping[str, Any], off: Mapping[str, tuple[Any, ...]]) -> list[str]:
    """Warnings for fields of a dialect that this server does not have. off: name to the values
    that ask for nothing; null, 0 and what is empty never do, nor does false where true does not."""
    return [
        f"not applied: {name} = {shown(body[name])}"
        for name, offs in off.items()
        if (body.get(name) or (body.get(name) is False and True in offs)) and body[name] not in offs
    ]
