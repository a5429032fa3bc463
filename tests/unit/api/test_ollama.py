"""Ollama's routes through the front door."""

import json
import socket
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from innkeeper.api import ollama_fields
from innkeeper.core.request import WHOLE_CONTEXT
from innkeeper.errors import InvalidRequestError
from tests.unit.api.gateway import Gateway

OPTIONS = {"temperature": 0, "num_predict": 12}
RAW = {"model": "fake", "prompt": "Once", "raw": True, "options": OPTIONS}
CHAT = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "options": OPTIONS}


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def parsed(is_chat: bool = False, **body: Any) -> ollama_fields.Call:
    return ollama_fields.parse({**(CHAT if is_chat else RAW), **body}, is_chat=is_chat)


@pytest.mark.parametrize(("path", "body"), [("/api/generate", RAW), ("/api/chat", CHAT)])
def test_streaming_is_the_default_and_joins_to_the_whole(
    client: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    whole = client.post(path, json={**body, "stream": False}).json()
    found = lines(client.post(path, json=body))
    key = "response" if path == "/api/generate" else "message"
    texts = [line[key] if key == "response" else line[key]["content"] for line in found]
    assert "".join(texts) == (whole[key] if key == "response" else whole[key]["content"])
    assert [line["done"] for line in found] == [False] * 12 + [True]
    last = found[-1]
    assert (last["done_reason"], last["eval_count"], last["model"]) == ("length", 12, "fake")
    assert isinstance(last["total_duration"], int) and last["prompt_eval_count"] >= 5
    assert all(line["created_at"].endswith("Z") for line in found)


def test_each_line_is_a_chunk_of_its_own(gateway: Gateway) -> None:
    with gateway.client() as client:
        request = client.build_request("POST", "/api/generate", json=RAW)
    head = [b"POST /api/generate HTTP/1.1"]
    head += [name + b": " + value for name, value in request.headers.raw]
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"\r\n".join(head) + b"\r\n\r\n" + request.content)
        answer = connection.makefile("rb")
        while answer.readline() != b"\r\n":
            pass
        chunks = []
        while size := int(answer.readline(), 16):
            chunks.append(answer.read(size))
            assert answer.readline() == b"\r\n"
    assert len(chunks) == 13
    assert all(chunk.count(b"\n") == 1 and chunk.endswith(b"}\n") for chunk in chunks)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "penalty_range": 64}),
        ({"repeat_last_n": 0}, {"penalty_range": 0}),
        ({"repeat_last_n": -1}, {"penalty_range": WHOLE_CONTEXT}),
        ({"repeat_penalty": 1.2}, {"repetition_penalty": 1.2}),
        ({"tfs_z": 0.5}, {"tfs": 0.5}),
        ({"typical_p": 0.5, "min_p": 0.2}, {"typical_p": 0.5, "min_p": 0.2}),
        ({"seed": 5}, {"seed": 5}),
        ({"mirostat": 1}, {"mirostat": 1}),
        ({"presence_penalty": 1, "frequency_penalty": 2}, {"presence_penalty": 1.0}),
    ],
)
def test_options_mean_what_ollama_means(options: dict[str, Any], expected: dict[str, Any]) -> None:
    sampling = parsed(options=options).request.sampling
    assert {name: getattr(sampling, name) for name in expected} == expected


def test_context_size_truncates_unless_forbidden() -> None:
    options = {"num_ctx": 1000, "num_predict": 100}
    assert parsed(options=options).request.truncate_to == 900
    assert parsed(options=options, truncate=False).request.truncate_to is None
    assert parsed(options={}).request.max_tokens is None
    assert parsed().request.drops_turns and not parsed(truncate=False).request.drops_turns


def test_raw_text_is_taken_as_it_is_and_other_text_as_a_turn() -> None:
    assert parsed().request.prompt == "Once"
    request = parsed(raw=False, system="Be kind.").request
    assert request.messages is not None
    assert [(each.role, each.content) for each in request.messages] == [
        ("system", "Be kind."),
        ("user", "Once"),
    ]


@pytest.mark.parametrize(
    ("think", "expected"),
    [
        (None, {}),
        (False, {"enable_thinking": False}),
        ("high", {"enable_thinking": True, "reasoning_effort": "high"}),
    ],
)
def test_thinking_reaches_the_template(think: object, expected: dict[str, Any]) -> None:
    request = parsed(is_chat=True, think=think).request
    assert request.template_kwargs == expected
    assert request.reasoning_budget == (0 if think is False else None)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"options": {"num_gpu": 5}}, "num_gpu"),
        ({"options": {"frobnicate": 5}}, "frobnicate"),
        ({"template": "{{ .Prompt }}"}, "template"),
        ({"context": [1, 2]}, "context"),
        ({"tools": [{"type": "function"}]}, "tools"),
    ],
)
def test_what_cannot_be_applied_is_reported(body: dict[str, Any], named: str) -> None:
    assert parsed().request.warnings == ()
    (warning,) = parsed(**body).request.warnings
    assert named in warning


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"options": []}, None),
        ({"options": 5}, "options"),
        ({"options": {"top_p": 2}}, "top_p"),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"format": "xml"}, "format"),
        ({"think": "hard"}, "think"),
        ({"stream": "maybe"}, "stream"),
        ({"suffix": 5}, "suffix"),
        ({"images": ["aGk="]}, "images"),
        ({"top_logprobs": 50}, "top_logprobs"),
    ],
)
def test_bad_fields_are_named(body: dict[str, Any], field: str | None) -> None:
    if field is None:
        parsed(**body)
        return
    with pytest.raises(InvalidRequestError) as caught:
        parsed(**body)
    assert caught.value.field == field


