"""``/v1/internal``, ``/health``, ``/props`` and ``/docs``."""

import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from innkeeper.api.fields import FIELDS
from innkeeper.serving import EngineDefaults
from tests.unit.api.gateway import Gateway
from tests.unit.api.test_completions import events


def test_encode_counts_without_bos(client: httpx.Client) -> None:
    answer = client.post("/v1/internal/encode", json={"text": "hé"}).json()
    assert answer == {"tokens": [104, 195, 169], "length": 3}
    with_bos = client.post("/v1/internal/encode", json={"text": "h", "add_bos_token": True})
    assert with_bos.json() == {"tokens": [256, 104], "length": 2}
    count = client.post("/v1/internal/token-count", json={"text": ""})
    assert count.json() == {"length": 0}


def test_decode_is_the_way_back(client: httpx.Client) -> None:
    answer = client.post("/v1/internal/decode", json={"tokens": [104, 195, 169]})
    assert answer.json() == {"text": "hé"}


def test_model_info_is_what_sillytavern_reads(client: httpx.Client) -> None:
    assert client.get("/v1/internal/model/info").json() == {
        "model_name": "fake",
        "lora_names": [],
        "loader": "fake",
    }
    response = client.get("/v1/models")
    assert [card["id"] for card in response.json()["data"]] == ["fake"]
    assert "x-powered-by" not in response.headers
    assert client.get("/v1/models/fake").json()["id"] == "fake"
    assert client.get("/v1/models/other").status_code == 404


def test_logits_are_a_flat_object(client: httpx.Client) -> None:
    body = {"prompt": "Once", "top_logits": 5}
    plain = client.post("/v1/internal/logits", json=body).json()
    assert len(plain) == 5 and all(0 < chance < 1 for chance in plain.values())
    sampled = client.post(
        "/v1/internal/logits", json={**body, "use_samplers": True, "top_k": 2}
    ).json()
    assert len(sampled) == 2 and sum(sampled.values()) == pytest.approx(1)


def test_props_has_template_and_context(client: httpx.Client) -> None:
    props = client.get("/props").json()
    marks = ("<|im_start|>user", "<|im_start|>assistant", "<|im_end|>")
    assert all(mark in props["chat_template"] for mark in marks), "SillyTavern tells ChatML so"
    assert props["default_generation_settings"]["n_ctx"] == 2048


def test_health_lora_list_and_internal_health(client: httpx.Client) -> None:
    assert client.get("/health").json()["status"] == "ok"
    assert client.get("/v1/internal/health").json() == {"status": "ok"}
    assert client.get("/v1/internal/lora/list").json() == {"lora_names": []}


