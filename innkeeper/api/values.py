"""Reading one JSON value: lenient about how clients write it, strict about what it means.

Clients send numbers as strings, lists as JSON in a string, and integers as floats. Each reader
takes (field, value) and returns what the value means; it raises an InvalidRequestError that names
the field, the value and the limit.
"""

import json
import math
from collections.abc import Callable
from typing import Any

from innkeeper.errors import InvalidRequestError

Reader = Callable[[str, Any], Any]

_SHOWN_CHARS = 40
_MAX_DEPTH = 16


def shown(value: Any) -> str:
    """``value`` as an error message may show it: short, and never a traceback's worth."""
    text = repr(value[: _SHOWN_CHARS * 2] if isinstance(value, str | list) else value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def refuse(field: str, wanted: str, value: Any) -> InvalidRequestError:
    return InvalidRequestError(f"{field} must be {wanted}, not {shown(value)}", field=field)


def number(low: float, high: float) -> Reader:
    """A finite number within ``low``..``high``."""
    wanted = f"a number from {low:g} to {high:g}"

    def read(field: str, value: Any) -> float:
        found = _to_float(value)
        if found is None or not low <= found <= high:
            raise refuse(field, wanted, value)
        return found

    return read


def integer(low: int, high: int) -> Reader:
    """A whole number within ``low``..``high``."""
    wanted = f"a whole number from {low} to {high}"

    def read(field: str, value: Any) -> int:
        found = _to_int(value)
        if found is None or not low <= found <= high:
            raise refuse(field, wanted, value)
        return found

    return read


def flag(field: str, value: Any) -> bool:
    """A boolean; 0, 1, "true" and "false" will do."""
    if value in (True, False):
        return bool(value)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise refuse(field, "true or false", value)


def choice(*allowed: str) -> Reader:
    """One of these words."""

    def read(field: str, value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise refuse(field, "one of " + ", ".join(allowed), value)
        return value

    return read


def text(max_chars: int) -> Reader:
    """A string that holds valid Unicode."""

    def read(field: str, value: Any) -> str:
        if not isinstance(value, str):
            raise refuse(field, "a string", value)
        if len(value) > max_chars:
            raise InvalidRequestError(
                f"{field} has {len(value)} characters; at most {max_chars} are allowed", field=field
            )
        return clean(value)

    return read


def texts(max_items: int, max_chars: int) -> Reader:
    """A list of strings, or one string; empty ones are dropped."""
    read_one = text(max_chars)

    def read(field: str, value: Any) -> tuple[str, ...]:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list):
            raise refuse(field, "a string or a list of strings", value)
        if len(items) > max_items:
            raise InvalidRequestError(
                f"{field} has {len(items)} items; at most {max_items} are allowed", field=field
            )
        return tuple(dict.fromkeys(read_one(field, item) for item in items if item != ""))

    return read


def json_texts(max_items: int, max_chars: int) -> Reader:
    """A list of strings, or the same as JSON in a string, with or without its brackets."""
    read_list = texts(max_items, max_chars)

    def read(field: str, value: Any) -> tuple[str, ...]:
        if isinstance(value, str):
            bare = value.strip()
            try:
                value = json.loads(bare if bare.startswith("[") else f"[{bare}]")
            except (ValueError, RecursionError):
                raise refuse(field, "a list of strings, or one as JSON", value) from None
        found: tuple[str, ...] = read_list(field, value)
        return found

    return read


def token_ids(field: str, value: Any) -> tuple[int, ...]:
    """Ids as a list, or as ``"1,2,3"``."""
    items = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    if not isinstance(items, list):
        raise refuse(field, 'token ids, such as "1,2,3"', value)
    read_one = integer(0, 2**31 - 1)
    return tuple(read_one(field, item) for item in items)


def token_biases(field: str, value: Any) -> dict[int, float]:
    """``{"id": bias}`` or ``[[id, bias]]``; false as a bias bans the token."""
    pairs = list(value.items()) if isinstance(value, dict) else value
    if not isinstance(pairs, list):
        raise refuse(field, "an object of token id and bias", value)
    read_id, read_bias = integer(0, 2**31 - 1), number(-1000, 1000)
    biases: dict[int, float] = {}
    for pair in pairs:
        if not (isinstance(pair, list | tuple) and len(pair) == 2):
            raise refuse(field, "pairs of token id and bias", pair)
        token, bias = pair
        biases[read_id(field, token)] = -math.inf if bias is False else read_bias(field, bias)
    return biases


def anything(field: str, value: Any) -> Any:
    return value


def plain(field: str, value: Any, *, max_depth: int = _MAX_DEPTH) -> Any:
    """Any JSON value, as long as it can cross to other processes: not nested deeper than
    ``max_depth``, numbers of 64 bits, valid Unicode."""
    if max_depth < 0:
        raise InvalidRequestError(f"{field} is nested too deeply", field=field)
    below = max_depth - 1
    if isinstance(value, dict):
        return {clean(key): plain(field, item, max_depth=below) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(field, item, max_depth=below) for item in value]
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise refuse(field, "a number of at most 64 bits", value)
    return value


def clean(value: str) -> str:
    """Lone surrogates, which JSON can write but no text encoding can, become U+FFFD."""
    if value.isascii():
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _to_float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _to_int(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _to_float(value)
    return int(found) if found is not None and found.is_integer() else None
