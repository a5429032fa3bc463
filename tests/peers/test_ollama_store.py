"""The official Ollama client downloads, copies, makes and deletes models."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest

from innkeeper.hub.client import Hub
from tests.hub import LocalHub
from tests.hub.fixtures import hf_home, hub, server, waits
from tests.unit.api.gateway import Gateway

__all__ = ["hf_home", "hub", "server", "waits"]

CONTENT = b"GGUF" + bytes(300_000)
WANTED = "hf.co/org/m:Q4_K_M"


@pytest.fixture
def llama(tmp_path: Path, server: LocalHub, hub: Hub) -> Iterator[Any]:
    server.add("org/m", {"m-Q4_K_M.gguf": CONTENT})
    with Gateway(tmp_path / "models", model=None, hub=hub) as running:
        with ollama.Client(host=running.url) as client:
            yield client


def names(llama: Any) -> list[str]:
    return [each.model for each in llama.list().models]


def test_pull_reports_its_progress(llama: Any) -> None:
    seen = list(llama.pull(WANTED, stream=True))
    assert seen[0].status == "pulling manifest" and seen[-1].status == "success"
    layers = [each for each in seen if each.digest]
    assert layers[-1].completed == layers[-1].total == len(CONTENT)
    assert llama.pull(WANTED).status == "success"
    assert names(llama) == ["org/m/m-Q4_K_M:latest"]


def test_names_are_made_and_deleted(llama: Any) -> None:
    llama.pull(WANTED)
    assert llama.copy(WANTED, "mine").status == "success"
    *_, last = llama.create("third", from_="mine", stream=True)
    assert last.status == "success"
    assert llama.delete("mine").status == "success"
    assert names(llama) == ["org/m/m-Q4_K_M:latest", "third:latest"]


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (lambda llama: llama.pull("llama3.2"), 404),
        (lambda llama: llama.delete("none"), 404),
        (lambda llama: llama.push("none"), 501),
        (lambda llama: llama.create("x", from_="none", system="s"), 501),
    ],
)
def test_what_cannot_be_done_is_an_error_of_the_client(llama: Any, call: Any, status: int) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        call(llama)
    assert caught.value.status_code == status
