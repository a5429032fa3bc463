"""KoboldAI's and KoboldCpp's routes through the front door."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from innkeeper.api import Access, kobold_fields
from innkeeper.core.request import WHOLE_CONTEXT
from innkeeper.errors import InvalidRequestError
from innkeeper.serving import EngineDefaults
from tests.unit.api.gateway import Gateway

GENERATE = "/api/v1/generate"
STREAM = "/api/extra/generate/stream"
GREEDY = {"prompt": "Once", "temperature": 0, "max_length": 12}


def parsed(**body: Any) -> kobold_fields.Call:
    return kobold_fields.parse({"prompt": "Once", **body})


def result(client: httpx.Client, **body: Any) -> dict[str, Any]:
    response = client.post(GENERATE, json={**GREEDY, **body})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()["results"][0]
    return found


def events(text: str) -> list[dict[str, Any]]:
    blocks = [block for block in text.split("\n\n") if block]
    assert all(block.startswith("event: message\ndata: {") for block in blocks), text
    return [json.loads(block.split("data: ", 1)[1]) for block in blocks]


def test_answer_has_koboldcpps_shape(client: httpx.Client) -> None:
    answer = client.post(GENERATE, json=GREEDY).json()
    (first,) = answer["results"]
    assert len(first["text"]) == first["completion_tokens"] == 12
    assert (first["finish_reason"], first["logprobs"], first["prompt_tokens"]) == (
        "length",
        None,
        5,
    )
    assert answer["warnings"] == []
    assert client.post("/api/latest/generate", json=GREEDY).json() == answer


def test_stream_joins_to_the_whole_and_ends_without_done(client: httpx.Client) -> None:
    whole = result(client)["text"]
    response = client.post(STREAM, json=GREEDY)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "[DONE]" not in response.text
    found = events(response.text)
    assert "".join(each["token"] for each in found) == whole
    assert [each["finish_reason"] for each in found] == [None] * 12 + ["length"]


def test_a_stream_is_one_reply_and_says_so(client: httpx.Client) -> None:
    body = {"prompt": "Once", "max_length": 3, "n": 2}
    found = events(client.post("/api/extra/generate/stream", json=body).text)
    assert "".join(each["token"] for each in found[:-1]) and len(found) == 4
    assert found[-1]["warnings"] == ["not applied: n = 2 (a stream is one reply)"]


@pytest.mark.parametrize("n", [1, 3])
def test_each_reply_is_a_result(client: httpx.Client, n: int) -> None:
    body = {**GREEDY, "n": n, "temperature": 2}
    assert len(client.post(GENERATE, json=body).json()["results"]) == n


def test_stop_text_is_kept_where_asked(client: httpx.Client) -> None:
    whole = result(client)["text"]
    stop = whole[4]
    before = whole.split(stop)[0]
    assert result(client, stop_sequence=[stop])["text"] == before
    assert result(client, stop_sequence=[stop], trim_stop=False)["text"] == before + stop
    body = {**GREEDY, "stop_sequence": [stop], "trim_stop": False}
    streamed = events(client.post(STREAM, json=body).text)
    assert "".join(each["token"] for each in streamed) == before + stop


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, {"temperature": 0.75, "top_k": 100, "top_p": 0.92, "penalty_range": 320}),
        ({}, {"dry_range": 320, "dry_breakers": (), "xtc_protect": False, "xtc_threshold": 0.2}),
        ({"rep_pen": 1.2, "rep_pen_range": 0}, {"repetition_penalty": 1.2, "penalty_range": 0}),
        ({"dry_penalty_last_n": 0}, {"dry_range": WHOLE_CONTEXT}),
        ({"rep_pen_slope": 0}, {"repetition_slope": 1.0}),
        ({"rep_pen_slope": 0.5}, {"repetition_slope": 0.5}),
        ({"rep_pen_slope": 3}, {"repetition_slope": 1.0, "repetition_curve": 3.0}),
        ({"typical": 0.5}, {"typical_p": 0.5}),
        ({"nsigma": 1}, {"top_n_sigma": 1.0}),
        ({"mirostat": 2}, {"mirostat": 2}),
        ({"sampler_seed": 5}, {"seed": 5}),
        ({"use_default_badwordsids": True}, {"ban_eos": True}),
        ({"logit_bias": {"7": 2}}, {"logit_bias": {7: 2.0}}),
        ({"adaptive_target": 0.5}, {"adaptive_target": 0.5}),
        ({"dynatemp_range": 0.5}, {"dynatemp_range": 0.5}),
    ],
)
def test_fields_mean_what_koboldcpp_means(body: dict[str, Any], expected: dict[str, Any]) -> None:
    sampling = parsed(**body).request.sampling
    assert {name: getattr(sampling, name) for name in expected} == expected


def test_context_size_leaves_room_for_the_reply() -> None:
    request = parsed(max_context_length=1000, max_length=100).request
    assert (request.truncate_to, request.max_tokens) == (900, 100)
    assert parsed().request.max_tokens == kobold_fields.DEFAULT_MAX_LENGTH


def test_sampler_order_is_the_order_of_steps() -> None:
    order = parsed(sampler_order=[6, 5, 0, 1, 2, 3, 4]).request.sampling.order
    steps = [step for step in order if step in ("penalties", "temperature", "top_k", "min_p")]
    assert steps == ["penalties", "temperature", "top_k", "min_p"]
    assert order.index("top_p") + 1 == order.index("min_p")
    assert order[-2:] == ("adaptive_p", "mirostat")
    six = parsed(sampler_order=[0, 1, 2, 3, 4, 5]).request.sampling.order
    assert six.index("penalties") < six.index("top_k")


@pytest.mark.parametrize("order", [[7, 0, 1, 2, 3, 4], [0], "temperature", [0] * 8])
def test_wrong_orders_are_refused(order: object) -> None:
    with pytest.raises(InvalidRequestError, match="sampler_order"):
        parsed(sampler_order=order)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("use_memory", True),
        ("use_world_info", True),
        ("bypass_eos", True),
        ("banned_tokens", ["testament to"]),
        ("frmttriminc", True),
        ("soft_prompt", "x"),
        ("guidance_scale", 1.5),
        ("negative_prompt", "bad"),
        ("banned_strings", ["shivers"]),
        ("tools", [{"type": "function"}]),
    ],
)
def test_what_cannot_be_applied_is_reported(name: str, value: object) -> None:
    before = parsed().request
    after = parsed(**{name: value}).request
    assert before.warnings == ()
    if after == before:
        pytest.fail(f"{name} is lost")
    if after.warnings:
        assert name in after.warnings[0]


def test_one_line_ends_at_the_line() -> None:
    assert parsed(singleline=True).request.stop == ("\n",)


@pytest.mark.parametrize("name", ["images", "audio"])
def test_what_the_model_cannot_read_is_refused(client: httpx.Client, name: str) -> None:
    response = client.post(GENERATE, json={**GREEDY, name: ["aGk="]})
    assert response.status_code == 400
    assert name in response.json()["detail"]["msg"]


def test_memory_stands_first_and_is_never_cut(client: httpx.Client) -> None:
    body = {**GREEDY, "memory": "M" * 30, "max_context_length": 60, "prompt": "p" * 100}
    answer = client.post(GENERATE, json=body).json()
    assert answer["results"][0]["prompt_tokens"] == 48
    assert answer["warnings"] == ["83 tokens were cut off the start of the prompt, as asked"]
    short = result(client, memory="On", prompt="ce")
    assert short["text"] == result(client)["text"]
    refused = client.post(GENERATE, json={**body, "max_context_length": 20})
    assert refused.status_code == 400 and "memory has 31" in refused.json()["detail"]["msg"]


def test_status_calls_of_clients(client: httpx.Client) -> None:
    assert client.get("/api/v1/info/version").json() == {"result": "1.2.5"}
    assert client.get("/api/v1/model").json() == {"result": "koboldcpp/fake"}
    version = client.get("/api/extra/version").json()
    assert version["result"] == "KoboldCpp" and version["llm"] is True
    assert client.get("/api/v1/config/max_context_length").json() == {"value": 2048}
    assert client.get("/api/extra/true_max_context_length").json() == {"value": 2048}
    assert client.get("/api/v1/config/max_length").json() == {"value": 768}
    assert client.get("/api/v1/config/soft_prompt").json() == {"value": ""}
    assert client.get("/api/v1/config/soft_prompts_list").json() == {"values": []}
    assert client.get("/api/extra/preloadstory").json() == {}


def test_tokens_are_counted_without_bos_unless_asked(client: httpx.Client) -> None:
    path = "/api/extra/tokencount"
    assert client.post(path, json={"prompt": "hé"}).json() == {"value": 3, "ids": [104, 195, 169]}
    with_bos = client.post(path, json={"prompt": "h", "special": True}).json()
    assert with_bos == {"value": 2, "ids": [256, 104]}
    back = client.post("/api/extra/detokenize", json={"ids": [104, 195, 169]}).json()
    assert back == {"result": "hé", "success": True}


def test_schema_becomes_a_grammar_that_generate_takes(client: httpx.Client) -> None:
    schema = {"type": "boolean"}
    found = client.post("/api/extra/json_to_grammar", json={"schema": schema}).json()
    assert found["success"] is True
    assert result(client, grammar=found["result"], temperature=2)["text"] in ("true", "false")


def test_last_logprobs_and_figures_are_of_the_last_reply(client: httpx.Client) -> None:
    reply = result(client, logprobs=True, genkey="mine")
    assert len(reply["logprobs"]["content"]) == 12
    last = client.post("/api/extra/last_logprobs", json={"genkey": "mine"}).json()["logprobs"]
    assert last == reply["logprobs"]
    perf = client.get("/api/extra/perf").json()
    assert (perf["last_token_count"], perf["stop_reason"], perf["idle"]) == (12, 0, 1)
    text = client.post("/api/extra/generate/check", json={"genkey": "mine"}).json()
    assert text == {"results": [{"text": reply["text"]}]}


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Gateway]:
    with Gateway(tmp_path, tokens_per_second="200") as running:
        yield running


class Background:
    """One long reply, asked for by a thread."""

    def __init__(self, gateway: Gateway, path: str, key: str) -> None:
        self.answer: httpx.Response | None = None
        body = {"prompt": "hi", "max_length": 2000, "genkey": key}

        def ask() -> None:
            with gateway.client() as client:
                self.answer = client.post(path, json=body)

        self.thread = threading.Thread(target=ask)
        self.thread.start()


def wait_for_text(client: httpx.Client, key: str) -> str:
    while True:
        found = client.post("/api/extra/generate/check", json={"genkey": key}).json()
        if text := found["results"][0]["text"]:
            return str(text)


@pytest.mark.parametrize("path", [GENERATE, STREAM])
def test_abort_with_a_key_ends_that_reply_alone(slow: Gateway, path: str) -> None:
    first, second = Background(slow, path, "first"), Background(slow, path, "second")
    with slow.client() as client:
        seen = wait_for_text(client, "first")
        wait_for_text(client, "second")
        answer = client.post("/api/extra/abort", json={"genkey": "first"}).json()
        assert answer == {"success": "true", "done": "true"}
        first.thread.join()
        assert second.thread.is_alive()
        assert first.answer is not None and first.answer.status_code == 200
        if path == GENERATE:
            assert first.answer.json()["results"][0]["text"].startswith(seen)
        unknown = client.post("/api/extra/abort", json={"genkey": "first"}).json()
        assert unknown == {"success": "false", "done": "false"}
        assert client.post("/api/extra/abort").json()["success"] == "true"
        second.thread.join()


def test_a_reply_is_stopped_while_it_waits_for_its_turn(tmp_path: Path) -> None:
    defaults = EngineDefaults(
        backend="fake", num_ctx=4096, max_sequences=1, options={"tokens_per_second": "200"}
    )
    with Gateway(tmp_path, defaults=defaults) as busy, busy.client() as client:
        first = Background(busy, GENERATE, "first")
        wait_for_text(client, "first")
        queued = Background(busy, GENERATE, "queued")
        while client.post("/api/extra/abort", json={"genkey": "queued"}).json()["done"] != "true":
            pass
        queued.thread.join()
        assert first.thread.is_alive()
        assert queued.answer is not None
        assert queued.answer.json()["results"][0]["text"] == ""
        client.post("/api/extra/abort")
        first.thread.join()


def test_figures_have_every_name_that_koboldcpps_clients_read(client: httpx.Client) -> None:
    names = (
        "last_process last_eval last_token_count last_input_count last_process_time last_eval_time"
        " last_process_speed last_eval_speed last_seed last_draft_success last_draft_failed"
        " total_gens total_img_gens total_tts_gens total_transcribe_gens stop_reason queue idle"
        " hordeexitcounter uptime idletime quiet"
    )
    assert set(client.get("/api/extra/perf").json()) == set(names.split())
    count = client.post("/api/extra/tokenize", json={"prompt": "ab"}).json()
    assert count == {"value": 2, "ids": [97, 98]}


def test_clients_are_told_that_a_key_is_needed(tmp_path: Path) -> None:
    with Gateway(tmp_path, access=Access(api_key="k")) as locked, locked.client() as client:
        answer = client.get("/api/extra/version", headers={"authorization": "Bearer k"})
        assert answer.json()["protected"] is True


@pytest.mark.parametrize(
    "path",
    [
        "/api/extra/websearch",
        "/api/extra/data/list",
        "/api/admin/list_options",
        "/v1/images/generations",
        "/v1/audio/speech",
        "/v1/moderations",
    ],
)
def test_what_this_server_does_not_do_is_501_with_the_reason(
    client: httpx.Client, path: str
) -> None:
    answer = client.post(path, json={})
    assert answer.status_code == 501 and "this server" in answer.text


def test_abort_without_body_ends_completions_too(slow: Gateway) -> None:
    answers: list[httpx.Response] = []

    def ask() -> None:
        with slow.client() as client:
            body = {"prompt": "hi", "max_tokens": 2000}
            answers.append(client.post("/v1/completions", json=body))

    thread = threading.Thread(target=ask)
    thread.start()
    with slow.client() as client:
        while not answers:
            assert client.post("/api/extra/abort").status_code == 200
    thread.join()
    assert answers[0].json()["choices"][0]["finish_reason"] == "stop"


def test_errors_have_kobolds_shape(client: httpx.Client, tmp_path: Path) -> None:
    response = client.post(GENERATE, json={"prompt": "a", "top_p": 5})
    assert response.status_code == 400
    detail = response.json()["detail"]
    assert detail["type"] == "bad_input" and "top_p" in detail["msg"]
    assert client.post("/api/extra/tts", json={}).status_code == 501
    with Gateway(tmp_path, model=None) as empty, empty.client() as other:
        refused = other.post(GENERATE, json=GREEDY)
        assert refused.status_code == 501
        assert refused.json()["detail"]["type"] == "not_implemented"
        assert other.get("/api/v1/model").json() == {"result": "ReadOnly"}
