"""Tool calls on /v1/chat/completions: asked for, forced, parsed, streamed and sent back."""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.unit.api.gateway import Gateway

HERMES = """\
{%- if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>{% endif -%}
{%- for m in messages -%}
<{{ m.role }}>{{ m.content or '' }}
{%- for call in m.tool_calls or [] -%}
<tool_call>{{ call.function.name }} {{ call.function.arguments.where }}</tool_call>
{%- endfor -%}
</{{ m.role }}>
{%- endfor -%}{%- if enable_thinking is false %}<quick>{% endif %}<assistant>"""
MISTRAL = "{% if tools %}[AVAILABLE_TOOLS]{% endif %}{% for m in messages %}{% if m.tool_calls %}\
[TOOL_CALLS]{{ m.tool_calls[0].id }}{% endif %}[{{ m.content }}]{% endfor %}"
LLAMA = "{% if tools %}Environment: ipython <|python_tag|>{% endif %}{{ messages[-1].content }}"
TEMPLATES = {"hermes": HERMES, "mistral": MISTRAL, "llama3": LLAMA, "generic": None}
LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks somewhere.",
        "parameters": {
            "type": "object",
            "properties": {"where": {"$ref": "#/$defs/Place"}, "far": {"type": "boolean"}},
            "required": ["where"],
            "additionalProperties": False,
            "$defs": {"Place": {"enum": ["north", "south"]}},
        },
    },
}
WAIT = {"type": "function", "function": {"name": "wait"}}
MESSAGES = [{"role": "user", "content": "hi"}]
CALL = '<tool_call>\n{"name": "look", "arguments": {"where": "north"}}\n</tool_call>'

Open = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def open_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """One gateway for each set of options."""
    folder = tmp_path_factory.mktemp("models")
    with contextlib.ExitStack() as stack:

        @functools.cache
        def start(form: str = "hermes", **options: str) -> httpx.Client:
            template = TEMPLATES[form]
            given = {"chat_template": template} if template else {}
            gateway = stack.enter_context(Gateway(folder, **given, **options))
            return stack.enter_context(gateway.client())

        yield start


def chat(client: httpx.Client, **body: Any) -> dict[str, Any]:
    body = {"messages": MESSAGES, "temperature": 0, "max_tokens": 300, **body}
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def deltas(client: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    """The chunks' choices of a streamed answer."""
    body = {"messages": MESSAGES, "temperature": 0, "max_tokens": 300, "stream": True, **body}
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = [line[6:] for line in response.iter_lines() if line.startswith("data: {")]
    return [choice for line in lines for choice in json.loads(line)["choices"]]


def prompt_of(client: httpx.Client, **body: Any) -> str:
    body = {"messages": MESSAGES, **body}
    response = client.post("/v1/internal/chat-prompt", json=body)
    assert response.status_code == 200, response.text
    return str(response.json()["prompt"])


@pytest.mark.parametrize("form", TEMPLATES)
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "wait"}}])
def test_a_required_call_obeys_its_schema_in_every_format(
    open_client: Open, form: str, choice: Any
) -> None:
    client = open_client(form)
    for seed in range(5):
        answer = chat(
            client,
            tools=[LOOK, WAIT],
            tool_choice=choice,
            parallel_tool_calls=False,
            temperature=3,
            seed=seed,
        )
        (found,) = answer["choices"]
        if found["finish_reason"] == "length":
            continue
        assert found["finish_reason"] == "tool_calls" and found["message"]["content"] is None
        (call,) = found["message"]["tool_calls"]
        arguments = json.loads(call["function"]["arguments"])
        if choice != "required" or call["function"]["name"] == "wait":
            assert call["function"]["name"] == "wait"
        else:
            assert arguments["where"] in ("north", "south")


def test_a_call_of_the_models_own_will_is_parsed(open_client: Open) -> None:
    client = open_client(reply=f"Wait.\n{CALL}\n{CALL}")
    (choice,) = chat(client, tools=[LOOK])["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Wait."
    calls = choice["message"]["tool_calls"]
    assert [call["function"]["name"] for call in calls] == ["look", "look"]
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"where": "north"}] * 2
    assert all(call["type"] == "function" and len(call["id"]) == 9 for call in calls)
    (choice,) = chat(client, tools=[LOOK], parallel_tool_calls=False)["choices"]
    assert len(choice["message"]["tool_calls"]) == 1


def test_calls_are_text_where_none_are_wanted(open_client: Open) -> None:
    client = open_client(reply=CALL)
    for body in ({}, {"tools": [LOOK], "tool_choice": "none"}, {"tools": [WAIT]}):
        (choice,) = chat(client, **body)["choices"]
        assert choice["message"] == {"content": CALL, "role": "assistant", "refusal": None}
        assert choice["finish_reason"] == "stop"


def test_streamed_calls_join_to_the_whole(open_client: Open) -> None:
    chunks = deltas(open_client(reply=f"<think>Hm.</think>Wait.\n{CALL}"), tools=[LOOK])
    found = [chunk["delta"] for chunk in chunks]
    assert "".join(delta.get("reasoning_content", "") for delta in found) == "Hm."
    assert "".join(delta.get("content", "") for delta in found) == "Wait."
    calls = [call for delta in found for call in delta.get("tool_calls", [])]
    assert {call["index"] for call in calls} == {0}
    assert calls[0]["function"] == {"name": "look", "arguments": ""} and calls[0]["id"]
    assert all("id" not in call and "name" not in call["function"] for call in calls[1:])
    assert "".join(call["function"]["arguments"] for call in calls) == '{"where": "north"}'
    assert len(calls) > 3, "arguments come while they are written"
    assert chunks[-1]["finish_reason"] == "tool_calls"


