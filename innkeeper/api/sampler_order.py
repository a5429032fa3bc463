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
}
_TEMPERATURES = ("temperature", "quadratic_sampling")
_CHOOSERS = ("adaptive_p", "mirostat")
_MAX_NAMES = 64


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
