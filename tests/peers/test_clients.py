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
    assert llama.show("fake").capabilities == ["completion"]


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
        lambda: llama.copy("fake", "other"),
    ):
        with pytest.raises(ollama.ResponseError, match="not supported") as caught:
            call()
        assert caught.value.status_code == 501
    with pytest.raises(ollama.ResponseError, match="makes no embeddings") as caught:
        llama.embed(model="fake", input="a")
    assert caught.value.status_code == 400
