"""The official Python clients of Anthropic and Ollama against a gateway with the fake engine."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import ollama
import pytest

from innkeeper.api import Access
from tests.unit.api.gateway import Gateway

SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("models")
    with Gateway(folder, access=Access(api_key="key")) as running:
        yield running


CALL = '<tool_call>\n{"name": "look", "arguments": {"where": "north"}}\n</tool_call>'


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Its model thinks, speaks and calls a tool."""
    reply = f"<think>Hm.</think>Wait.\n{CALL}"
    with Gateway(tmp_path_factory.mktemp("models"), reply=reply) as running:
        yield running


# --- Anthropic -----------------------------------------------------------------------------------

MESSAGES: dict[str, Any] = {
    "model": "fake",
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "hi"}],
    "extra_body": {"temperature": 0},
}


@pytest.fixture(scope="module")
def claude(gateway: Gateway) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=gateway.url, api_key="key", max_retries=0) as client:
        yield client


def strict(value: Any) -> None:
    """The answer is of the types that the client declares, in every field."""
    type(value).model_validate(value.model_dump(), strict=True)


def test_anthropic_message(claude: Any) -> None:
    answer = claude.messages.create(**MESSAGES)
    strict(answer)
    assert len(answer.content[0].text) == 10
    assert (answer.stop_reason, answer.stop_sequence) == ("max_tokens", None)
    assert answer.usage.output_tokens == 10


@pytest.mark.parametrize("stops", [False, True])
def test_anthropic_stream_joins_to_the_whole(claude: Any, stops: bool) -> None:
    whole = claude.messages.create(**MESSAGES).content[0].text
    more = {"stop_sequences": [whole[4]]} if stops else {}
    with claude.messages.stream(**MESSAGES, **more) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    strict(final)
    assert text == final.content[0].text == (whole.split(whole[4])[0] if stops else whole)
    assert final.stop_sequence == (whole[4] if stops else None)
    assert final.usage.output_tokens > 0
    assert final.usage.input_tokens + final.usage.cache_read_input_tokens > 0


def test_anthropic_raw_events_are_of_the_declared_types(claude: Any) -> None:
    events = list(claude.messages.create(**MESSAGES, stream=True))
    for event in events:
        strict(event)
    assert [event.type for event in events[:2]] == ["message_start", "content_block_start"]
    assert events[-1].type == "message_stop"


def test_anthropic_system_blocks_and_turns(claude: Any) -> None:
    blocks = [{"type": "text", "text": "Be kind."}]
    turns = [
        {"role": "user", "content": blocks},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "hi"},
    ]
    strict(claude.messages.create(**{**MESSAGES, "system": blocks, "messages": turns}))


def test_anthropic_counts_tokens_as_the_engine_does(claude: Any) -> None:
    given = {"model": "fake", "messages": MESSAGES["messages"]}
    usage = claude.messages.create(**MESSAGES).usage
    counted = claude.messages.count_tokens(**given)
    strict(counted)
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


def test_anthropic_models(claude: Any) -> None:
    (model,) = claude.models.list().data
    strict(model)
    assert claude.models.retrieve("fake").id == model.id == "fake"


def test_anthropic_errors_are_the_clients_own(claude: Any) -> None:
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        claude.messages.create(**{**MESSAGES, "extra_body": {"temperature": 1000}})
    with pytest.raises(anthropic.BadRequestError, match="2048"):
        long = [{"role": "user", "content": "x" * 5000}]
        claude.messages.create(**{**MESSAGES, "messages": long})
    with pytest.raises(anthropic.AuthenticationError):
        claude.with_options(api_key="wrong").messages.create(**MESSAGES)
    with pytest.raises(anthropic.NotFoundError):
        claude.models.retrieve("other")


