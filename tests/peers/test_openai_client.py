"""OpenAI's own Python client against a gateway with the fake engine."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from innkeeper.api import Access
from tests.unit.api.gateway import Gateway


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    folder = tmp_path_factory.mktemp("models")
    with Gateway(folder, access=Access(api_key="key")) as gateway:
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="key", max_retries=0) as client:
            yield client


TEXT: dict[str, Any] = {"model": "fake", "prompt": "Once", "max_tokens": 10, "temperature": 0}
CHAT: dict[str, Any] = {
    "model": "fake",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 10,
    "temperature": 0,
}


def strict(value: Any) -> None:
    """The answer is of the types that the client declares, in every field."""
    type(value).model_validate(value.model_dump(), strict=True)


def test_models_are_listed(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    strict(model)
    assert client.models.retrieve("fake") == model


def test_completion(client: openai.OpenAI) -> None:
    answer = client.completions.create(**TEXT, logprobs=3)
    strict(answer)
    assert len(answer.choices[0].text) == 10
    assert answer.choices[0].finish_reason == "length"
    logprobs = answer.choices[0].logprobs
    assert logprobs and logprobs.tokens and len(logprobs.tokens) == 10
    assert answer.usage and answer.usage.total_tokens == 15


def test_streamed_completion_joins_to_the_whole(client: openai.OpenAI) -> None:
    whole = client.completions.create(**TEXT).choices[0].text
    chunks = list(
        client.completions.create(
            **TEXT, stream=True, logprobs=1, stream_options={"include_usage": True}
        )
    )
    assert {chunk.choices[0].finish_reason for chunk in chunks[:-2]} == {None}
    strict(chunks[-2])
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens == 10


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**CHAT, logprobs=True, top_logprobs=2)
    strict(answer)
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.logprobs and choice.logprobs.content
    assert "".join(entry.token for entry in choice.logprobs.content) == choice.message.content


def test_streamed_chat_joins_to_the_whole(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**CHAT).choices[0].message.content
    chunks = list(
        client.chat.completions.create(
            **CHAT, stream=True, logprobs=True, stream_options={"include_usage": True}
        )
    )
    for chunk in chunks:
        strict(chunk)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage and not chunks[-1].choices


def test_chat_stream_helper_agrees(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**CHAT).choices[0].message.content or ""
    with client.chat.completions.stream(**CHAT, n=2, stop=[whole[-1]]) as stream:
        final = stream.get_final_completion()
    expected = whole.split(whole[-1])[0]
    assert [choice.index for choice in final.choices] == [0, 1]
    assert [choice.message.content or "" for choice in final.choices] == [expected] * 2


@pytest.mark.parametrize("streamed", [False, True])
def test_two_choices(client: openai.OpenAI, streamed: bool) -> None:
    body = {**CHAT, "n": 2, "temperature": 1.5, "seed": 11}
    plain = client.chat.completions.create(**body)
    texts = {choice.index: choice.message.content for choice in plain.choices}
    if streamed:
        joined = {0: "", 1: ""}
        for chunk in client.chat.completions.create(**body, stream=True):
            for choice in chunk.choices:
                joined[choice.index] += choice.delta.content or ""
        assert joined == texts
    assert texts[0] != texts[1]


def test_seed_repeats_and_stop_stops(client: openai.OpenAI) -> None:
    body = {**TEXT, "temperature": 1.5, "seed": 7}
    first, second = (client.completions.create(**body).choices[0].text for _ in range(2))
    assert first == second
    stopped = client.completions.create(**body, stop=[first[3:5]]).choices[0]
    assert stopped.finish_reason == "stop"
    assert first.startswith(stopped.text) and first[3:5] not in stopped.text


def test_errors_are_the_clients_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**{**TEXT, "temperature": 1000})
    assert caught.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**{**TEXT, "prompt": "x" * 5000})
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


LOOK: Any = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {
            "type": "object",
            "properties": {"where": {"enum": ["north", "south"]}},
            "required": ["where"],
            "additionalProperties": False,
        },
    },
}


def test_required_tool_call_and_its_result(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {**CHAT, "max_tokens": 100, "tools": [LOOK], "tool_choice": "required"}
    answer = client.chat.completions.create(**asked, parallel_tool_calls=False)
    strict(answer)
    assert answer.choices[0].finish_reason == "tool_calls"
    message = answer.choices[0].message
    assert message.tool_calls
    (call,) = message.tool_calls
    assert call.type == "function" and call.function.name == "look"
    assert json.loads(call.function.arguments)["where"] in ("north", "south")
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "a hill"}
    follow = {**CHAT, "messages": [*CHAT["messages"], message, result], "tools": [LOOK]}
    strict(client.chat.completions.create(**follow))


def test_streamed_tool_call_is_put_together_by_the_client(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {**CHAT, "max_tokens": 100, "tools": [LOOK], "tool_choice": "required"}
    with client.chat.completions.stream(**asked, parallel_tool_calls=False) as stream:
        for event in stream:
            if event.type == "chunk":
                strict(event.chunk)
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls
    (call,) = final.choices[0].message.tool_calls
    assert call.function.name == "look" and json.loads(call.function.arguments)["where"]
