"""TabbyAPI's routes through the front door."""

import json

import httpx

from tests.unit.api.gateway import Gateway


def test_status_calls_of_clients(client: httpx.Client) -> None:
    card = client.get("/v1/model").json()
    assert card["id"] == "fake" and card["parameters"]["max_seq_len"] == 2048
    listed = client.get("/v1/model/list").json()["data"]
    assert [each["id"] for each in listed] == ["fake"]
    assert client.get("/v1/auth/permission").json() == {"permission": "admin"}
    assert client.get("/v1/template/list").json()["data"] == ["chatml"]
    assert client.get("/v1/loras").json()["data"] == []
    assert client.get("/v1/sampling/overrides").json()["presets"] == []


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
        assert client.post("/v1/download", json={}).status_code == 501
