"""The order of sampling steps, from the names that clients use."""

from collections.abc import Sequence
from typing import Any

from innkeeper.api.values import refuse, shown
from innkeeper.core import DEFAULT_SAMPLER_ORDER

_PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")
_STEPS = {
    **{step: step for step in (*DEFAULT_SAMPLER_ORDER, *_PENALTIES)},
    "dynamic_temperature": "temperature",
    "typ_p": "typical_p",
    "nsigma": "top_n_sigma",
    "tfs_z": "tfs",
}
_TEMPERATURES = ("temperature", "quadratic_sampling")
_CHOOSERS = ("adaptive_p", "mirostat")
_MAX_NAMES = 64
_LLAMA_STEPS = ("penalties dry top_n_sigma top_k typical_p top_p min_p xtc temperature").split()
_LLAMA_LETTERS = {
    **{"e": "penalties", "d": "dry", "s": "top_n_sigma", "k": "top_k", "y": "typical_p"},
    **{"p": "top_p", "m": "min_p", "x": "xtc", "t": "temperature"},
}
_KOBOLD_STEPS: tuple[tuple[str, ...], ...] = (
    ("top_k",),
    ("top_a",),
    ("top_p", "min_p"),
    ("tfs",),
    ("typical_p",),
    ("temperature", "quadratic_sampling", "top_n_sigma"),
    ("penalties",),
)
"""By KoboldAI's ids."""
_BEFORE_KOBOLDS = ("encoder_repetition_penalty", "no_repeat_ngram", "dry")
_AFTER_KOBOLDS = ("epsilon_cutoff", "eta_cutoff", "xtc", "skew", *_CHOOSERS)
_MIN_KOBOLD_IDS = 6


def sampler_order(
    names: Sequence[str], *, temperature_last: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Step names in order, and warnings about names that mean nothing.

    names: in a client's words; none = the default order. Steps that they leave out follow, so
    that no parameter is lost; the steps that choose the token themselves (adaptive-p, mirostat)
    always come last.
    """
    unknown = [name for name in names if name not in _STEPS]
    steps = [_STEPS[name] for name in names if name in _STEPS]
    steps = list(dict.fromkeys([*steps, *DEFAULT_SAMPLER_ORDER]))
    last = [*(_TEMPERATURES if temperature_last else ()), *_CHOOSERS]
    order = tuple([step for step in steps if step not in last] + last)
    warnings = [f"sampler_priority: {shown(name)} is no sampler" for name in unknown[:3]]
    return order, tuple(warnings)


def step_names(field: str, value: Any) -> tuple[str, ...]:
    """A list of names, or names in one string, by lines or commas.

    Raises: InvalidRequestError naming ``field``.
    """
    if isinstance(value, str):
        value = value.replace(",", "\n").split("\n")
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise refuse(field, "a list of names", value)
    if len(value) > _MAX_NAMES:
        raise refuse(field, f"at most {_MAX_NAMES} names", value)
    return tuple(name.strip() for name in value if name.strip())


def llama_order(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """llama-server's ``samplers``: as ``sampler_order``, but its own steps that are left out do
    not apply."""
    if len(names) == 1 and names[0] not in _STEPS and set(names[0]) <= _LLAMA_LETTERS.keys():
        names = [_LLAMA_LETTERS[letter] for letter in names[0]]
    order, warnings = sampler_order(names, temperature_last=False)
    named = {_STEPS.get(name) for name in names}
    left_out = {step for step in _LLAMA_STEPS if names and step not in named}
    warnings = tuple(text.replace("sampler_priority", "samplers") for text in warnings)
    return tuple(step for step in order if step not in left_out), warnings


def kobold_ids(field: str, value: Any) -> tuple[int, ...]:
    """KoboldAI's ``sampler_order``; six ids lack the penalties, which come first.

    Raises: InvalidRequestError naming ``field``.
    """
    count = len(_KOBOLD_STEPS)
    ids = value if isinstance(value, list) else None
    known = ids and all(type(each) is int and 0 <= each < count for each in ids)
    if not ids or not known or not _MIN_KOBOLD_IDS <= len(ids) <= count:
        raise refuse(field, f"a list of the ids 0 to {count - 1}", value)
    return tuple(ids) if len(ids) == count else (count - 1, *ids)


def kobold_order(ids: Sequence[int]) -> tuple[str, ...]:
    """Step names for KoboldAI's ids."""
    steps = [step for each in ids for step in _KOBOLD_STEPS[each]]
    return tuple(dict.fromkeys([*_BEFORE_KOBOLDS, *steps, *_AFTER_KOBOLDS]))
