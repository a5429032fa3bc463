"""The model that a request names answers it, in every dialect."""

from typing import Any

import httpx
import pytest

from tests.unit.api.gateway import Gateway

CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
CALLS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "hi", "max_tokens": 3},
    "/v1/chat/completions": CHAT,
    "/v1/messages": CHAT,
    "/completion": {"prompt": "hi", "n_predict": 3},
    "/api/chat": {**CHAT, "stream": False},
}


def test_two_models_answer_under_their_names(two: Gateway) -> None:
    with two.client() as client:
        for name in "ab":
            for path, body in CALLS.items():
                answer = client.post(path, json={**body, "model": name})
                assert (answer.status_code, answer.json()["model"]) == (200, name), path
        listed = client.get("/v1/models").json()["data"]
        assert {each["status"]["value"] for each in listed} == {"loaded"}
        assert client.get("/props", params={"model": "b"}).json()["model_alias"] == "b"
        tokens = client.post("/tokenize", json={"content": "hi", "model": "b"}).json()["tokens"]
        assert tokens == [104, 105]
        state = client.get("/innkeeper/v1/status").json()
        assert {each["name"] for each in state["loaded"]} == {"a", "b"}


@pytest.mark.parametrize("path", CALLS)
def test_an_unknown_model_is_404_with_the_names(two: Gateway, path: str) -> None:
    with two.client() as client:
        for name in "ab":
            client.post("/v1/completions", json={"prompt": "hi", "max_tokens": 1, "model": name})
        for stream in (False, True):
            answer = client.post(path, json={**CALLS[path], "model": "gpt-4", "stream": stream})
            assert answer.status_code == 404
            assert "gpt-4" in answer.text and "a, b" in answer.text


@pytest.mark.parametrize("path", [path for path in CALLS if not path.startswith("/api")])
def test_the_only_model_answers_to_any_name(client: httpx.Client, path: str) -> None:
    answer = client.post(path, json={**CALLS[path], "model": "gpt-3.5-turbo"}).json()
    assert answer["model"] == "fake"
    assert any("gpt-3.5-turbo" in warning for warning in answer["warnings"])


def test_a_name_that_is_no_text_is_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/completions", json={"prompt": "hi", "model": {"a": 1}})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
