"""All dialects on one port: whose path is whose, and what a real client sent to each."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from innkeeper.api import Access
from innkeeper.api.dialects import dialect_of
from innkeeper.serving import EngineDefaults
from tests.unit.api.gateway import Gateway

API_TYPES = "aphrodite custom generic kobold koboldcpp llamacpp ollama ooba tabby vllm".split()
SHAPES = {
    "/v1/completions": {"error"},
    "/api/v1/generate": {"detail"},
    "/api/generate": {"error"},
    "/completion": {"error"},
    "/v1/token/encode": {"detail"},
    "/v1/messages": {"type", "error"},
}


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/models", "openai"),
        ("/v1/models/a", "openai"),
        ("/v1/model", "tabby"),
        ("/v1/model/list", "tabby"),
        ("/v1/messages/count_tokens", "anthropic"),
        ("/api/v1/model", "kobold"),
        ("/api/extra/abort", "kobold"),
        ("/api/version", "ollama"),
        ("/completion", "llama.cpp"),
        ("/innkeeper/v1/status", "openai"),
        ("", "openai"),
    ],
)
def test_a_path_belongs_to_one_dialect(path: str, dialect: str) -> None:
    assert dialect_of(path) == dialect


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    access = Access(api_key="key")
    with Gateway(tmp_path_factory.mktemp("models"), access=access) as gateway:
        yield gateway


@pytest.mark.parametrize("path", SHAPES)
def test_a_missing_key_is_401_in_the_dialects_shape(locked: Gateway, path: str) -> None:
    with locked.client() as client:
        response = client.post(path, json={})
        assert response.status_code == 401
        assert response.json().keys() == SHAPES[path]
        for header in ("x-api-key", "api-key"):
            assert client.post(path, json={}, headers={header: "key"}).status_code in (400, 404)


@pytest.mark.parametrize("path", SHAPES)
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"[" * 50_000])
def test_malformed_bodies_are_400_in_the_dialects_shape(
    client: httpx.Client, path: str, content: bytes
) -> None:
    response = client.post(path, content=content)
    assert response.status_code == 400
    assert response.json().keys() == SHAPES[path]


def test_an_empty_bearer_is_no_wrong_key_where_none_is_set(client: httpx.Client) -> None:
    headers = {"authorization": "Bearer"}
    assert client.get("/v1/models", headers=headers).status_code == 200


def test_no_answer_looks_like_lm_studios(client: httpx.Client) -> None:
    for path in ("/v1/models", "/props", "/api/tags", "/api/extra/version"):
        assert "x-powered-by" not in client.get(path).headers


def test_serviceinfo_names_the_apis(client: httpx.Client) -> None:
    apis = client.get("/.well-known/serviceinfo").json()["api"]
    assert {"koboldai", "openai", "ollama", "anthropic"} <= apis.keys()
    assert apis["koboldai"]["rel_url"] == apis["koboldai"]["relative_url"] == "/api"


def recordings(api_type: str) -> dict[str, Any]:
    root = Path(__file__).resolve().parents[3]
    folder = Path(os.environ.get("INNKEEPER_SHARED") or root.parent / "shared")
    path = folder / "traces" / f"{api_type}.bodies.json"
    if not path.exists():
        pytest.skip(f"no recorded bodies at {path}")
    bodies: dict[str, Any] = json.loads(path.read_text())["bodies"]
    return bodies


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """With the model name that the recorded bodies hold, and room for their prompts."""
    with Gateway(
        tmp_path_factory.mktemp("models"),
        model=Path("/models/stub-model-7b.gguf"),
        defaults=EngineDefaults(backend="fake", num_ctx=16_384),
    ) as gateway:
        yield gateway


@pytest.mark.parametrize("api_type", API_TYPES)
def test_every_recorded_request_is_accepted(named: Gateway, api_type: str) -> None:
    shortened = {name: 5 for name in ("max_tokens", "max_new_tokens", "n_predict", "num_predict")}
    with named.client() as client:
        for step, recorded in recordings(api_type).items():
            _, method, path = step.split()
            body = recorded["body"]
            if isinstance(body, dict) and isinstance(body.get("options"), dict):
                body = {**body, "options": {**body["options"], "num_predict": 5}}
            elif isinstance(body, dict):
                limits = {**shortened, "max_length": 5}
                body = {name: limits.get(name, value) for name, value in body.items()}
            sent = {} if body is None else {"json": body}
            response = client.request(method, path, **sent)
            assert response.status_code == 200, (step, response.text[:300])
            assert "unknown fields" not in response.text, (step, response.text[-500:])
