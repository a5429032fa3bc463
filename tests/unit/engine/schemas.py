"""Random JSON schemas (nesting, enums, patterns, references, unions), and a validator for them.

The validator reads the few keywords that ``random_schema`` writes; llguidance has its own reading.
"""

import re
from collections.abc import Callable
from datetime import date
from random import Random
from typing import Any

Schema = dict[str, Any]
_NAMES = ("name", "age", "mood", "hp", "items", "of", "at", "x y", "ß", 'a"b')
_PATTERNS = (
    "^[a-z]{2,5}-[0-9]{1,3}$",
    "^(ale|mead|wine)( and (bread|cheese))?$",
    "^\\d+(\\.\\d)?$",
)


def random_schema(random: Random) -> Schema:
    """A schema for an object, with definitions that its parts refer to."""
    schema = _object(random, 3)
    schema["$defs"] = {"coin": _object(random, 0), "kind": _enum(random, 0)}
    return schema


def _any(random: Random, depth: int) -> Schema:
    leaves = [_text, _text, _enum, _integer, _number, _simple, _reference]
    return random.choice(leaves + [_object, _array, _union] * depth)(random, depth)


def _object(random: Random, depth: int) -> Schema:
    names = random.sample(_NAMES, random.randint(1, 4))
    properties = {name: _any(random, max(0, depth - 1)) for name in names}
    if depth == 0:
        properties = {name: _integer(random, 0) for name in names}
    required = [name for name in names if random.random() < 0.6]
    schema: Schema = {"type": "object", "properties": properties, "required": required}
    if random.random() < 0.9:
        schema["additionalProperties"] = False
    return schema


def _array(random: Random, depth: int) -> Schema:
    most = random.randint(1, 3)
    least = random.randint(0, most)
    items = _any(random, max(0, depth - 1))
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def _union(random: Random, depth: int) -> Schema:
    return {"anyOf": [_any(random, max(0, depth - 1)) for _ in range(2)]}


def _reference(random: Random, depth: int) -> Schema:
    return {"$ref": f"#/$defs/{random.choice(['coin', 'kind'])}"}


def _enum(random: Random, depth: int) -> Schema:
    values = ["red", 'say "hi"', "naïve 🐉", 3, -1.5, True, None, "", "line\nbreak"]
    if random.random() < 0.2:
        return {"const": random.choice(values)}
    return {"enum": random.sample(values, random.randint(1, 4))}


def _text(random: Random, depth: int) -> Schema:
    kind = random.randrange(4)
    if kind == 0:
        return {"type": "string", "pattern": random.choice(_PATTERNS)}
    if kind == 1:
        return {"type": "string", "format": "date"}
    least = random.randint(0, 3)
    return {"type": "string", "minLength": least, "maxLength": least + random.randint(0, 9)}


def _integer(random: Random, depth: int) -> Schema:
    low = random.randint(-200, 100)
    return {"type": "integer", "minimum": low, "maximum": low + random.randint(0, 500)}


def _number(random: Random, depth: int) -> Schema:
    low = random.uniform(-5, 5)
    return {"type": "number", "exclusiveMinimum": round(low, 2), "maximum": round(low + 3, 1)}


def _simple(random: Random, depth: int) -> Schema:
    return {"type": random.choice(["boolean", "null", ["integer", "null"]])}


def problem(value: Any, schema: Schema, root: Schema | None = None) -> str | None:
    """Why ``value`` breaks ``schema``; None if it does not."""
    root = schema if root is None else root
    for keyword, wanted in schema.items():
        check = _CHECKS.get(keyword)
        found = check(value, wanted, schema, root) if check else None
        if found:
            return found
    return None


_Check = Callable[[Any, Any, Schema, Schema], str | None]


def _said(is_broken: bool, keyword: str, value: Any, wanted: Any) -> str | None:
    return f"{value!r} breaks {keyword} {wanted!r}" if is_broken else None


def _type(value: Any, wanted: Any, schema: Schema, root: Schema) -> str | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    holds = {
        "object": isinstance(value, dict),
        "array": isinstance(value, list),
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "null": value is None,
        "number": is_number,
        "integer": is_number and value == int(value),
    }
    names = wanted if isinstance(wanted, list) else [wanted]
    return _said(not any(holds[name] for name in names), "type", value, wanted)


def _properties(value: Any, wanted: Any, schema: Schema, root: Schema) -> str | None:
    if not isinstance(value, dict):
        return None
    inner = (problem(value[name], part, root) for name, part in wanted.items() if name in value)
    extra = set(value) - set(wanted)
    is_closed = schema.get("additionalProperties") is False
    return next(filter(None, inner), None) or _said(bool(extra and is_closed), "extra", value, "")


def _items(value: Any, wanted: Any, schema: Schema, root: Schema) -> str | None:
    if not isinstance(value, list):
        return None
    return next(filter(None, (problem(each, wanted, root) for each in value)), None)


def _same(left: Any, right: Any) -> bool:
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _length(keyword: str, kind: type, is_least: bool) -> _Check:
    def check(value: Any, wanted: Any, schema: Schema, root: Schema) -> str | None:
        if not isinstance(value, kind):
            return None
        size = len(value)  # type: ignore[arg-type]
        return _said(size < wanted if is_least else size > wanted, keyword, value, wanted)

    return check


def _is_date(value: str) -> bool:
    try:
        return date.fromisoformat(value) is not None and len(value) == 10
    except ValueError:
        # Also 30 February is of the form, which is all that a grammar can see.
        return re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", value) is not None


_CHECKS: dict[str, _Check] = {
    "type": _type,
    "properties": _properties,
    "items": _items,
    "required": lambda v, w, s, r: (
        _said(not set(w) <= set(v), "required", v, w) if isinstance(v, dict) else None
    ),
    "enum": lambda v, w, s, r: _said(not any(_same(v, each) for each in w), "enum", v, w),
    "const": lambda v, w, s, r: _said(not _same(v, w), "const", v, w),
    "anyOf": lambda v, w, s, r: _said(all(problem(v, each, r) for each in w), "anyOf", v, w),
    "$ref": lambda v, w, s, r: problem(v, r["$defs"][w.rsplit("/", 1)[1]], r),
    "pattern": lambda v, w, s, r: _said(not re.search(w, v), "pattern", v, w),
    "format": lambda v, w, s, r: _said(not _is_date(v), "format", v, w),
    "minimum": lambda v, w, s, r: _said(v < w, "minimum", v, w),
    "maximum": lambda v, w, s, r: _said(v > w, "maximum", v, w),
    "exclusiveMinimum": lambda v, w, s, r: _said(v <= w, "exclusiveMinimum", v, w),
    "minLength": _length("minLength", str, True),
    "maxLength": _length("maxLength", str, False),
    "minItems": _length("minItems", list, True),
    "maxItems": _length("maxItems", list, False),
}