@pytest.fixture
def own_gateway(tmp_path: Path) -> Iterator[Gateway]:
    """With a folder of two models, and nothing loaded."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.gguf").write_bytes(b"GGUF")
    with Gateway(tmp_path, model=None, tokens_per_second="100") as running:
        yield running


def test_models_load_by_name_and_unload(own_gateway: Gateway) -> None:
    with own_gateway.client() as client:
        assert client.get("/health").json()["status"] == "no model"
        found = client.get("/v1/models").json()["data"]
        assert [(each["id"], each["status"]["value"]) for each in found] == [
            ("a", "unloaded"),
            ("b", "unloaded"),
        ]
        assert client.get("/v1/internal/model/info").json()["model_name"] == "None"
        response = client.post("/v1/completions", json={"prompt": "hi"})
        assert (response.status_code, response.json()["error"]["code"]) == (503, "no_model")
        assert client.get("/props").status_code == 503
        listed = client.get("/v1/internal/model/list").json()
        assert listed == {"model_names": ["a", "b"]}

        body = {"model_name": "b", "args": {"ctx_size": 512, "trust_remote_code": True}}
        assert client.post("/v1/internal/model/load", json=body).json() == "OK"
        assert client.get("/v1/internal/model/info").json()["model_name"] == "b"
        assert client.get("/v1/models").json()["data"][0]["meta"]["n_ctx"] == 512
        assert client.post("/v1/internal/model/unload").json() == "OK"
        assert client.get("/health").json()["status"] == "no model"


@pytest.mark.parametrize(
    "name", ["../a", "/etc/passwd", "a/../a", "", "c", "a.gguf/..", "%2e%2e/a"]
)
def test_paths_are_no_names(own_gateway: Gateway, name: str) -> None:
    with own_gateway.client() as client:
        response = client.post("/v1/internal/model/load", json={"model_name": name})
        assert response.status_code == 404
        assert response.json()["error"]["param"] == "model_name"


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ([], None),
        ([1], "args"),
        ({"ctx_size": "many"}, "args.ctx_size"),
        ({"gpu_layers": -5}, "args.gpu_layers"),
        ({"cache_type": "q9"}, "args.cache_type"),
    ],
)
def test_bad_loader_arguments_name_their_field(
    own_gateway: Gateway, args: object, field: str | None
) -> None:
    with own_gateway.client() as client:
        body = {"model_name": "a", "args": args}
        response = client.post("/v1/internal/model/load", json=body)
        if field is None:
            assert response.json() == "OK"
        else:
            assert response.json()["error"]["param"] == field


def test_failed_load_answers_its_reason_and_keeps_the_model(tmp_path: Path) -> None:
    good = tmp_path / "good.gguf"
    good.write_bytes(b"GGUF")
    with Gateway(tmp_path, model=good) as gateway, gateway.client() as client:

        async def break_backend() -> None:
            gateway.models._shelf._defaults = EngineDefaults(
                backend="fake", options={"fail_load": "no such tensor"}
            )

        gateway.run(break_backend())
        response = client.post("/v1/internal/model/load", json={"model_name": "good"})
        assert response.status_code == 500
        assert "no such tensor" in response.json()["error"]["message"]
        reply = client.post("/v1/completions", json={"prompt": "hi", "max_tokens": 2})
        assert len(reply.json()["choices"][0]["text"]) == 2


def test_stop_generation_ends_what_runs(own_gateway: Gateway) -> None:
    with own_gateway.client() as client:
        client.post("/v1/internal/model/load", json={"model_name": "a"})
        answers: list[httpx.Response] = []

        def generate() -> None:
            with own_gateway.client() as other:
                answers.append(
                    other.post("/v1/completions", json={"prompt": "hi", "max_tokens": 9999})
                )

        thread = threading.Thread(target=generate)
        thread.start()
        while not answers:
            assert client.post("/v1/internal/stop-generation").json() == "OK"
        thread.join()
        choice = answers[0].json()["choices"][0]
        assert choice["finish_reason"] == "stop" and len(choice["text"]) < 2000


def test_load_can_be_watched_by_anyone(own_gateway: Gateway) -> None:
    with own_gateway.client() as client:
        assert client.get("/innkeeper/v1/load/events").status_code == 404
        client.post("/v1/internal/model/load", json={"model_name": "a"})
        (last,) = events(client.get("/innkeeper/v1/load/events"))
        assert last == {"name": "a", "status": "done", "stage": "ready", "progress": 1.0}
        status = client.get("/innkeeper/v1/status").json()
        assert status["model"]["name"] == "a" and status["load"] == last


class Tags(HTMLParser):
    """Collects what a page would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        assert not [name for name, _ in attrs if name.startswith("on")]


def test_docs_page_needs_nothing_from_elsewhere(client: httpx.Client) -> None:
    response = client.get("/docs")
    tags = Tags()
    tags.feed(response.text)
    assert not {"script", "link", "img", "iframe"} & tags.names
    assert tags.links == ["/openapi.json"]
    assert "default-src 'none'" in response.headers["content-security-policy"]
    for field in FIELDS:
        assert all(f"<code>{name}</code>" in response.text for name in field.names)


def test_openapi_document_lists_every_route(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/completions", "/v1/chat/completions", "/v1/models", "/health", "/props"} <= set(
        paths
    )
    assert {"/api/v1/generate", "/api/chat", "/completion", "/v1/messages", "/v1/model"} <= set(
        paths
    )
    kobold = paths["/api/v1/generate"]["post"]["requestBody"]["content"]["application/json"]
    assert {"prompt", "max_length", "genkey"} <= set(kobold["schema"]["properties"])
    body = paths["/v1/completions"]["post"]["requestBody"]["content"]["application/json"]
    assert {"prompt", "dry_multiplier", "rep_pen"} <= set(body["schema"]["properties"])


def test_why_shows_the_candidates_behind_every_step(client: httpx.Client) -> None:
    ask = {"top_k": 3, "temperature": 0.5, "top_logits": 2}
    for body in ({"prompt": "Once"}, {"messages": [{"role": "user", "content": "hi"}]}):
        response = client.post("/v1/internal/why", json={**body, **ask})
        assert response.status_code == 200, response.text
        steps = response.json()
        assert [step["step"] for step in steps] == ["model", "top_k", "temperature"]
        assert steps[-1]["num_left"] == 3 and len(steps[-1]["tokens"]) == 2
        best = steps[-1]["tokens"][0]
        assert best["probability"] > steps[0]["tokens"][0]["probability"]
