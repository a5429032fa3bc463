"""What the real SillyTavern sent, of every type: each body is accepted, and answered."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from innkeeper.serving import EngineDefaults
from tests.unit.api.gateway import Gateway

TYPES = "ooba kobold koboldcpp llamacpp ollama tabby vllm aphrodite generic custom".split()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The recorded Ollama bodies name a model; it is the one that is loaded."""
    defaults = EngineDefaults(backend="fake", num_ctx=16384)
    with (
        Gateway(tmp_path_factory.mktemp("models"), defaults=defaults) as running,
        running.client() as client,
    ):
        yield client


@pytest.mark.parametrize("api_type", TYPES)
def test_recorded_bodies_are_accepted(client: httpx.Client, shared: Path, api_type: str) -> None:
    path = shared / "traces" / f"{api_type}.bodies.json"
    recorded: dict[str, Any] = json.loads(path.read_text())["bodies"]
    assert recorded
    for step, each in recorded.items():
        _, method, route = step.rsplit(" ", 2)
        body = each.get("body")
        if api_type == "ollama" and body:
            body = {**body, "model": "fake"}
        answer = client.request(method, route, json=body)
        assert answer.status_code == 200, f"{step}: {answer.text[:300]}"
        if route.endswith(("completions", "completion", "generate", "stream")):
            assert len(answer.text) > 100