LOOK: dict[str, Any] = {
    "name": "look",
    "description": "Looks somewhere.",
    "input_schema": {
        "type": "object",
        "properties": {"where": {"enum": ["north", "south"]}},
        "required": ["where"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def calling_claude(caller: Gateway) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=caller.url, api_key="none", max_retries=0) as client:
        yield client


def told(message: Any) -> list[tuple[str, Any]]:
    """The blocks of an answer, by kind."""
    return [
        (block.type, getattr(block, {"tool_use": "input"}.get(block.type, block.type)))
        for block in message.content
    ]


def test_anthropic_thinking_text_and_call_come_as_blocks(calling_claude: Any) -> None:
    given = {**MESSAGES, "max_tokens": 500, "tools": [LOOK], "thinking": {"type": "adaptive"}}
    whole = calling_claude.messages.create(**given)
    strict(whole)
    blocks = [("thinking", "Hm."), ("text", "Wait."), ("tool_use", {"where": "north"})]
    assert told(whole) == blocks
    assert whole.stop_reason == "tool_use" and whole.content[2].name == "look"
    with calling_claude.messages.stream(**given) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_message()
    strict(final)
    assert told(final) == blocks and final.stop_reason == "tool_use"
    assert kinds >= {"thinking", "signature", "text", "input_json", "content_block_stop"}


def test_anthropic_raw_events_of_a_call_are_of_the_declared_types(calling_claude: Any) -> None:
    given = {**MESSAGES, "max_tokens": 500, "tools": [LOOK]}
    events = list(calling_claude.messages.create(**given, stream=True))
    for event in events:
        strict(event)
    starts = [event for event in events if event.type == "content_block_start"]
    assert [event.index for event in starts] == [0, 1, 2]
    stops = [event.index for event in events if event.type == "content_block_stop"]
    assert stops == [0, 1, 2], "each block ends before the next one"


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "look"}])
def test_anthropic_forced_call_obeys_its_schema_and_its_result_is_taken(
    claude: Any, choice: dict[str, Any]
) -> None:
    given = {**MESSAGES, "max_tokens": 200, "tools": [LOOK]}
    choice = {**choice, "disable_parallel_tool_use": True}
    answer = claude.messages.create(**given, tool_choice=choice)
    strict(answer)
    (call,) = answer.content
    assert call.input["where"] in ("north", "south")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "a hill"}
    turns = [
        *MESSAGES["messages"],
        {"role": "assistant", "content": [call.model_dump()]},
        {"role": "user", "content": [result]},
    ]
    strict(claude.messages.create(**{**given, "messages": turns}))


def test_anthropic_counts_the_tokens_of_tools(claude: Any) -> None:
    given = {"model": "fake", "messages": MESSAGES["messages"]}
    without = claude.messages.count_tokens(**given).input_tokens
    assert claude.messages.count_tokens(**given, tools=[LOOK]).input_tokens > without + 50


# --- Ollama --------------------------------------------------------------------------------------

OPTIONS = {"temperature": 0, "num_predict": 10}
TURNS = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def llama(gateway: Gateway) -> Iterator[Any]:
    headers = {"authorization": "Bearer key"}
    with ollama.Client(host=gateway.url, headers=headers) as client:
        yield client


@pytest.mark.parametrize("raw", [False, True])
def test_ollama_generate(llama: Any, raw: bool) -> None:
    given = {"model": "fake", "prompt": "Once", "raw": raw, "options": OPTIONS}
    whole = llama.generate(**given)
    assert len(whole.response) == whole.eval_count == 10
    assert whole.done and whole.done_reason == "length"
    pieces = list(llama.generate(**given, stream=True))
    assert "".join(piece.response for piece in pieces) == whole.response
    assert [piece.done for piece in pieces] == [False] * 10 + [True]
    assert pieces[-1].prompt_eval_count == whole.prompt_eval_count


def test_ollama_chat(llama: Any) -> None:
    given = {"model": "fake:latest", "messages": TURNS, "options": OPTIONS}
    whole = llama.chat(**given)
    assert whole.message.role == "assistant" and len(whole.message.content) == 10
    pieces = list(llama.chat(**given, stream=True))
    assert "".join(piece.message.content for piece in pieces) == whole.message.content
    assert pieces[-1].total_duration > 0


