"""Ollama's pull, delete, copy and create, with a hub of the tests' own."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from innkeeper.hub.client import Hub
from innkeeper.hub.download import Download
from tests.hub import LocalHub
from tests.hub.bytes import noise
from tests.hub.fixtures import hf_home, hub, server, waits
from tests.hub.models import write_llama
from tests.unit.api.gateway import Gateway

__all__ = ["hf_home", "hub", "server", "waits"]

CONTENT = b"GGUF" + noise(1_000_000)
NAME = "m-Q4_K_M.gguf"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "a.gguf").write_bytes(b"GGUF")
    return folder


@pytest.fixture
def stocked(models: Path, hub: Hub) -> Iterator[Gateway]:
    with Gateway(models, model=None, hub=hub) as running:
        yield running


@pytest.fixture
def client(stocked: Gateway) -> Iterator[httpx.Client]:
    with stocked.client() as client:
        yield client


def lines(client: httpx.Client, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def names(client: httpx.Client) -> list[str]:
    return [each["name"] for each in client.get("/api/tags").json()["models"]]


def test_a_pulled_model_is_loaded_by_the_name_it_was_pulled_by(
    client: httpx.Client, server: LocalHub, models: Path
) -> None:
    server.add("org/m", {NAME: CONTENT, "m-Q8_0.gguf": CONTENT})
    wanted = "hf.co/org/m:Q4_K_M"
    seen = lines(client, "/api/pull", {"model": wanted})
    assert [line["status"] for line in (seen[0], *seen[-3:])] == [
        "pulling manifest",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    layers = [line for line in seen if "digest" in line]
    assert layers[-1]["completed"] == layers[-1]["total"] == len(CONTENT)
    assert len(layers[-1]["digest"]) == len("sha256:") + 64
    assert (models / "org" / "m" / NAME).read_bytes() == CONTENT
    assert names(client) == ["a:latest", "org/m/m-Q4_K_M:latest"]
    answer = client.post("/api/generate", json={"model": wanted, "prompt": "x", "stream": False})
    assert answer.json()["done"] is True


def test_what_is_here_already_is_not_pulled_again(client: httpx.Client, server: LocalHub) -> None:
    assert lines(client, "/api/pull", {"name": "a"}) == [{"status": "success"}]
    answer = client.post("/api/pull", json={"model": "a:latest", "stream": False})
    assert answer.json() == {"status": "success"} and server.log == []


def test_a_download_that_fails_ends_with_an_error_line(
    client: httpx.Client, server: LocalHub
) -> None:
    *_, last = lines(client, "/api/pull", {"model": "org/none"})
    assert set(last) == {"error"} and "org/none" in last["error"]
    whole = client.post("/api/pull", json={"model": "org/none", "stream": False})
    assert whole.status_code == 404 and "org/none" in whole.json()["error"]


def test_a_download_that_breaks_unexpectedly_has_an_end(
    client: httpx.Client, server: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Download) -> Path:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Download, "run", broken)
    server.add("org/m", {NAME: CONTENT})
    *_, last = lines(client, "/api/pull", {"model": "org/m"})
    assert "log has the details" in last["error"]


def test_names_of_ollamas_own_registry_are_refused_with_the_way_to_go(
    client: httpx.Client,
) -> None:
    answer = client.post("/api/pull", json={"model": "llama3.2"})
    assert answer.status_code == 404
    assert "hf.co/ORG/NAME:QUANT" in answer.json()["error"]


def test_a_model_that_cannot_be_loaded_is_not_downloaded(
    client: httpx.Client, server: LocalHub
) -> None:
    server.add("org/st", {"model.safetensors": CONTENT, "config.json": b"{}"})
    answer = client.post("/api/pull", json={"model": "org/st", "stream": False})
    assert answer.status_code == 422 and "GGUF" in answer.json()["error"]
    assert server.sent() == 0


def test_a_client_that_leaves_pauses_the_download_and_the_next_goes_on(
    client: httpx.Client, server: LocalHub, models: Path
) -> None:
    server.add("org/m", {NAME: CONTENT})
    server.bytes_per_second = 200_000
    with client.stream("POST", "/api/pull", json={"model": "org/m"}) as response:
        for line in response.iter_lines():
            if json.loads(line).get("completed", 0) > 0:
                break
    server.bytes_per_second = 0
    assert not (models / "org" / "m" / NAME).exists()
    assert lines(client, "/api/pull", {"model": "org/m"})[-1] == {"status": "success"}
    assert (models / "org" / "m" / NAME).read_bytes() == CONTENT
    assert server.gets()[-1].start > 0, "what had arrived was kept"


def test_a_copy_is_one_more_name_that_outlives_the_first(
    client: httpx.Client, models: Path
) -> None:
    body = {"source": "a", "destination": "mine:v2"}
    assert client.post("/api/copy", json=body).status_code == 200
    assert os.path.samefile(models / "a.gguf", models / "mine" / "v2.gguf"), "no byte is copied"
    answer = client.post("/api/show", json={"model": "mine:v2"})
    assert answer.status_code == 200
    assert client.post("/api/copy", json=body).status_code == 400, "the name is taken"
    assert client.request("DELETE", "/api/delete", json={"model": "a"}).status_code == 200
    assert names(client) == ["mine/v2:latest"] and (models / "mine" / "v2.gguf").exists()


@pytest.mark.parametrize("name", ["../b", "/etc/b", "a/../../b", ".b", "", "b\x00", "a//b"])
def test_a_copy_never_leaves_the_models_folder(
    client: httpx.Client, models: Path, name: str
) -> None:
    answer = client.post("/api/copy", json={"source": "a", "destination": name})
    assert answer.status_code == 400, answer.text
    assert [path.name for path in models.parent.rglob("*.gguf")] == ["a.gguf"]


def test_deleting_a_loaded_model_unloads_it(client: httpx.Client, models: Path) -> None:
    client.post("/api/generate", json={"model": "a"})
    assert client.get("/api/ps").json()["models"]
    assert client.request("DELETE", "/api/delete", json={"model": "a:latest"}).status_code == 200
    assert client.get("/api/ps").json()["models"] == [] and not (models / "a.gguf").exists()
    gone = client.request("DELETE", "/api/delete", json={"model": "a"})
    assert gone.status_code == 404 and "model 'a' not found" in gone.json()["error"]


def test_create_makes_a_name_and_refuses_the_rest(client: httpx.Client) -> None:
    made = lines(client, "/api/create", {"model": "b", "from": "a"})
    assert made[-1] == {"status": "success"} and names(client) == ["a:latest", "b:latest"]
    answer = client.post("/api/create", json={"model": "c", "from": "a", "system": "Be kind."})
    assert answer.status_code == 501 and answer.json()["error"].startswith("system")


def test_blobs_are_answered(client: httpx.Client) -> None:
    path = "/api/blobs/sha256:" + 64 * "0"
    assert client.head(path).status_code == 404
    assert client.post(path, content=b"x").status_code == 501
    assert client.post("/api/push", json={"model": "a"}).status_code == 501


def test_a_model_is_known_before_it_is_loaded(client: httpx.Client, models: Path) -> None:
    write_llama(models / "big-Q4_K_M.gguf", num_tokens=100)
    shown = client.post("/api/show", json={"model": "big-Q4_K_M"}).json()
    assert shown["details"]["family"] == "llama"
    assert shown["details"]["quantization_level"] == "Q4_K", "as its tensors are"
    assert shown["details"]["parameter_size"] == "7.0B"
    assert shown["model_info"]["llama.context_length"] == 8192
    assert shown["capabilities"] == ["completion", "tools"]
    tags = client.get("/api/tags").json()["models"]
    assert [each["details"]["family"] for each in tags] == ["", "llama"], "a.gguf is broken"
