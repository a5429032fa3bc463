"""The form that a reply must have, from the fields of every dialect.

At most one form can be asked for; the same one under two names is fine. What cannot be compiled is
refused by the engine, so no reply to such a request is ever without its form.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from innkeeper.api import values
from innkeeper.core import Constraint
from innkeeper.errors import InvalidRequestError

_MAX_CHARS = 1024 * 1024
_MAX_CHOICES = 4096
_read_text = values.text(_MAX_CHARS)
_read_choices = values.texts(_MAX_CHOICES, _MAX_CHARS)

Reader = Callable[[str, Any], Constraint | None]


class Form(NamedTuple):
    """A field that asks for a form."""

    names: tuple[str, ...]
    read: Reader
    about: str
    kind: str
    """JSON type, for the documentation."""


def json_schema(field: str, value: Any) -> Constraint:
    """A JSON schema as an object, or as text."""
    if isinstance(value, str):
        return Constraint("json_schema", _read_text(field, value), field)
    if not isinstance(value, dict):
        raise values.refuse(field, "a JSON schema", value)
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        raise values.refuse(field, "a JSON schema", value) from None
    return Constraint("json_schema", _read_text(field, text), field)


def grammar(field: str, value: Any) -> Constraint:
    """GBNF or Lark, whichever the text is, or a JSON schema as text (KoboldCpp)."""
    text: str = _read_text(field, value)
    if text.lstrip().startswith("{"):
        return Constraint("json_schema", text, field)
    return Constraint("gbnf" if "::=" in text else "lark", text, field)


def regex(field: str, value: Any) -> Constraint:
    return Constraint("regex", _read_text(field, value), field)


def choices(field: str, value: Any) -> Constraint:
    """A list of texts, one of which is the whole reply."""
    if not isinstance(value, list):
        raise values.refuse(field, "a list of texts", value)
    return Constraint("choice", json.dumps(_read_choices(field, value), ensure_ascii=False), field)


def json_object(field: str) -> Constraint:
    return Constraint("json_object", "", field)


def response_format(field: str, value: Any) -> Constraint | None:
    """OpenAI's object; llama.cpp's and Tabby's variants of it."""
    kind = value.get("type") if isinstance(value, dict) else value
    if kind == "text":
        return None
    if not isinstance(value, dict) or kind not in ("json", "json_object", "json_schema"):
        raise values.refuse(field, "an object of type text, json_object or json_schema", value)
    wrapper = value.get("json_schema")
    schema = wrapper.get("schema") if isinstance(wrapper, dict) else None
    schema = schema if schema is not None else value.get("schema")
    if schema is not None:
        return json_schema(field, schema)
    if kind == "json_schema":
        raise values.refuse(field, "an object with json_schema.schema", value)
    return json_object(field)


def structured_outputs(field: str, value: Any) -> Constraint | None:
    """vLLM's object with one of json, regex, choice, grammar and json_object."""
    if not isinstance(value, dict):
        raise values.refuse(field, "an object", value)
    if value.get("structural_tag"):
        raise values.refuse(f"{field}.structural_tag", "left out: it is not supported", "...")
    readers: dict[str, Reader] = {
        "json": json_schema,
        "regex": regex,
        "choice": choices,
        "grammar": grammar,
    }
    found = [
        read(f"{field}.{name}", value[name]) for name, read in readers.items() if value.get(name)
    ]
    if value.get("json_object"):
        found.append(json_object(f"{field}.json_object"))
    return _only(found)


FORMS: tuple[Form, ...] = (
    Form(("response_format",), response_format, "json_object, json_schema or text", "object"),
    Form(("json_schema", "guided_json"), json_schema, "the reply is JSON of this schema", "object"),
    Form(
        ("grammar", "grammar_string", "guided_grammar"),
        grammar,
        "the reply follows this GBNF or Lark grammar",
        "string",
    ),
    Form(("guided_regex", "regex_pattern"), regex, "the reply matches this as a whole", "string"),
    Form(("guided_choice",), choices, "the reply is one of these", "array"),
    Form(("structured_outputs",), structured_outputs, "json, regex, choice or grammar", "object"),
)

NAMES = frozenset(name for form in FORMS for name in form.names)


def constraint(body: Mapping[str, Any]) -> Constraint | None:
    """What ``body`` asks for; empty values ask for nothing.

    Raises: InvalidRequestError naming the field of a wrong type, or the second of two forms.
    """
    return _only(
        [form.read(name, body[name]) for form in FORMS for name in form.names if body.get(name)]
    )


def _only(found: list[Constraint | None]) -> Constraint | None:
    first = None
    for each in found:
        if each is None:
            continue
        if first is not None and (each.kind, each.text) != (first.kind, first.text):
            raise InvalidRequestError(
                f"{first.field} and {each.field} ask for two different forms of the reply",
                field=each.field,
                hint="send one of them",
            )
        first = first or each
    return first
