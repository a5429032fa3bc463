"""``/v1/responses`` by the official client: whole, streamed, held to a schema, with tools."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.unit.api.gateway import Gateway

SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
ASK: dict[str, Any] = {"model": "fake", "input": "hi", "max_output_tokens": 8, "temperature": 0}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with (
        Gateway(tmp_path_factory.mktemp("models")) as gateway,
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def strict(value: Any) -> None:
    """The answer is of the types that the client declares."""
    type(value).model_validate(value.model_dump())


def test_whole(client: Any) -> None:
    answer = client.responses.create(**ASK)
    strict(answer)
    assert len(answer.output_text) == 8
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.usage.output_tokens == 8 and answer.usage.input_tokens > 2


def test_stream_joins_to_the_whole(client: Any) -> None:
    whole = client.responses.create(**ASK).output_text
    events = list(client.responses.create(**ASK, stream=True))
    for event in events:
        strict(event)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    text = "".join(each.delta for each in events if each.type == "response.output_text.delta")
    assert text == whole == events[-1].response.output_text


def test_instructions_turns_and_calls_reach_the_prompt(client: Any) -> None:
    turns = [
        {"role": "user", "content": [{"type": "input_text", "text": "one"}]},
        {"type": "message", "role": "assistant", "content": "two"},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "a door"},
    ]
    asked = {**ASK, "input": turns, "instructions": "Be brief."}
    answer = client.responses.create(**asked, extra_body={"debug": True})
    prompt = answer.model_extra["debug"]["prompt"]
    for words in ("Be brief.", "one", "two", "look", "a door"):
        assert words in prompt


def test_a_schema_holds_the_reply(client: Any) -> None:
    form = {"format": {"type": "json_schema", "name": "ok", "schema": SCHEMA, "strict": True}}
    answer = client.responses.create(**{**ASK, "max_output_tokens": 60}, text=form)
    assert isinstance(json.loads(answer.output_text)["ok"], bool)


@pytest.mark.parametrize("streams", [False, True])
def test_a_tool_is_called(client: Any, streams: bool) -> None:
    tool = {
        "type": "function",
        "name": "look",
        "parameters": {**SCHEMA, "properties": {"ok": {"type": "boolean"}}},
    }
    asked = {**ASK, "max_output_tokens": 200, "tools": [tool], "tool_choice": "required"}
    if streams:
        events = list(client.responses.create(**asked, stream=True))
        answer = events[-1].response
        done = next(e for e in events if e.type.endswith("call_arguments.done"))
        assert "ok" in json.loads(done.arguments)
    else:
        answer = client.responses.create(**asked)
    strict(answer)
    called = [item for item in answer.output if item.type == "function_call"]
    assert called[0].name == "look" and "ok" in json.loads(called[0].arguments)


def test_store_is_reported_and_what_was_stored_is_refused(client: Any) -> None:
    stored = client.responses.create(**ASK, store=True)
    assert any("store" in warning for warning in stored.model_extra["warnings"])
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        client.responses.create(**ASK, previous_response_id="resp_1")
