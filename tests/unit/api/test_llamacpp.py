"""llama-server's native routes, and the token routes that it shares with vLLM and KoboldCpp."""

import json
from typing import Any

import httpx
import pytest

from innkeeper.api import llamacpp
from innkeeper.core import SamplingParams
from innkeeper.core.request import WHOLE_CONTEXT
from tests.unit.api.gateway import Gateway

GREEDY = {"prompt": "Once", "temperature": 0, "n_predict": 12}


def post(client: httpx.Client, path: str = "/completion", **body: Any) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def sampling(**body: Any) -> SamplingParams:
    return llamacpp.parse({"prompt": "a", **body}).requests[0].sampling


def test_answer_has_llama_servers_shape(client: httpx.Client) -> None:
    answer = post(client, **GREEDY)
    assert len(answer["content"]) == answer["tokens_predicted"] == 12
    assert (answer["stop"], answer["stop_type"], answer["truncated"]) == (True, "limit", False)
    assert (answer["tokens_evaluated"], answer["model"], answer["tokens"]) == (5, "fake", [])
    assert answer["generation_settings"]["temperature"] == 0
    assert answer["timings"]["predicted_n"] == 12
    assert "completion_probabilities" not in answer
    assert answer["warnings"] == []


def test_stream_joins_to_the_whole_and_ends_without_done(client: httpx.Client) -> None:
    response = client.post("/completion", json={**GREEDY, "stream": True})
    assert "[DONE]" not in response.text
    blocks = [block for block in response.text.split("\n\n") if block]
    found = [json.loads(block.removeprefix("data: ")) for block in blocks]
    assert "".join(each["content"] for each in found) == post(client, **GREEDY)["content"]
    assert [each["stop"] for each in found] == [False] * 12 + [True]
    assert found[-1]["timings"]["predicted_n"] == 12


def test_stopping_word_is_named(client: httpx.Client) -> None:
    whole = post(client, **GREEDY)["content"]
    answer = post(client, **GREEDY, stop=[whole[3]])
    assert (answer["stop_type"], answer["stopping_word"]) == ("word", whole[3])


def test_probabilities_have_both_names_of_the_text(client: httpx.Client) -> None:
    answer = post(client, **GREEDY, n_probs=3)
    first = answer["completion_probabilities"][0]
    assert first["content"] == first["token"] == answer["content"][0]
    assert len(first["top_logprobs"]) == 3 and first["logprob"] < 0
    assert post(client, **GREEDY, return_tokens=True)["tokens"] == list(answer["content"].encode())


def test_several_prompts_make_a_list(client: httpx.Client) -> None:
    (single,) = post(client, **{**GREEDY, "prompt": ["Once"]})
    assert single["content"] == post(client, **GREEDY)["content"]
    first, second = post(client, **{**GREEDY, "prompt": ["Once", [104, 105]]})
    assert (first["index"], second["index"]) == (0, 1)
    assert len(post(client, **GREEDY, n_cmpl=3)) == 3


def test_text_and_ids_mix_in_a_prompt(client: httpx.Client) -> None:
    mixed = post(client, **{**GREEDY, "prompt": [256, 79, "nc", 101]})
    assert mixed["content"] == post(client, **GREEDY)["content"]
    wrapped = post(client, **{**GREEDY, "prompt": {"prompt_string": "Once"}})
    assert wrapped["content"] == mixed["content"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}),
        ({}, {"penalty_range": 64, "dry_range": 64, "xtc_protect": False}),
        ({"repeat_last_n": 0}, {"penalty_range": 0}),
        ({"repeat_last_n": -1}, {"penalty_range": WHOLE_CONTEXT}),
        ({"dry_penalty_last_n": 0}, {"dry_range": 0}),
        ({"repeat_penalty": 1.3}, {"repetition_penalty": 1.3}),
        ({"logit_bias": [[7, False]]}, {"logit_bias": {7: float("-inf")}}),
        ({"ignore_eos": True}, {"ban_eos": True}),
        ({"mirostat": 2}, {"mirostat": 2}),
    ],
)
def test_fields_mean_what_llama_server_means(
    body: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = sampling(**body)
    assert {name: getattr(found, name) for name in expected} == expected


def test_steps_that_samplers_leaves_out_do_not_apply() -> None:
    order = sampling(samplers=["top_k", "temperature", "typ_p"]).order
    assert order[:3] == ("top_k", "temperature", "typical_p")
    assert not {"penalties", "dry", "min_p", "top_p", "xtc"} & set(order)
    assert (
        sampling(samplers="kyt").order == sampling(samplers=["top_k", "typ_p", "temperature"]).order
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("t_max_predict_ms", 5),
        ("lora", [{"id": 0, "scale": 1}]),
        ("n_keep", 4),
        ("samplers", ["warp"]),
        ("what", 1),
    ],
)
def test_what_cannot_be_applied_is_reported(client: httpx.Client, name: str, value: object) -> None:
    (warning,) = post(client, **GREEDY, **{name: value})["warnings"]
    assert name in warning


