"""How a chat's reasoning is asked for: whether, how much, and where it is shown."""

from collections.abc import Mapping
from typing import Any

from innkeeper.api import values

BUDGETS = (
    "reasoning_budget",
    "reasoning_budget_tokens",
    "thinking_budget",
    "thinking_budget_tokens",
    "thinking_token_budget",
)
"""Names of one meaning: most tokens of reasoning."""

NAMES = (*BUDGETS, "thinking", "reasoning", "reasoning_format", "include_reasoning")
_read_budget = values.integer(-1, 1_000_000_000)
_FORMATS = ("none", "auto", "deepseek", "deepseek-legacy")


def budget(body: Mapping[str, Any]) -> int | None:
    """Most tokens of reasoning; 0 = none; None = no limit. Raises: InvalidRequestError."""
    given: list[tuple[str, Any]] = [(name, body.get(name)) for name in BUDGETS]
    thinking = _object("thinking", body)
    if thinking.get("type", "enabled") not in ("enabled", "adaptive", "disabled"):
        raise values.refuse("thinking.type", "enabled, adaptive or disabled", thinking["type"])
    reasoning = _object("reasoning", body)
    given += [
        ("thinking.budget_tokens", thinking.get("budget_tokens")),
        ("reasoning.max_tokens", reasoning.get("max_tokens")),
    ]
    if _is_off(body, thinking, reasoning):
        return 0
    found = [_read_budget(name, value) for name, value in given if value is not None]
    return next((count for count in found if count >= 0), None)


def _is_off(
    body: Mapping[str, Any], thinking: Mapping[str, Any], reasoning: Mapping[str, Any]
) -> bool:
    efforts = body.get("reasoning_effort"), reasoning.get("effort")
    return (
        "none" in efforts or thinking.get("type") == "disabled" or reasoning.get("enabled") is False
    )


def template_kwargs(body: Mapping[str, Any]) -> dict[str, Any]:
    """Variables for the chat template that the objects ``thinking`` and ``reasoning`` set."""
    thinking, reasoning = _object("thinking", body), _object("reasoning", body)
    found: dict[str, Any] = {}
    if thinking or reasoning.get("enabled") is not None:
        found["enable_thinking"] = not _is_off({}, thinking, reasoning)
    if isinstance(reasoning.get("effort"), str):
        found["reasoning_effort"] = reasoning["effort"]
    return found


def is_split(body: Mapping[str, Any]) -> bool:
    """Whether reasoning comes apart from the text; llama.cpp's ``reasoning_format`` none leaves it
    there. Raises: InvalidRequestError."""
    given = body.get("reasoning_format")
    return given is None or values.choice(*_FORMATS)("reasoning_format", given) != "none"


def is_shown(body: Mapping[str, Any]) -> bool:
    """Whether the answer has it at all. Raises: InvalidRequestError."""
    if values.flag("reasoning.exclude", _object("reasoning", body).get("exclude") or False):
        return False
    included = body.get("include_reasoning")
    return included is None or values.flag("include_reasoning", included)


def _object(name: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    given = body.get(name) or {}
    if not isinstance(given, dict):
        raise values.refuse(name, "an object", given)
    return given
