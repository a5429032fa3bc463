"""The order of sampling steps, from the names that clients use."""

from typing import Any

from innkeeper.api.values import refuse, shown
from innkeeper.core import DEFAULT_SAMPLER_ORDER

_STEPS = {
    **{step: step for step in DEFAULT_SAMPLER_ORDER},
    "repetition_penalty": "penalties",
    "presence_penalty": "penalties",
    "frequency_penalty": "penalties",
    "dynamic_temperature": "temperature",
    "typ_p": "typical_p",
    "nsigma": "top_n_sigma",
}
_NOT_HERE = frozenset(
    "quadratic_sampling epsilon_cutoff eta_cutoff tfs top_a encoder_repetition_penalty"
    " no_repeat_ngram skew".split()
)
_CHOOSERS = ("adaptive_p", "mirostat")
_MAX_NAMES = 64


def sampler_order(
    priority: Any, *, temperature_last: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Step names in order, and warnings about names that mean nothing.

    priority: list of names, or names in one string; None = the default order. Steps that it
    leaves out follow it, so that no parameter is lost; the steps that choose the token
    themselves (adaptive-p, mirostat) always come last.
    """
    names = [] if priority is None else _names(priority)
    unknown = [name for name in names if name not in _STEPS and name not in _NOT_HERE]
    steps = [_STEPS[name] for name in names if name in _STEPS]
    steps = list(dict.fromkeys([*steps, *DEFAULT_SAMPLER_ORDER]))
    last = [*(["temperature"] if temperature_last else []), *_CHOOSERS]
    order = tuple([step for step in steps if step not in last] + last)
    warnings = [f"sampler_priority: {shown(name)} is no sampler" for name in unknown[:3]]
    return order, tuple(warnings)


def _names(priority: Any) -> list[str]:
    if isinstance(priority, str):
        priority = priority.replace(",", "\n").split("\n")
    if not isinstance(priority, list) or not all(isinstance(name, str) for name in priority):
        raise refuse("sampler_priority", "a list of names", priority)
    if len(priority) > _MAX_NAMES:
        raise refuse("sampler_priority", f"at most {_MAX_NAMES} names", priority)
    return [name.strip() for name in priority if name.strip()]
