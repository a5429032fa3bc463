"""Anthropic's ``/v1/messages`` through the front door."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from innkeeper.api import anthropic_fields
from innkeeper.errors import InvalidRequestError
from tests.unit.api.gateway import Gateway

PATH = "/v1/messages"
CHAT: dict[str, Any] = {
    "model": "any",
    "max_tokens": 12,
    "temperature": 0,
    "messages": [{"role": "user", "content": "hi"}],
}

LOOK: dict[str, Any] = {
    "name": "look",
    "description": "Looks somewhere.",
    "input_schema": {
        "type": "object",
        "properties": {"where": {"type": "string"}},
        "required": ["where"],
        "additionalProperties": False,
    },
}


def post(client: httpx.Client, **body: Any) -> dict[str, Any]:
    response = client.post(PATH, json={**CHAT, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def stream(client: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    response = client.post(PATH, json={**CHAT, **body, "stream": True})
    found = []
    for block in response.text.split("\n\n"):
        if block:
            name, data = block.split("\n")
            found.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {found[-1]['type']}"
    return found


def turns(**body: Any) -> list[tuple[str, str | None]]:
    messages = anthropic_fields.parse({**CHAT, **body}).request.messages
    assert messages is not None
    return [(each.role, each.content) for each in messages]


def test_answer_has_anthropics_shape(client: httpx.Client) -> None:
    answer = post(client)
    assert answer["id"].startswith("msg_")
    assert (answer["type"], answer["role"], answer["model"]) == ("message", "assistant", "fake")
    (block,) = answer["content"]
    assert block["type"] == "text" and len(block["text"]) == 12
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("max_tokens", None)
    usage = answer["usage"]
    assert usage["output_tokens"] == 12
    count = client.post(f"{PATH}/count_tokens", json={"messages": CHAT["messages"]}).json()
    assert count == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}


def test_stream_has_the_events_in_order_and_joins_to_the_whole(client: httpx.Client) -> None:
    found = stream(client)
    assert [each["type"] for each in found] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 12,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    text = "".join(each["delta"]["text"] for each in found[2:-3])
    assert text == post(client)["content"][0]["text"]
    assert found[-2]["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert found[-2]["usage"]["output_tokens"] == 12


def test_stop_sequence_is_named(client: httpx.Client) -> None:
    stop = post(client)["content"][0]["text"][3]
    answer = post(client, stop_sequences=[stop])
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", stop)
    assert stream(client, stop_sequences=[stop])[-2]["delta"]["stop_sequence"] == stop


def test_system_and_blocks_become_messages() -> None:
    blocks = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [
        {"role": "user", "content": blocks},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "text", "text": "let me look"},
                {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "blue"},
                {"type": "tool_result", "tool_use_id": "t2", "content": "no", "is_error": True},
            ],
        },
    ]
    assert turns(system="Be kind.", messages=messages) == [
        ("system", "Be kind."),
        ("user", "a\nb"),
        ("assistant", "let me look"),
        ("tool", "blue"),
        ("tool", "Error: no"),
    ]
    assert turns(system=blocks)[0] == ("system", "a\nb")
    parsed = anthropic_fields.parse({**CHAT, "messages": messages}).request.messages
    assert parsed is not None
    assert parsed[1].extra["reasoning_content"] == "hm"
    assert parsed[1].extra["tool_calls"][0]["function"]["name"] == "look"


def test_sampling_fields_reach_the_engine() -> None:
    request = anthropic_fields.parse({**CHAT, "top_k": 5, "top_p": 0.5, "min_p": 0.1}).request
    assert (request.sampling.top_k, request.sampling.top_p) == (5, 0.5)
    assert request.sampling.min_p == 0.1


def test_thinking_is_as_much_as_asked_for_and_may_be_hidden() -> None:
    thinking = {"type": "enabled", "budget_tokens": 5}
    request = anthropic_fields.parse({**CHAT, "thinking": thinking}).request
    assert request.template_kwargs == {"enable_thinking": True}
    assert (request.reasoning_budget, request.shows_reasoning) == (5, True)
    off = anthropic_fields.parse({**CHAT, "thinking": {"type": "disabled"}}).request
    assert off.reasoning_budget == 0
    hidden = {"type": "adaptive", "display": "omitted"}
    assert not anthropic_fields.parse({**CHAT, "thinking": hidden}).request.shows_reasoning


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            "messages.0.content.0",
        ),
        ({"system": [{"type": "image"}]}, "system.0"),
        ({"temperature": "hot"}, "temperature"),
        ({"stop_sequences": 5}, "stop_sequences"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "look"}}, "tool_choice"),
        ({"tools": [LOOK], "tool_choice": {"type": "tool", "name": "jump"}}, "tool_choice.name"),
        ({"tools": [LOOK], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [{**LOOK, "name": "a b"}]}, "tools.0.name"),
        ({"tools": [{"name": "look"}]}, "tools.0.input_schema"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0"),
        ({"thinking": {"type": "deep"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "display": "all"}}, "thinking.display"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format"),
    ],
)
def test_bad_fields_are_named(client: httpx.Client, body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        anthropic_fields.parse({**CHAT, **body})
    assert caught.value.field == field
    response = client.post(PATH, json={**CHAT, **body})
    assert response.status_code == 400
    error = response.json()
    assert error["type"] == "error" and error["error"]["type"] == "invalid_request_error"


def test_output_format_is_obeyed(client: httpx.Client) -> None:
    form = {"type": "json_schema", "schema": {"enum": ["yes", "no"]}}
    config = {"format": form, "effort": "low"}
    answer = post(client, output_config=config, max_tokens=50, temperature=1)
    assert json.loads(answer["content"][0]["text"]) in ("yes", "no")
    request = anthropic_fields.parse({**CHAT, "output_config": config}).request
    assert request.template_kwargs == {"reasoning_effort": "low"}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, (False, None, True)),
        ({"type": "auto", "disable_parallel_tool_use": True}, (False, None, False)),
        ({"type": "any"}, (True, None, True)),
        ({"type": "tool", "name": "look"}, (True, "look", False)),
    ],
)
def test_tools_reach_the_template(choice: Any, expected: tuple[Any, ...]) -> None:
    use = anthropic_fields.parse({**CHAT, "tools": [LOOK], "tool_choice": choice}).request.tools
    assert use is not None and use.names == ("look",)
    assert use.tools[0]["function"]["parameters"] == LOOK["input_schema"]
    assert (use.is_required, use.only, use.is_parallel) == expected


def test_no_tools_are_shown_where_none_may_be_called() -> None:
    body = {**CHAT, "tools": [LOOK], "tool_choice": {"type": "none"}}
    assert anthropic_fields.parse(body).request.tools is None


def test_a_call_that_was_cut_off_is_reported(client: httpx.Client) -> None:
    forced = {"type": "tool", "name": "look"}
    answer = post(client, tools=[LOOK], tool_choice=forced, max_tokens=40, temperature=0)
    assert answer["stop_reason"] == "max_tokens"
    (block,) = answer["content"]
    assert (block["type"], block["name"], block["input"]) == ("tool_use", "look", {})
    assert any("arguments of look" in warning for warning in answer["warnings"])


def test_models_are_listed_in_anthropics_words_for_its_clients(client: httpx.Client) -> None:
    headers = {"anthropic-version": "2023-06-01"}
    answer = client.get("/v1/models", headers=headers).json()
    assert answer["data"][0]["type"] == "model" and answer["has_more"] is False
    assert client.get("/v1/models/fake", headers=headers).json()["display_name"] == "fake"
    assert "object" in client.get("/v1/models").json()


def test_no_model_is_an_overload_in_anthropics_words(tmp_path: Path) -> None:
    with Gateway(tmp_path, model=None) as empty, empty.client() as client:
        response = client.post(PATH, json=CHAT)
        assert response.status_code == 503
        assert response.json()["error"]["type"] == "overloaded_error"
