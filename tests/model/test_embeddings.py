"""Vectors and scores by llama.cpp's pooling, against llama-cpp-python's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import llama_cpp
import numpy as np
import pytest

from innkeeper.serving import EngineDefaults
from tests.model.tiny_models import write_bert, write_llama
from tests.unit.api.gateway import Gateway

TEXTS = ["the tavern keeper smiled", "dragon", "once upon a night the dragon came"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    write_bert(folder / "bert.gguf")
    write_bert(folder / "rank.gguf", is_ranker=True)
    write_llama(folder / "llama.gguf")
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    defaults = EngineDefaults(num_ctx=512, num_threads=1)
    with (
        Gateway(folder, model=folder / "llama.gguf", defaults=defaults) as running,
        running.client() as client,
    ):
        yield client


def vectors(client: httpx.Client, texts: Any) -> list[list[float]]:
    answer = client.post("/v1/embeddings", json={"input": texts, "model": "bert"})
    assert answer.status_code == 200, answer.text
    return [each["embedding"] for each in answer.json()["data"]]


def test_vectors_are_those_of_llama_cpp_python(client: httpx.Client, folder: Path) -> None:
    other = llama_cpp.Llama(
        str(folder / "bert.gguf"), embedding=True, n_ctx=512, n_threads=1, verbose=False
    )
    wanted = np.array([other.embed(text, normalize=True) for text in TEXTS])
    np.testing.assert_allclose(np.array(vectors(client, TEXTS)), wanted, atol=5e-4)


def test_a_vector_does_not_depend_on_its_batch(client: httpx.Client) -> None:
    many = vectors(client, TEXTS * 20)
    assert len(many) == 60
    for number, vector in enumerate(many):
        np.testing.assert_allclose(vector, many[number % 3], atol=2e-4)
    np.testing.assert_allclose(vectors(client, TEXTS[1])[0], many[1], atol=2e-4)


def test_a_text_model_makes_vectors_where_it_is_told_how(folder: Path) -> None:
    defaults = EngineDefaults(num_ctx=512, num_threads=1, pooling="mean")
    with (
        Gateway(folder, model=folder / "llama.gguf", defaults=defaults) as running,
        running.client() as client,
    ):
        answer = client.post("/v1/embeddings", json={"input": TEXTS}).json()
        assert [round(float(np.linalg.norm(each["embedding"])), 4) for each in answer["data"]] == [
            1.0
        ] * 3


def test_a_reranker_sorts_documents_the_same_alone_and_together(client: httpx.Client) -> None:
    body = {"query": "dragon", "model": "rank"}
    together = client.post("/v1/rerank", json={**body, "documents": TEXTS}).json()["results"]
    scores = [each["relevance_score"] for each in together]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 3
    for each in together:
        alone = {**body, "documents": [TEXTS[each["index"]]]}
        (one,) = client.post("/v1/rerank", json=alone).json()["results"]
        assert abs(one["relevance_score"] - each["relevance_score"]) < 1e-3


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/embeddings", {"input": "a", "model": "llama"}, "llama writes text"),
        ("/v1/embeddings", {"input": "a", "model": "rank"}, "rank ranks documents"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "model": "bert"}, "ranks nothing"),
        ("/v1/completions", {"prompt": "a", "model": "bert"}, "bert makes embeddings, not text"),
        ("/v1/embeddings", {"input": "the " * 600, "model": "bert"}, "602 tokens"),
        ("/v1/embeddings", {"input": [[1, 99999]], "model": "bert"}, "token id 99999"),
    ],
)
def test_a_model_that_cannot_says_so(
    client: httpx.Client, path: str, body: dict[str, Any], words: str
) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 400 and words in answer.json()["error"]["message"]


def test_what_is_too_long_is_cut_where_that_is_asked_for(client: httpx.Client) -> None:
    body = {"input": "the " * 600, "model": "bert"}
    answer = client.post("/api/embed", json=body).json()
    assert answer["prompt_eval_count"] == 512 and len(answer["embeddings"]) == 1
