"""``/v1/completions`` through the front door."""

import json
from typing import Any

import httpx
import pytest

GREEDY = {"prompt": "Once", "temperature": 0, "max_tokens": 12}


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """Chunks of a stream that ended as it should."""
    assert response.headers["content-type"].startswith("text/event-stream")
    blocks = [block for block in response.text.split("\n\n") if block and block[0] != ":"]
    assert blocks[-1] == "data: [DONE]"
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-1]]


def post(client: httpx.Client, path: str = "/v1/completions", **body: Any) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def stream(client: httpx.Client, path: str = "/v1/completions", **body: Any) -> list[Any]:
    return events(client.post(path, json={**body, "stream": True}))


def test_answer_has_openais_shape(client: httpx.Client) -> None:
    answer = post(client, **GREEDY)
    assert answer["id"].startswith("cmpl-")
    assert (answer["object"], answer["model"]) == ("text_completion", "fake")
    assert answer["system_fingerprint"] is None
    (choice,) = answer["choices"]
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "length", None)
    assert len(choice["text"]) == 12
    assert answer["usage"]["completion_tokens"] == 12
    assert answer["usage"]["prompt_tokens"] == 5, "four bytes and a BOS"
    assert answer["warnings"] == []


def test_timings_count_the_prompt_once(client: httpx.Client) -> None:
    timings = post(client, **GREEDY, n=3)["timings"]
    assert timings["prompt_n"] + timings["cache_n"] + timings["cache_approx_n"] == 5
    assert timings["predicted_n"] == 36
    assert timings["predicted_per_second"] > 0


def test_streamed_pieces_join_to_the_whole(client: httpx.Client) -> None:
    whole = post(client, **GREEDY)["choices"][0]["text"]
    chunks = stream(client, **GREEDY)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * 12
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_only_the_last_chunk_carries_timings_and_warnings(client: httpx.Client) -> None:
    chunks = stream(client, **GREEDY, penalty_alpha=0.5)
    assert all("timings" not in chunk and "usage" not in chunk for chunk in chunks[:-1])
    assert chunks[-1]["timings"]["predicted_n"] == 12
    assert chunks[-1]["warnings"] == [
        "not applied: penalty_alpha = 0.5 (contrastive search is not supported yet)"
    ]


def test_include_usage_adds_a_last_chunk(client: httpx.Client) -> None:
    chunks = stream(client, **GREEDY, stream_options={"include_usage": True})
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 17
    assert chunks[-1]["timings"]["predicted_n"] == 12


@pytest.mark.parametrize("streamed", [False, True])
def test_choices_keep_their_index(client: httpx.Client, streamed: bool) -> None:
    body = {"prompt": "Once", "seed": 3, "temperature": 2, "max_tokens": 8, "n": 3}
    texts = {0: "", 1: "", 2: ""}
    if streamed:
        for chunk in stream(client, **body):
            texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    else:
        choices = post(client, **body)["choices"]
        assert [choice["index"] for choice in choices] == [0, 1, 2]
        texts = {choice["index"]: choice["text"] for choice in choices}
    alone = [
        post(client, **{**body, "n": 1, "seed": 3 + i})["choices"][0]["text"] for i in range(3)
    ]
    assert list(texts.values()) == alone


@pytest.mark.parametrize("streamed", [False, True])
def test_several_prompts_are_numbered_in_order(client: httpx.Client, streamed: bool) -> None:
    body: dict[str, Any] = {"temperature": 0, "max_tokens": 4}
    alone = [post(client, prompt=p, **body)["choices"][0]["text"] for p in ("one", "two")]
    texts = dict.fromkeys(range(4), "")
    if streamed:
        for chunk in stream(client, prompt=["one", "two"], n=2, **body):
            texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    else:
        answer = post(client, prompt=["one", "two"], n=2, **body)
        texts = {choice["index"]: choice["text"] for choice in answer["choices"]}
        assert answer["usage"]["prompt_tokens"] == 8
    assert list(texts.values()) == [alone[0], alone[0], alone[1], alone[1]]


def test_token_ids_are_a_prompt(client: httpx.Client) -> None:
    as_text = post(client, **{**GREEDY, "add_bos_token": False})
    as_tokens = post(client, **{**GREEDY, "prompt": list(b"Once")})
    assert as_tokens["choices"] == as_text["choices"]


