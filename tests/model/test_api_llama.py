"""The whole API over llama.cpp and tiny models."""

import math
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from innkeeper.serving import EngineDefaults
from tests.unit.api.gateway import Gateway
from tests.unit.api.test_completions import post, stream

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
DEFAULTS = EngineDefaults(num_ctx=512, num_threads=1)


@pytest.fixture(scope="module")
def gateway(
    tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """The llama model is loaded; qwen2 and some broken files lie beside it."""
    folder = tmp_path_factory.mktemp("library")
    for name in ("llama", "qwen2"):
        shutil.copy(tiny_models[name], folder / f"{name}.gguf")
    whole = tiny_models["llama"].read_bytes()
    (folder / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    (folder / "page.gguf").write_bytes(b"<!doctype html><html></html>")
    (folder / "empty.gguf").write_bytes(b"")
    unknown = whole.replace(b"llama", b"lluma")
    (folder / "unknown.gguf").write_bytes(unknown)
    with Gateway(folder, model=folder / "llama.gguf", defaults=DEFAULTS) as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with gateway.client() as client:
        yield client


def test_chat_template_of_the_model_writes_one_bos_only(client: httpx.Client) -> None:
    messages = [{"role": "user", "content": "hi"}]
    prompt = post(client, "/v1/internal/chat-prompt", messages=messages)["prompt"]
    tokens = post(client, "/v1/internal/encode", text=prompt, add_bos_token=True)["tokens"]
    answer = post(client, CHAT, messages=messages, max_tokens=1)
    assert answer["usage"]["prompt_tokens"] == len(tokens)
    with_bos = post(client, "/v1/internal/encode", text="<s>" + prompt, add_bos_token=True)
    assert with_bos["tokens"] == tokens
    assert answer["warnings"] == []


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
def test_streamed_text_is_the_whole_text(client: httpx.Client, path: str) -> None:
    # Greedy and short: where a cached prompt lies in the pool changes how sums are rounded.
    body: dict[str, Any] = {"max_tokens": 12, "n": 2, "temperature": 0}
    body |= {"prompt": "Once"} if path == COMPLETIONS else {}
    body |= {"messages": [{"role": "user", "content": "hi"}]} if path == CHAT else {}
    whole = post(client, path, **body)["choices"]
    joined = ["", ""]
    for chunk in stream(client, path, **body):
        for choice in chunk["choices"]:
            joined[choice["index"]] += (
                choice["text"] if path == COMPLETIONS else choice["delta"].get("content", "")
            )
    assert joined == [c["text"] if path == COMPLETIONS else c["message"]["content"] for c in whole]


def test_logprobs_agree_with_the_logits_route(client: httpx.Client) -> None:
    answer = post(client, COMPLETIONS, prompt="Once", max_tokens=1, temperature=0, logprobs=3)
    top = answer["choices"][0]["logprobs"]["top_logprobs"][0]
    chances = post(client, "/v1/internal/logits", prompt="Once", top_logits=3)
    assert sorted(top.values(), reverse=True)[0] == pytest.approx(
        math.log(max(chances.values())), abs=1e-4
    )


def test_every_sampler_that_is_on_is_accepted(client: httpx.Client) -> None:
    answer = post(
        client,
        COMPLETIONS,
        prompt="Once upon a time",
        max_tokens=8,
        dry_multiplier=0.8,
        xtc_probability=0.5,
        top_n_sigma=1.5,
        typical_p=0.9,
        min_p=0.05,
        top_k=40,
        top_p=0.9,
        repetition_penalty=1.1,
        presence_penalty=0.1,
        frequency_penalty=0.1,
        dynatemp_range=0.3,
        adaptive_target=0.5,
        min_keep=2,
        logit_bias={"5": -1},
        custom_token_bans="6,7",
        ban_eos_token=True,
        min_tokens=4,
    )
    assert answer["warnings"] == []
    assert answer["usage"]["completion_tokens"] == 8


@pytest.mark.parametrize(
    ("name", "status"), [("cut", 422), ("page", 422), ("empty", 422), ("unknown", 422)]
)
def test_broken_file_is_refused_and_the_loaded_model_answers(
    client: httpx.Client, name: str, status: int
) -> None:
    response = client.post("/v1/internal/model/load", json={"model_name": name})
    assert response.status_code == status, response.text
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert client.get("/v1/internal/model/info").json()["model_name"] == "llama"
    assert post(client, COMPLETIONS, prompt="Once", max_tokens=2)["model"] == "llama"


def test_too_large_a_context_is_refused_before_loading(client: httpx.Client) -> None:
    body = {"model_name": "qwen2", "args": {"ctx_size": 16_000_000}}
    response = client.post("/v1/internal/model/load", json=body)
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "not_enough_memory"
    assert "--ctx" in response.json()["error"]["message"]


def test_models_can_be_swapped_back_and_forth(client: httpx.Client) -> None:
    for name in ("qwen2", "llama"):
        assert client.post("/v1/internal/model/load", json={"model_name": name}).json() == "OK"
        assert post(client, COMPLETIONS, prompt="Once", max_tokens=2)["model"] == name


def test_killed_engine_comes_back_with_its_model(gateway: Gateway, client: httpx.Client) -> None:
    greedy = {"prompt": "Once", "max_tokens": 10, "temperature": 0}
    before = post(client, COMPLETIONS, **greedy)["choices"]
    gateway.kill_engine(signal.SIGKILL)
    response = client.post(COMPLETIONS, json=greedy)
    if response.status_code == 503:  # it came before the death was noticed
        response = client.post(COMPLETIONS, json=greedy)
    assert response.json()["choices"] == before
