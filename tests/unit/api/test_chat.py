"""``/v1/chat/completions`` through the front door."""

from typing import Any

import httpx
import pytest

from tests.unit.api.test_completions import post as post_to
from tests.unit.api.test_completions import stream as stream_from

PATH = "/v1/chat/completions"
CHAT = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 9}


def post(client: httpx.Client, **body: Any) -> dict[str, Any]:
    return post_to(client, PATH, **body)


def stream(client: httpx.Client, **body: Any) -> list[Any]:
    return stream_from(client, PATH, **body)


def test_answer_has_openais_shape(client: httpx.Client) -> None:
    answer = post(client, **CHAT)
    assert answer["id"].startswith("chatcmpl-") and answer["object"] == "chat.completion"
    (choice,) = answer["choices"]
    assert choice["message"].keys() == {"role", "content", "refusal"}
    assert len(choice["message"]["content"]) == 9
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == answer["timings"]["predicted_n"] == 9
    assert "ChatML" in answer["warnings"][0]


@pytest.mark.parametrize("n", [1, 2])
def test_streamed_pieces_join_to_the_whole(client: httpx.Client, n: int) -> None:
    whole = post(client, **CHAT, n=n)["choices"]
    texts = [""] * n
    chunks = stream(client, **CHAT, n=n)
    for chunk in chunks:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == [choice["message"]["content"] for choice in whole]
    for index in range(n):
        first = next(c for c in chunks if c["choices"][0]["index"] == index)
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert chunks[-1]["timings"]["predicted_n"] == 9 * n


def test_logprobs_have_openais_second_shape(client: httpx.Client) -> None:
    (choice,) = post(client, **CHAT, logprobs=True, top_logprobs=2)["choices"]
    content = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content) == choice["message"]["content"]
    assert all(len(entry["top_logprobs"]) == 2 for entry in content)
    assert bytes(content[0]["bytes"]).decode() == content[0]["token"]
    assert post(client, **CHAT, top_logprobs=2)["choices"][0]["logprobs"] is None


def prompt_of(client: httpx.Client, messages: list[Any], **body: Any) -> str:
    answer = post_to(client, "/v1/internal/chat-prompt", messages=messages, **body)
    prompt: str = answer["prompt"]
    return prompt


def test_text_parts_are_joined_and_developers_are_system(client: httpx.Client) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    prompt = prompt_of(
        client, [{"role": "developer", "content": parts}, {"role": "user", "content": "c"}]
    )
    assert prompt == (
        "<|im_start|>system\na\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("name", ["continue_", "continue_final_message"])
def test_continued_reply_opens_no_new_turn(client: httpx.Client, name: str) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "Well, "}]
    assert prompt_of(client, messages, **{name: True}).endswith("<|im_start|>assistant\nWell, ")


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        (None, "messages"),
        ([], "messages"),
        ("hi", "messages"),
        (["hi"], "messages[0]"),
        ([{"content": "hi"}], "messages[0].role"),
        ([{"role": "function", "content": "hi"}], "messages[0].role"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "user", "name": 10**30, "content": "hi"}], "messages[0].name"),
    ],
)
def test_bad_messages_name_their_place(client: httpx.Client, messages: Any, field: str) -> None:
    response = client.post(PATH, json={"messages": messages})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == field


def test_template_variables_must_be_plain(client: httpx.Client) -> None:
    deep: Any = 1
    for _ in range(50):
        deep = [deep]
    response = client.post(PATH, json={**CHAT, "chat_template_kwargs": {"a": deep}})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "chat_template_kwargs"


def test_truncation_leaves_the_oldest_turns_out_and_says_so(client: httpx.Client) -> None:
    old = [{"role": "user", "content": f"{i} " + "x" * 300} for i in range(9)]
    body = {**CHAT, "messages": [*old, *CHAT["messages"]], "debug": True}
    refused = client.post(PATH, json={**body, "truncation": "disabled"})
    assert refused.status_code == 400 and "2048" in refused.json()["error"]["message"]
    for asked in ({"truncation": "auto"}, {"truncation_length": 2000}):
        answer = post(client, **body, **asked)
        prompt = answer["debug"][0]["prompt"]
        assert "0 xx" not in prompt and "hi<" in prompt
        assert any("of 10 messages were left out" in each for each in answer["warnings"])
    wrong = client.post(PATH, json={**body, "truncation": "left"}).json()["error"]
    assert wrong["param"] == "truncation" and "auto, disabled" in wrong["message"]