HISTORY = [
    {"role": "user", "content": "hi"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "look", "arguments": '{"where": "north"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "a hill"},
]


def test_templates_get_tools_calls_and_results_in_their_own_form(open_client: Open) -> None:
    client = open_client()
    prompt = prompt_of(client, messages=HISTORY, tools=[LOOK])
    assert '"name": "look"' in prompt.split("</tools>")[0]
    assert "<tool_call>look north</tool_call>" in prompt, "arguments as an object"
    assert "<tool>a hill</tool>" in prompt
    assert "<tools>" not in prompt_of(client, tools=[LOOK], tool_choice="none")
    assert prompt_of(client, tools=[LOOK], tool_choice="required").endswith("<tool_call>\n")
    ids = prompt_of(open_client("mistral"), messages=HISTORY, tools=[LOOK])
    assert len(ids.split("[TOOL_CALLS]")[1].split("[")[0]) == 9, "its template wants nine letters"


def test_a_template_without_tools_gets_them_as_text(open_client: Open) -> None:
    prompt = prompt_of(open_client("generic"), messages=HISTORY, tools=[LOOK])
    system, user, assistant, result, _ = prompt.split("<|im_start|>")[1:]
    assert system.startswith("system") and "Looks somewhere." in system
    assert user == "user\nhi<|im_end|>\n"
    assert '{"name": "look", "arguments": {"where": "north"}}' in assistant
    assert result == "user\n<tool_response>\na hill\n</tool_response><|im_end|>\n"


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("tools", {"tools": "x"}),
        ("tools[0]", {"tools": [{"type": "function"}]}),
        ("tools[0].function.name", {"tools": [{"function": {"name": "a b"}}]}),
        ("tools[0].function.parameters", {"tools": [{"function": {"name": "a", "parameters": 1}}]}),
        ("tools[0].function", {"tools": [{"function": {"name": "a", "parameters": 1}}]}),
        ("tool_choice", {"tool_choice": "required"}),
        ("tool_choice", {"tools": [LOOK], "tool_choice": "sometimes"}),
        ("tool_choice", {"tools": [LOOK], "tool_choice": {"function": {"name": "jump"}}}),
        ("messages[0].tool_calls", {"messages": [{"role": "assistant", "tool_calls": [{}]}]}),
        (
            "tools",
            {
                "tools": [
                    {"function": {"name": "a", "parameters": {"type": "object", "$ref": "#/x"}}}
                ],
                "tool_choice": "required",
            },
        ),
    ],
)
def test_bad_tools_are_refused_by_name(open_client: Open, field: str, body: Any) -> None:
    response = open_client().post("/v1/chat/completions", json={"messages": MESSAGES, **body})
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith(field)


def test_a_form_of_the_reply_excludes_calls_and_says_so(open_client: Open) -> None:
    answer = chat(open_client(), tools=[LOOK], response_format={"type": "json_object"})
    assert any("tools" in warning for warning in answer["warnings"])


THOUGHT = "<think>\nHm, well.\n</think>\n\nYes."


def test_reasoning_comes_apart_and_is_counted(open_client: Open) -> None:
    client = open_client(reply=THOUGHT)
    answer = chat(client)
    message = answer["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hm, well.", "Yes.")
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 19
    for hidden in ({"include_reasoning": False}, {"reasoning": {"exclude": True}}):
        message = chat(client, **hidden)["choices"][0]["message"]
        assert "reasoning_content" not in message and message["content"] == "Yes."
    assert chat(client, reasoning_format="none")["choices"][0]["message"]["content"] == THOUGHT


@pytest.mark.parametrize(
    "body",
    [
        {"reasoning_budget": 4},
        {"thinking_budget_tokens": "4"},
        {"thinking": {"type": "enabled", "budget_tokens": 4}},
        {"reasoning": {"max_tokens": 4}},
    ],
)
def test_a_budget_ends_reasoning(open_client: Open, body: Any) -> None:
    client = open_client(reply=THOUGHT)
    assert chat(client, **body, max_tokens=30)["choices"][0]["message"]["reasoning_content"] == (
        "Hm,"
    )


@pytest.mark.parametrize(
    "body",
    [
        {"reasoning_budget": 0},
        {"enable_thinking": False},
        {"thinking": {"type": "disabled"}},
        {"reasoning_effort": "none"},
        {"reasoning": {"enabled": False}},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ],
)
def test_reasoning_is_off_by_request(open_client: Open, body: Any) -> None:
    client = open_client()
    assert "<quick>" in prompt_of(client, **body) and "<quick>" not in prompt_of(client)


def test_a_chats_negative_prompt_stands_where_its_system_message_would(open_client: Open) -> None:
    client = open_client("generic")
    messages = [{"role": "system", "content": "be very kind"}, *MESSAGES]
    ask = {"messages": messages, "guidance_scale": 0, "max_tokens": 20}
    guided = chat(client, **ask, negative_prompt="be rude")
    rude = chat(
        client, messages=[{"role": "system", "content": "be rude"}, *MESSAGES], max_tokens=20
    )
    kind = chat(client, messages=messages, max_tokens=20)
    assert guided["choices"] == rude["choices"] != kind["choices"]
