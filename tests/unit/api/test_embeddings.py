"""The routes of embeddings and reranking in every dialect."""

import base64
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from innkeeper.serving import EngineDefaults
from tests.unit.api.gateway import Gateway


def serve(folder: Path, pooling: str) -> Iterator[httpx.Client]:
    defaults = EngineDefaults(backend="fake", num_ctx=64, pooling=pooling)
    with Gateway(folder, defaults=defaults) as running, running.client() as client:
        yield client


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Counts letters, to a length of 1."""
    yield from serve(tmp_path_factory.mktemp("models"), "mean")


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Scores a document by how many letters it shares with the query."""
    yield from serve(tmp_path_factory.mktemp("models"), "rank")


def letter(vector: list[float]) -> dict[str, float]:
    return {chr(i): round(value, 3) for i, value in enumerate(vector) if value}


def test_openai_takes_texts_and_tokens_and_writes_base64(embedder: httpx.Client) -> None:
    body = {"input": ["aab", [97, 97, 98]], "model": "fake"}
    answer = embedder.post("/v1/embeddings", json=body).json()
    first, second = answer["data"]
    assert letter(first["embedding"]) == letter(second["embedding"]) == {"a": 0.894, "b": 0.447}
    assert (first["object"], second["index"], answer["model"]) == ("embedding", 1, "fake")
    assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7}, "BOS before the text"
    packed = embedder.post("/v1/embeddings", json={**body, "encoding_format": "base64"}).json()
    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert list(struct.unpack(f"<{len(raw) // 4}f", raw)) == pytest.approx(first["embedding"])


def test_every_dialect_gives_the_same_vector(embedder: httpx.Client) -> None:
    def post(path: str, body: dict[str, Any]) -> Any:
        answer = embedder.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    wanted = {"a": 0.894, "b": 0.447}
    found = [
        post("/api/extra/embeddings", {"input": "aab"})["data"][0]["embedding"],
        post("/embedding", {"content": "aab"})[0]["embedding"][0],
        post("/embeddings", {"input": ["aab"]})[0]["embedding"][0],
        post("/api/embed", {"model": "fake", "input": "aab"})["embeddings"][0],
        post("/api/embeddings", {"model": "fake", "prompt": "aab"})["embedding"],
    ]
    assert [letter(each) for each in found] == [wanted] * 5
    as_is = post("/embedding", {"content": "aab", "embd_normalize": -1})[0]["embedding"][0]
    assert letter(as_is) == {"a": 2.0, "b": 1.0}
    assert embedder.get("/api/extra/version").json()["embeddings"] is True
    assert embedder.post("/api/show", json={"model": "fake"}).json()["capabilities"] == [
        "embedding"
    ]


def test_documents_are_ranked_in_jinas_and_teis_words(ranker: httpx.Client) -> None:
    documents = ["xyz", "abc", {"text": "abx"}]
    body = {"query": "abc", "documents": documents, "top_n": 2, "return_documents": True}
    answer = ranker.post("/v1/rerank", json=body).json()
    assert [(each["index"], each["relevance_score"]) for each in answer["results"]] == [
        (1, 3.0),
        (2, 2.0),
    ]
    assert answer["results"][1]["document"] == {"text": "abx"}
    tei = {"query": "abc", "texts": ["xyz", "abc"], "return_text": True}
    assert ranker.post("/rerank", json=tei).json() == [
        {"index": 1, "score": 3.0, "text": "abc"},
        {"index": 0, "score": 0.0, "text": "xyz"},
    ]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/embeddings", {}, "input"),
        ("/v1/embeddings", {"input": []}, "input"),
        ("/v1/embeddings", {"input": [["a"]]}, "input"),
        ("/v1/embeddings", {"input": "a" * 100}, "input"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ("/v1/embeddings", {"input": ["a"] * 3000}, "input"),
        ("/v1/rerank", {"query": "a"}, "documents"),
        ("/v1/rerank", {"query": 5, "documents": ["a"]}, "query"),
        ("/v1/rerank", {"query": "a", "documents": ["a"], "top_n": -1}, "top_n"),
        ("/v1/rerank", {"query": "a", "documents": ["a"]}, "model"),
        ("/v1/completions", {"prompt": "a"}, "model"),
    ],
)
def test_bad_input_names_its_field(
    embedder: httpx.Client, path: str, body: dict[str, Any], field: str
) -> None:
    answer = embedder.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


def test_a_model_that_writes_text_is_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/embeddings", json={"input": "a"})
    assert answer.status_code == 400
    assert "writes text and makes no embeddings" in answer.json()["error"]["message"]


def test_dimensions_are_reported_as_not_applied(embedder: httpx.Client) -> None:
    answer = embedder.post("/v1/embeddings", json={"input": "a", "dimensions": 8}).json()
    assert "dimensions" in answer["warnings"][0]