def test_tools_reach_the_template_and_bad_ones_are_named() -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    use = parsed(is_chat=True, tools=[tool]).request.tools
    assert use is not None and use.names == ("look",)
    with pytest.raises(InvalidRequestError) as caught:
        parsed(is_chat=True, tools=[{"type": "function", "function": {"name": "a b"}}])
    assert caught.value.field == "tools[0].function.name"


def test_messages_with_images_are_refused(client: httpx.Client) -> None:
    messages = [{"role": "user", "content": "what?", "images": ["aGk="]}]
    response = client.post("/api/chat", json={**CHAT, "messages": messages})
    assert response.status_code == 400
    assert "messages[0].images" in response.json()["error"]


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
def test_format_is_obeyed(client: httpx.Client, path: str) -> None:
    schema = {"enum": ["yes", "no"]}
    body = {**RAW, **CHAT, "format": schema, "stream": False, "options": {"num_predict": 50}}
    answer = client.post(path, json=body).json()
    text = answer["response"] if path == "/api/generate" else answer["message"]["content"]
    assert json.loads(text) in ("yes", "no")


def test_logprobs_come_with_each_line(client: httpx.Client) -> None:
    found = lines(client.post("/api/generate", json={**RAW, "logprobs": True, "top_logprobs": 2}))
    assert [len(line["logprobs"]) for line in found[:-1]] == [1] * 12
    assert len(found[0]["logprobs"][0]["top_logprobs"]) == 2
    whole = client.post("/api/generate", json={**RAW, "logprobs": True, "stream": False}).json()
    assert len(whole["logprobs"]) == 12


def test_status_calls_of_clients(client: httpx.Client) -> None:
    assert client.get("/").text == "Ollama is running"
    assert client.head("/").status_code == 200
    assert set(client.get("/api/version").json()) == {"version"}
    (tag,) = client.get("/api/tags").json()["models"]
    assert tag["name"] == tag["model"] == "fake:latest" and len(tag["digest"]) == 64
    (loaded,) = client.get("/api/ps").json()["models"]
    assert (loaded["name"], loaded["context_length"]) == ("fake:latest", 2048)
    shown = client.post("/api/show", json={"model": "fake"}).json()
    assert shown["capabilities"] == ["completion", "tools"] and shown["details"]["format"] == "gguf"


def test_model_is_loaded_by_its_name_and_unloaded_by_keep_alive(two: Gateway) -> None:
    with two.client() as client:
        for name in ("a", "b:latest"):
            answer = client.post("/api/generate", json={**RAW, "model": name, "stream": False})
            assert len(answer.json()["response"]) == 12
            assert answer.json()["model"] == name
        loaded = [each["name"] for each in client.get("/api/ps").json()["models"]]
        assert sorted(loaded) == ["a:latest", "b:latest"]
        gone = client.post("/api/generate", json={"model": "b", "keep_alive": 0}).json()
        assert gone["done_reason"] == "unload"
        empty = client.post("/api/generate", json={"model": "a"}).json()
        assert (empty["done"], empty["done_reason"], empty["response"]) == (True, "load", "")
        ended = client.post("/api/chat", json={"model": "a", "messages": [], "keep_alive": 0})
        assert ended.json()["done_reason"] == "unload"
        assert client.get("/api/ps").json() == {"models": []}


def test_keep_alive_is_how_long_the_model_stays(two: Gateway) -> None:
    with two.client() as client:
        kept = {**RAW, "model": "a", "stream": False, "keep_alive": "1h30m"}
        client.post("/api/generate", json=kept)
        (loaded,) = client.get("/api/ps").json()["models"]
        left = datetime.fromisoformat(loaded["expires_at"]) - datetime.now(UTC)
        assert 5300 < left.total_seconds() < 5401
        client.post("/api/generate", json={**RAW, "model": "a", "stream": False, "keep_alive": 0})
        while client.get("/api/ps").json()["models"]:
            time.sleep(0.02)


def test_messages_that_are_no_list_are_refused() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parsed(is_chat=True, messages=2**63)
    assert caught.value.field == "messages"


def test_unknown_model_is_404(client: httpx.Client) -> None:
    for path in ("/api/generate", "/api/chat", "/api/show"):
        response = client.post(path, json={"model": "other", "prompt": "a"})
        assert response.status_code == 404
        assert "model 'other' not found" in response.json()["error"]


def test_prompt_over_the_context_is_an_error_line_of_its_own(client: httpx.Client) -> None:
    response = client.post("/api/generate", json={**RAW, "prompt": "x" * 5000})
    assert response.status_code == 400
    assert "2048" in response.json()["error"]
