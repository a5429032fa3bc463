"""What no client should send: one clear line each, and the server goes on."""

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.unit.api.gateway import Gateway

PATH = "/v1/completions"


@pytest.fixture(autouse=True)
def still_answers(client: httpx.Client, gateway: Gateway) -> Iterator[None]:
    """After each test the same engine process answers."""
    link = gateway.models.link
    yield
    assert gateway.models.link is link and link is not None and link.alive
    assert client.post(PATH, json={"prompt": "hi", "max_tokens": 1}).status_code == 200


def refused(response: httpx.Response, status: int = 400) -> dict[str, str]:
    assert response.status_code == status, response.text[:300]
    error: dict[str, str] = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert len(error["message"]) < 400
    assert "Traceback" not in response.text
    return error


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"prompt": "\xff"}',
        b"{'prompt': 'a'}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
    ],
)
def test_malformed_json_is_400(client: httpx.Client, body: bytes) -> None:
    refused(client.post(PATH, content=body))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400", "1" + "0" * 400])
@pytest.mark.parametrize("field", ["temperature", "top_k", "seed", "max_tokens", "dry_base"])
def test_numbers_that_are_none_name_their_field(
    client: httpx.Client, field: str, value: str
) -> None:
    body = f'{{"prompt": "a", "{field}": {value}}}'
    assert refused(client.post(PATH, content=body))["param"] == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", None),
        ("prompt", 5),
        ("prompt", []),
        ("prompt", [["a"]]),
        ("prompt", [1, "a"]),
        ("prompt", [-1]),
        ("prompt", [999_999]),
        ("prompt", ["a"] * 100),
        ("stop", 5),
        ("stop", ["a"] * 1000),
        ("stop", ["a" * 100_000]),
        ("stream", "maybe"),
        ("stream_options", 5),
        ("n", 0),
        ("n", 1000),
        ("logprobs", 5000),
        ("logit_bias", {"cat": 1}),
        ("logit_bias", {"999999": 1}),
        ("logit_bias", 5),
        ("custom_token_bans", "one"),
        ("dry_sequence_breakers", "[1, 2"),
        ("grammar_string", "root ::= 'a'"),
        ("grammar", "start: ("),
        ("json_schema", "{"),
        ("json_schema", {"type": "wish"}),
        ("guided_regex", "("),
        ("guided_choice", [5]),
        ("guided_choice", "a"),
        ("response_format", {"type": "xml"}),
        ("response_format", {"type": "json_schema"}),
        ("tool_choice", "required"),
    ],
)
def test_wrong_types_and_ranges_name_their_field(
    client: httpx.Client, field: str, value: object
) -> None:
    error = refused(client.post(PATH, json={"prompt": "a", "max_tokens": 1, field: value}))
    assert error["param"] == field


def test_ten_megabytes_of_prompt_name_both_numbers(client: httpx.Client) -> None:
    error = refused(client.post(PATH, json={"prompt": "x" * 10_000_000}))
    assert error["code"] == "context_length_exceeded" and error["param"] == "prompt"
    assert "10000000" in error["message"] and "2048" in error["message"]


def test_prompt_over_the_context_names_the_slider(client: httpx.Client) -> None:
    error = refused(client.post(PATH, json={"prompt": "x" * 2048}))
    assert "2049 tokens" in error["message"] and "2048" in error["message"]
    assert "Context (tokens)" in error["message"] and "--ctx" in error["message"]


@pytest.mark.parametrize("chunked", [False, True])
def test_body_over_the_limit_is_413_before_it_is_parsed(
    client: httpx.Client, chunked: bool
) -> None:
    size, piece = 17 * 1024 * 1024, b"[" * 65536
    content = (piece for _ in range(size // len(piece))) if chunked else b"[" * size
    error = refused(client.post(PATH, content=content), 413)
    assert "16.0 MiB" in error["message"]


def test_surrogates_and_control_characters_are_text(client: httpx.Client) -> None:
    body = b'{"prompt": "\\ud800 \\u0000 \\udfff", "max_tokens": 1, "stop": "\\udc00"}'
    assert client.post(PATH, content=body).status_code == 200


def test_deep_unknown_field_is_only_unknown(client: httpx.Client) -> None:
    deep = json.loads("[" * 500 + "]" * 500)
    answer = client.post(PATH, json={"prompt": "a", "max_tokens": 1, "what": deep}).json()
    assert answer["warnings"] == ["unknown fields ignored: 'what'"]


def test_unknown_route_and_method_have_the_same_shape(client: httpx.Client) -> None:
    assert "/nope" in refused(client.get("/nope"), 404)["message"]
    assert "GET" in refused(client.get(PATH), 405)["message"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("encode", {}, "text"),
        ("encode", {"text": 5}, "text"),
        ("encode", {"text": "x" * 5_000_000}, "text"),
        ("token-count", {"text": None}, "text"),
        ("decode", {"tokens": "a"}, "tokens"),
        ("decode", {"tokens": [999_999]}, "tokens"),
        ("logits", {"prompt": "a", "top_logits": 0}, "top_logits"),
        ("chat-prompt", {}, "messages"),
        ("model/load", {}, "model_name"),
        ("model/load", {"model_name": 5}, "model_name"),
    ],
)
def test_internal_routes_name_the_field(
    client: httpx.Client, path: str, body: dict[str, object], field: str
) -> None:
    assert refused(client.post(f"/v1/internal/{path}", json=body))["param"] == field