def test_tokenize_answers_llama_servers_clients(client: httpx.Client) -> None:
    assert post(client, "/tokenize", content="hé") == {"tokens": [104, 195, 169]}
    assert post(client, "/tokenize", content="h", add_special=True) == {"tokens": [256, 104]}
    assert post(client, "/tokenize", content=["h", 105]) == {"tokens": [104, 105]}
    pieces = post(client, "/tokenize", content="hi", with_pieces=True)
    assert pieces == {"tokens": [{"id": 104, "piece": "h"}, {"id": 105, "piece": "i"}]}
    assert post(client, "/tokenize", content="") == {"tokens": []}


@pytest.mark.parametrize("path", ["/tokenize", "/v1/tokenize"])
def test_tokenize_answers_vllms_and_koboldcpps_clients(client: httpx.Client, path: str) -> None:
    answer = post(client, path, model="any", prompt="hé")
    assert (answer["count"], answer["tokens"], answer["max_model_len"]) == (
        3,
        [104, 195, 169],
        2048,
    )
    assert (answer["value"], answer["ids"]) == (3, answer["tokens"])
    assert post(client, path, prompt="h", add_special_tokens=True)["count"] == 2
    messages = [{"role": "user", "content": "hi"}]
    prompt = post(client, "/apply-template", messages=messages)["prompt"]
    counted = post(client, path, messages=messages, return_token_strs=True)
    assert "".join(counted["token_strs"]).removeprefix("<s>") == prompt


def test_detokenize_has_both_names_of_the_text(client: httpx.Client) -> None:
    for path in ("/detokenize", "/v1/detokenize"):
        assert post(client, path, tokens=[104, 105]) == {"content": "hi", "prompt": "hi"}


def test_status_routes(client: httpx.Client) -> None:
    slots = client.get("/slots").json()
    assert len(slots) == 4 and {slot["n_ctx"] for slot in slots} == {2048}
    metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    for counted in ("predicted", "cached", "approximate", "refreshed", "prompt"):
        name = "tokens_predicted" if counted == "predicted" else f"{counted}_tokens"
        assert f"llamacpp:{name}_total " in metrics.text
    assert client.get("/lora-adapters").json() == []
    assert client.get("/v1/health").json()["status"] == "ok"
    assert set(client.get("/version").json()) == {"version"}


def test_a_routers_models_are_loaded_and_unloaded_by_name(two: Gateway) -> None:
    with two.client() as client:
        for name in ("a", "b"):
            assert client.post("/models/load", json={"model": name}).json() == {"success": True}
        assert client.post("/models/unload", json={"model": "a"}).json() == {"success": True}
        states = {
            each["id"]: each["status"]["value"] for each in client.get("/models").json()["data"]
        }
        assert states == {"a": "unloaded", "b": "loaded"}
        unknown = client.post("/models/load", json={"model": "c"})
        assert unknown.status_code == 404
        assert unknown.json()["error"]["type"] == "not_found_error"


def test_slots_fail_on_request_where_none_is_free(client: httpx.Client) -> None:
    assert client.get("/slots", params={"fail_on_no_slot": 1}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions/input_tokens", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/responses/input_tokens", {"input": "hi"}),
    ],
)
def test_input_tokens_are_what_the_prompt_would_cost(
    client: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    route = path.removesuffix("/input_tokens")
    limit = {"max_output_tokens" if "input" in body else "max_tokens": 1}
    usage = client.post(route, json={**body, **limit}).json()["usage"]
    cost = usage.get("prompt_tokens", usage.get("input_tokens"))
    assert client.post(path, json=body).json() == {
        "object": "response.input_tokens",
        "input_tokens": cost,
    }


def test_errors_have_llama_servers_shape(client: httpx.Client) -> None:
    response = client.post("/completion", json={**GREEDY, "top_p": 5})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (
        400,
        400,
        "invalid_request_error",
    )
    assert "top_p" in error["message"]
    too_long = client.post("/completion", json={"prompt": "x" * 5000}).json()["error"]
    assert too_long["type"] == "exceed_context_size_error"
    assert client.post("/tokenize", json={}).json()["error"]["code"] == 400


def test_probabilities_after_sampling_are_no_logarithms(client: httpx.Client) -> None:
    body = {"prompt": "Once", "n_predict": 2, "n_probs": 9, "top_k": 2, "post_sampling_probs": True}
    found = client.post("/completion", json=body).json()["completion_probabilities"]
    assert len(found) == 2
    for entry in found:
        assert sum(each["prob"] for each in entry["top_probs"]) == pytest.approx(1, abs=1e-5)
        assert entry["prob"] in [each["prob"] for each in entry["top_probs"]]