def test_stop_string_ends_the_reply_and_is_not_in_it(client: httpx.Client) -> None:
    whole = post(client, **GREEDY)["choices"][0]["text"]
    for stop in (whole[4:6], [whole[4:6], "never"]):
        (choice,) = post(client, **GREEDY, stop=stop)["choices"]
        assert choice["finish_reason"] == "stop"
        assert whole[4:6] not in choice["text"] and whole.startswith(choice["text"])


@pytest.mark.parametrize("streamed", [False, True])
def test_echo_comes_first(client: httpx.Client, streamed: bool) -> None:
    plain = post(client, **GREEDY)["choices"][0]["text"]
    if streamed:
        chunks = stream(client, **GREEDY, echo=True)
        assert chunks[0]["choices"][0]["text"] == "Once"
        text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
    else:
        text = post(client, **GREEDY, echo=True)["choices"][0]["text"]
    assert text == "Once" + plain


@pytest.mark.parametrize("streamed", [False, True])
def test_logprobs_line_up_with_the_text(client: httpx.Client, streamed: bool) -> None:
    if streamed:
        parts = [
            chunk["choices"][0]["logprobs"]
            for chunk in stream(client, **GREEDY, logprobs=2, echo=True)
            if chunk["choices"][0]["logprobs"]
        ]
        found = {name: [item for part in parts for item in part[name]] for name in parts[0]}
    else:
        found = post(client, **GREEDY, logprobs=2, echo=True)["choices"][0]["logprobs"]
    text = post(client, **GREEDY, echo=True)["choices"][0]["text"]
    assert found["text_offset"] == list(range(4, 16))
    for token, offset in zip(found["tokens"], found["text_offset"], strict=True):
        assert text[offset : offset + len(token)] == token
    for token, logprob, top in zip(
        found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True
    ):
        assert len(top) == 2 and top[token] == logprob < 0


def test_sillytaverns_n_probs_asks_for_logprobs(client: httpx.Client) -> None:
    (choice,) = post(client, **GREEDY, n_probs=3)["choices"]
    assert len(choice["logprobs"]["top_logprobs"][0]) == 3
    assert post(client, **GREEDY, n_probs=0)["choices"][0]["logprobs"] is None


def test_shortened_prompt_is_reported(client: httpx.Client) -> None:
    answer = post(client, prompt="x" * 200, max_tokens=10, truncation_length=60)
    assert answer["usage"]["prompt_tokens"] == 50
    assert answer["warnings"] == ["151 tokens were cut off the start of the prompt, as asked"]


def test_no_tokens_asked_no_tokens_made(client: httpx.Client) -> None:
    answer = post(client, prompt="hi", max_tokens=0, echo=True)
    assert answer["choices"][0]["text"] == "hi"
    assert answer["choices"][0]["finish_reason"] == "length"


def test_cache_reuse_is_chosen_by_request(client: httpx.Client) -> None:
    assert post(client, **GREEDY, kv_reuse="exact")["warnings"] == []
    response = client.post("/v1/completions", json={**GREEDY, "kv_reuse": "magic"})
    assert response.json()["error"]["param"] == "kv_reuse"


@pytest.mark.parametrize("streamed", [False, True])
def test_banned_phrase_never_shows(client: httpx.Client, streamed: bool) -> None:
    whole = post(client, **GREEDY)["choices"][0]["text"]
    body = {**GREEDY, "banned_strings": [whole[2:8]]}
    if streamed:
        text = "".join(chunk["choices"][0]["text"] for chunk in stream(client, **body))
    else:
        text = post(client, **body)["choices"][0]["text"]
    assert len(text) == 12 and whole[2:8].lower() not in text.lower()


def test_guessing_where_text_repeats_changes_nothing(client: httpx.Client) -> None:
    body = {"prompt": "la la la la la la ", "temperature": 0, "max_tokens": 30}
    plain = post(client, **body)
    guessed = post(client, **body, prompt_lookup_num_tokens=8)
    assert guessed["choices"] == plain["choices"] and guessed["warnings"] == []
    assert post(client, **body, speculative_ngram=True)["choices"] == plain["choices"]
