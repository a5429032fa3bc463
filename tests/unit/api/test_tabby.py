"""TabbyAPI's routes through the front door."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from innkeeper.hub.client import Hub
from tests.hub import LocalHub
from tests.hub.fixtures import hf_home, hub, server, waits
from tests.unit.api.gateway import Gateway

__all__ = ["hf_home", "hub", "server", "waits"]


def test_status_calls_of_clients(client: httpx.Client) -> None:
    card = client.get("/v1/model").json()
    assert card["id"] == "fake" and card["parameters"]["max_seq_len"] == 2048
    listed = client.get("/v1/model/list").json()["data"]
    assert [each["id"] for each in listed] == ["fake"]
    assert client.get("/v1/auth/permission").json() == {"permission": "admin"}
    assert "Alpaca" in client.get("/v1/template/list").json()["data"]
    assert client.get("/v1/loras").json()["data"] == []
    assert "min-p" in client.get("/v1/sampling/overrides").json()["presets"]


def test_tokens_are_counted_without_bos_unless_asked(client: httpx.Client) -> None:
    path = "/v1/token/encode"
    body = {"text": "hé", "add_bos_token": False, "encode_special_tokens": False}
    assert client.post(path, json=body).json() == {"tokens": [104, 195, 169], "length": 3}
    assert client.post(path, json={"text": "h"}).json()["length"] == 1
    assert client.post(path, json={"text": "h", "add_bos_token": True}).json()["length"] == 2
    chat = client.post(path, json={"text": [{"role": "user", "content": "hi"}]}).json()
    text = client.post("/v1/token/decode", json={"tokens": chat["tokens"]}).json()["text"]
    assert "<|im_start|>user\nhi" in text


def test_load_streams_its_progress_and_unload_ends_it(two: Gateway) -> None:
    with two.client() as client:
        assert client.get("/v1/model").status_code == 503
        body = {"model_name": "b", "max_seq_len": 512, "cache_mode": "Q8"}
        response = client.post("/v1/model/load", json=body)
        assert response.headers["content-type"].startswith("text/event-stream")
        blocks = [block for block in response.text.split("\n\n") if block]
        steps = [json.loads(block.removeprefix("data: ")) for block in blocks]
        assert {step["model_type"] for step in steps} == {"model"}
        assert [step["status"] for step in steps].count("finished") == 1
        assert steps[-1]["status"] == "finished" and steps[-1]["module"] == steps[-1]["modules"]
        assert client.get("/v1/model").json()["parameters"]["max_seq_len"] == 512
        assert client.post("/v1/model/unload").json() is None
        assert client.get("/v1/model").status_code == 503


def test_errors_have_tabbys_shape(two: Gateway) -> None:
    with two.client() as client:
        unknown = client.post("/v1/model/load", json={"model_name": "c"})
        assert unknown.status_code == 404 and "'c'" in unknown.json()["detail"]
        bad = client.post("/v1/model/load", json={"model_name": "a", "max_seq_len": "many"})
        assert bad.status_code == 400 and bad.json()["detail"].startswith("max_seq_len")
        assert client.post("/v1/download", json={}).status_code == 400


CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def own(tmp_path: Path, hub: Hub) -> Iterator[httpx.Client]:
    """A gateway whose state a test may change."""
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "style.gguf").write_bytes(b"GGUF")
    with Gateway(tmp_path, model=tmp_path / "a.gguf", hub=hub) as running, running.client() as own:
        yield own


def prompt(client: httpx.Client, **fields: Any) -> str:
    text: str = client.post("/v1/internal/chat-prompt", json={**CHAT, **fields}).json()["prompt"]
    return text


def test_a_switched_template_is_for_chats_that_bring_none(own: httpx.Client) -> None:
    path = "/v1/template/switch"
    assert own.post(path, json={"prompt_template_name": "alpaca"}).json() is None
    assert prompt(own) == "### Instruction:\nhi\n\n### Response:\n"
    assert prompt(own, chat_template="{{ messages[0].content }}!") == "hi!"
    assert own.get("/v1/model").json()["parameters"]["prompt_template"] == "Alpaca"
    bad = own.post(path, json={"prompt_template_name": "nope"})
    assert bad.status_code == 400 and "ChatML" in bad.json()["detail"]
    assert own.post("/v1/template/unload").status_code == 200
    assert "<|im_start|>" in prompt(own)


def test_a_load_may_name_its_template(own: httpx.Client) -> None:
    body = {"model_name": "a", "prompt_template": "Llama-3", "vision": True}
    last = own.post("/v1/model/load", json=body).text.split("\n\n")[-2]
    assert json.loads(last.removeprefix("data: "))["warnings"] == ["not applied: vision"]
    assert prompt(own).startswith("<|start_header_id|>user")
    load = "/v1/internal/model/load"
    own.post(load, json={"model_name": "a", "settings": {"instruction_template": "Vicuna"}})
    assert prompt(own) == "USER: hi ASSISTANT:"
    own.post(load, json={"model_name": "a"})
    assert "<|im_start|>" in prompt(own), "a load forgets the one before"
    refused = own.post(load, json={"model_name": "a", "settings": {"x": 1}})
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "settings"


def test_overrides_stand_for_requests_that_leave_them_open(own: httpx.Client) -> None:
    path = "/v1/sampling/override/switch"
    given = {"max_new_tokens": {"override": 3}, "stop": {"override": ["\n"], "additive": True}}
    assert own.post(path, json={"overrides": given}).status_code == 200
    listed = own.get("/v1/sampling/overrides").json()
    assert listed["overrides"]["max_new_tokens"]["override"] == 3

    def length(**fields: Any) -> int:
        body = {"prompt": "a", "stop": "zzz", **fields}
        count: int = own.post("/v1/completions", json=body).json()["usage"]["completion_tokens"]
        return count

    assert (length(), length(max_tokens=5)) == (3, 5)
    forced = {"max_new_tokens": {"override": 2, "force": True}}
    own.post(path, json={"overrides": forced})
    assert length(max_tokens=5) == 2
    assert own.post(path, json={"preset": "min-p"}).status_code == 200
    assert own.get("/v1/sampling/overrides").json()["selected_preset"] == "min-p"
    own.post("/v1/sampling/override/unload")
    assert own.get("/v1/sampling/overrides").json()["overrides"] == {}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"preset": "nope"},
        {"overrides": []},
        {"overrides": {"nope": {"override": 1}}},
        {"overrides": {"temperature": 1}},
        {"overrides": {"temperature": {"override": "hot"}}},
    ],
)
def test_an_override_that_no_request_could_have_is_refused(
    client: httpx.Client, body: dict[str, Any]
) -> None:
    assert client.post("/v1/sampling/override/switch", json=body).status_code == 400


def test_a_download_answers_with_the_models_name(own: httpx.Client, server: LocalHub) -> None:
    server.add("org/m", {"m-Q4_K_M.gguf": b"GGUF", "m-Q8_0.gguf": b"GGUF8"})
    body = {"repo_id": "org/m", "include": ["*Q8_0*"], "folder_name": "x"}
    answer = own.post("/v1/download", json=body).json()
    assert answer == {"download_path": "org/m/m-Q8_0", "warnings": ["not applied: folder_name"]}
    assert "org/m/m-Q8_0" in [each["id"] for each in own.get("/v1/model/list").json()["data"]]
    none = own.post("/v1/download", json={"repo_id": "org/m", "include": ["*.exe"]})
    assert none.status_code == 404 and "include" in none.json()["detail"]
    bad = own.post("/v1/download", json={"repo_id": "../x"})
    assert bad.status_code == 400 and bad.json()["detail"].startswith("repo_id: ")
    assert own.post("/v1/download", json={**body, "repo_type": "dataset"}).status_code == 400


def test_adapters_are_loaded_and_unloaded_by_name_in_three_dialects(own: httpx.Client) -> None:
    assert [each["id"] for each in own.get("/v1/loras").json()["data"]] == ["style"]
    wanted = [{"name": "style", "scaling": 0.5}, {"name": "../a"}]
    answer = own.post("/v1/lora/load", json={"loras": wanted}).json()
    assert answer == {"success": ["style"], "failure": ["../a"]}
    adapters = [{"id": 0, "path": "style.gguf", "scale": 0.5}]
    assert own.get("/lora-adapters").json() == adapters
    scaled = own.post("/lora-adapters", json=[{"id": 0, "scale": 0.25}])
    assert scaled.json() == {"success": True}
    assert own.get("/v1/lora").json()["data"][0]["scaling"] == 0.25
    assert own.post("/lora-adapters", json=[{"id": 1, "scale": 1}]).status_code == 400
    assert own.post("/v1/internal/lora/unload").json() == "OK"
    assert own.get("/v1/internal/lora/list").json() == {"lora_names": []}
    assert own.post("/v1/internal/lora/load", json={"lora_names": ["style"]}).json() == "OK"
    assert own.get("/v1/internal/model/info").json()["lora_names"] == ["style"]
    missing = own.post("/v1/internal/lora/load", json={"lora_names": ["none"]})
    assert missing.status_code == 404 and "style" in missing.text


def test_embedding_models_are_loaded_beside_by_name(two: Gateway) -> None:
    with two.client() as client:
        path = "/v1/model/embedding/load"
        done = client.post(path, json={"embedding_model_name": "b"}).json()
        assert done["status"] == "finished"
        assert client.post(path, json={"embedding_model_name": "c"}).status_code == 404
        assert client.get("/v1/model/embedding/list").json()["data"] == [], "it writes text"
        assert client.post("/v1/model/embedding/unload").status_code == 200
