"""Fields that ask for a form of the reply, and replies that have it."""

import json
import re
from typing import Any

import httpx
import pytest

from innkeeper.api.constraints import FORMS, constraint
from innkeeper.core import Constraint
from innkeeper.errors import InvalidRequestError
from tests.unit.api.test_completions import post, stream

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TEXT = json.dumps(SCHEMA)
GBNF = 'root ::= "a" | "b"'
LARK = 'start: "a" | "b"'


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        ({"response_format": {"type": "json_object"}}, "json_object", ""),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, "json_schema", TEXT),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
            "json_schema",
            TEXT,
        ),
        ({"response_format": {"type": "json_schema", "schema": {}}}, "json_schema", "{}"),
        ({"json_schema": SCHEMA}, "json_schema", TEXT),
        ({"json_schema": TEXT}, "json_schema", TEXT),
        ({"guided_json": SCHEMA}, "json_schema", TEXT),
        ({"grammar": GBNF}, "gbnf", GBNF),
        ({"grammar": TEXT}, "json_schema", TEXT),
        ({"grammar_string": LARK}, "lark", LARK),
        ({"guided_grammar": GBNF}, "gbnf", GBNF),
        ({"guided_regex": "a+"}, "regex", "a+"),
        ({"regex_pattern": "a+"}, "regex", "a+"),
        ({"guided_choice": ["a", "b"]}, "choice", '["a", "b"]'),
        ({"structured_outputs": {"choice": ["a"]}}, "choice", '["a"]'),
        ({"structured_outputs": {"json": SCHEMA}}, "json_schema", TEXT),
        ({"structured_outputs": {"json_object": True}}, "json_object", ""),
    ],
)
def test_each_field_becomes_the_constraint_it_means(
    body: dict[str, Any], kind: str, text: str
) -> None:
    found = constraint(body)
    assert found is not None and (found.kind, found.text) == (kind, text)
    assert found.field.split(".")[0] == next(iter(body))


def test_empty_values_ask_for_nothing() -> None:
    empty = {name: None for form in FORMS for name in form.names}
    empty |= {"grammar": "", "json_schema": {}, "guided_choice": []}  # type: ignore[dict-item]
    off = {"response_format": {"type": "text"}, "tool_choice": "auto"}
    assert constraint({**empty, **off}) is None


def test_one_form_under_two_names_is_one() -> None:
    found = constraint({"grammar": GBNF, "grammar_string": GBNF})
    assert found == Constraint("gbnf", GBNF, "grammar")


def test_two_forms_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="two different forms") as caught:
        constraint({"grammar": GBNF, "guided_regex": "a+"})
    assert caught.value.field == "guided_regex"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_schema_with_a_number_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(InvalidRequestError, match="json_schema"):
        constraint({"json_schema": {"minimum": value}})


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("body", "pattern"),
    [
        ({"guided_regex": "[0-9]{5}x"}, "[0-9]{5}x"),
        ({"grammar_string": GBNF}, "a|b"),
        ({"grammar": LARK}, "a|b"),
        ({"guided_choice": ["yes", "no"]}, "yes|no"),
        ({"json_schema": {"type": "boolean"}}, "true|false"),
        ({"response_format": {"type": "json_schema", "schema": {"enum": [1, 2]}}}, "1|2"),
    ],
)
def test_reply_has_the_form(
    client: httpx.Client, path: str, streamed: bool, body: dict[str, Any], pattern: str
) -> None:
    asked = {"temperature": 2, "max_tokens": 50, **body}
    if path.endswith("chat/completions"):
        asked["messages"] = [{"role": "user", "content": "hi"}]
    else:
        asked["prompt"] = "hi"
    if streamed:
        texts = [
            choice.get("text") or choice.get("delta", {}).get("content") or ""
            for chunk in stream(client, path, **asked)
            for choice in chunk["choices"]
        ]
        text = "".join(texts)
    else:
        (choice,) = post(client, path, **asked)["choices"]
        text = choice["text"] if "text" in choice else choice["message"]["content"]
    assert re.fullmatch(pattern, text), text


def test_reply_is_a_json_object(client: httpx.Client) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["Ann", "Bob"]}, "ok": {"type": "boolean"}},
        "required": ["name", "ok"],
        "additionalProperties": False,
    }
    (choice,) = post(client, prompt="hi", json_schema=schema, max_tokens=200)["choices"]
    assert choice["finish_reason"] == "stop"
    assert json.loads(choice["text"]).keys() == {"name", "ok"}