@pytest.mark.parametrize("streamed", [False, True])
def test_ollama_format_is_obeyed(llama: Any, streamed: bool) -> None:
    given = {"model": "fake", "messages": TURNS, "format": SCHEMA, "options": {"num_predict": 200}}
    if streamed:
        text = "".join(piece.message.content for piece in llama.chat(**given, stream=True))
    else:
        text = llama.chat(**given).message.content
    assert json.loads(text).keys() == {"ok"}


def look(where: str) -> str:
    """Looks somewhere.

    Args:
      where: north or south
    """
    return where


@pytest.fixture(scope="module")
def calling_llama(caller: Gateway) -> Iterator[Any]:
    with ollama.Client(host=caller.url) as client:
        yield client


def test_ollama_thinking_text_and_call_are_told_apart(calling_llama: Any) -> None:
    given = {"model": "fake", "messages": TURNS, "tools": [look], "think": True}
    whole = calling_llama.chat(**given)
    assert (whole.message.thinking, whole.message.content) == ("Hm.", "Wait.")
    (call,) = whole.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("look", {"where": "north"})
    assert whole.done_reason == "stop"
    pieces = list(calling_llama.chat(**given, stream=True))
    assert "".join(piece.message.thinking or "" for piece in pieces) == "Hm."
    assert "".join(piece.message.content for piece in pieces) == "Wait."
    calls = [each for piece in pieces for each in piece.message.tool_calls or ()]
    assert calls == [call]
    assert [piece.done for piece in pieces][-2:] == [False, True]


def test_ollama_call_and_its_result_are_taken_back(calling_llama: Any) -> None:
    whole = calling_llama.chat(model="fake", messages=TURNS, tools=[look])
    result = {"role": "tool", "tool_name": "look", "content": "a hill"}
    turns = [*TURNS, whole.message, result]
    again = calling_llama.chat(model="fake", messages=turns, tools=[look])
    assert again.prompt_eval_count > whole.prompt_eval_count


@pytest.mark.parametrize("streamed", [False, True])
def test_ollama_thinking_of_a_text_comes_apart(calling_llama: Any, streamed: bool) -> None:
    answer = calling_llama.generate(model="fake", prompt="hi", stream=streamed)
    pieces = list(answer) if streamed else [answer]
    assert "".join(piece.thinking or "" for piece in pieces) == "Hm."
    assert "".join(piece.response for piece in pieces) == f"Wait.\n{CALL}"


def test_ollama_logprobs(llama: Any) -> None:
    given = {"model": "fake", "prompt": "Once", "options": OPTIONS}
    answer = llama.generate(**given, logprobs=True, top_logprobs=2)
    assert "".join(each.token for each in answer.logprobs) == answer.response
    assert {len(each.top_logprobs) for each in answer.logprobs} == {2}


def test_ollama_models(llama: Any) -> None:
    (tag,) = llama.list().models
    assert tag.model == "fake:latest" and tag.details.format == "gguf"
    (loaded,) = llama.ps().models
    assert loaded.model == tag.model and loaded.digest == tag.digest
    assert llama.show("fake").capabilities == ["completion", "tools"]


def test_ollama_errors_are_the_clients_own(llama: Any) -> None:
    with pytest.raises(ollama.ResponseError, match="model 'other' not found") as caught:
        llama.chat(model="other", messages=TURNS)
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="top_p") as caught:
        list(llama.generate(model="fake", prompt="a", options={"top_p": 1.5}, stream=True))
    assert caught.value.status_code == 400
    for call in (
        lambda: llama.pull("other"),
        lambda: llama.delete("fake"),
        lambda: llama.copy("other", "third"),
    ):
        with pytest.raises(ollama.ResponseError) as caught:
            call()
        assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="makes no embeddings") as caught:
        llama.embed(model="fake", input="a")
    assert caught.value.status_code == 400
