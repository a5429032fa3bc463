"""Oobabooga's modes ``chat`` and ``chat-instruct``, characters and templates by name."""

import json
from typing import Any

import httpx
import pytest

from innkeeper.prompt.instruct import NAMES
from tests.unit.api.gateway import Gateway

PLAY: dict[str, Any] = {
    "mode": "chat",
    "messages": [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Good evening."},
        {"role": "user", "content": "A room?"},
    ],
    "name1": "Ada",
    "name2": "Mara",
    "context": "{{char}} keeps an inn; {{user}} is a guest.",
    "max_tokens": 5,
}
TEXT = "Mara keeps an inn; Ada is a guest.\n\nAda: Hello.\nMara: Good evening.\nAda: A room?\nMara:"


def prompt(client: httpx.Client, **changes: Any) -> str:
    answer = client.post("/v1/internal/chat-prompt", json={**PLAY, **changes})
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["prompt"]
    return text


def test_a_chat_becomes_the_lines_of_a_play(client: httpx.Client) -> None:
    assert prompt(client) == TEXT
    body = {**PLAY, "debug": True}
    answer = client.post("/v1/chat/completions", json=body).json()
    assert answer["debug"][0]["prompt"] == f"<s>{TEXT}"
    assert answer["warnings"] == []


def test_the_last_line_goes_on_where_that_is_asked_for(client: httpx.Client) -> None:
    turns = [*PLAY["messages"], {"role": "assistant", "content": "There is"}]
    text = prompt(client, messages=turns, continue_=True)
    assert text.endswith("\nMara: There is")


def test_the_greeting_opens_a_play_without_a_reply(client: httpx.Client) -> None:
    first = [{"role": "user", "content": "Hi"}]
    text = prompt(client, messages=first, greeting="Welcome, {{user}}.", context="")
    assert text == "Mara: Welcome, Ada.\nAda: Hi\nMara:"


def test_names_have_defaults(client: httpx.Client) -> None:
    text = prompt(client, name1=None, name2=None, context=None)
    assert text.startswith("You: Hello.\nAI: ")


@pytest.mark.parametrize(
    ("changes", "field"), [({"mode": "story"}, "mode"), ({"name1": 5}, "name1")]
)
def test_bad_fields_are_named(client: httpx.Client, changes: dict[str, Any], field: str) -> None:
    answer = client.post("/v1/chat/completions", json={**PLAY, **changes})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


def test_without_the_mode_the_names_are_reported(client: httpx.Client) -> None:
    answer = client.post("/v1/chat/completions", json={**PLAY, "mode": "instruct"}).json()
    assert any("name1" in warning for warning in answer["warnings"])


@pytest.mark.parametrize("name", ["instruction_template_str", "chat_template"])
def test_a_request_may_bring_its_template(client: httpx.Client, name: str) -> None:
    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}>"
    text = prompt(client, mode="instruct", **{name: template})
    assert text == "[user] Hello. [assistant] Good evening. [user] A room? >"
    assert "<|im_start|>" in prompt(client, mode="instruct"), "the next one has the model's own"


@pytest.mark.parametrize("template", ["{% for %}", "{{ 1 / 0 }}", "{% while %}"])
def test_a_template_that_cannot_be_used_is_refused(client: httpx.Client, template: str) -> None:
    body = {**PLAY, "mode": "instruct", "chat_template": template}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400 and answer.json()["error"]["param"] is not None


def test_more_templates_than_are_kept_work(client: httpx.Client) -> None:
    for number in range(7):
        text = prompt(client, mode="instruct", chat_template=f"{number}{{{{ bos_token }}}}")
        assert text == f"{number}<s>"


CARD = {
    "spec": "chara_card_v2",
    "data": {
        "name": "Mira",
        "description": "{{char}} guards the gate.",
        "first_mes": "Halt, {{user}}!",
        "character_book": {"entries": []},
    },
}


@pytest.fixture
def cards(gateway: Gateway) -> None:
    gateway.characters.mkdir(exist_ok=True)
    (gateway.characters / "Guard.json").write_text(json.dumps(CARD))
    (gateway.characters / "broken.json").write_text("{")


@pytest.mark.usefixtures("cards")
def test_a_character_speaks_by_the_name_of_its_card(client: httpx.Client) -> None:
    asked = {"mode": "chat", "character": "guard", "name1": "Ada"}
    body = {**asked, "messages": [{"role": "user", "content": "Open!"}], "max_tokens": 5}
    text = client.post("/v1/internal/chat-prompt", json=body).json()["prompt"]
    assert text == "Mira guards the gate.\n\nMira: Halt, Ada!\nAda: Open!\nMira:"
    answer = client.post("/v1/chat/completions", json={**body, "debug": True}).json()
    assert answer["debug"][0]["prompt"] == f"<s>{text}"
    assert answer["warnings"] == ["not applied: character_book of Mira's card"]


@pytest.mark.usefixtures("cards")
def test_fields_of_the_request_win_over_the_card(client: httpx.Client) -> None:
    text = prompt(client, character="Guard", context="{{char}} sleeps.")
    assert text.startswith("Mara sleeps.\n\nAda: Hello.")


@pytest.mark.usefixtures("cards")
@pytest.mark.parametrize(
    ("name", "status"), [("nobody", 404), ("../characters/Guard", 404), ("broken", 400), (7, 400)]
)
def test_a_character_that_cannot_be_had_is_refused(
    client: httpx.Client, name: Any, status: int
) -> None:
    answer = client.post("/v1/chat/completions", json={**PLAY, "character": name})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == "character"


def test_in_chat_instruct_one_turn_holds_the_play(client: httpx.Client) -> None:
    text = prompt(client, mode="chat-instruct")
    command = "Go on with the chat below: write the next reply of Mara, and nothing else."
    lines = TEXT.removesuffix("\nMara:")
    turn = f"<|im_start|>user\n{command}\n\n{lines}<|im_end|>\n"
    assert text == f"{turn}<|im_start|>assistant\nMara:"
    own = prompt(client, mode="chat-instruct", chat_instruct_command="<|prompt|> Now <|character|>")
    assert own.startswith(f"<|im_start|>user\n{lines} Now Mara<|im_end|>")


def test_a_play_may_have_a_template_of_its_own(client: httpx.Client) -> None:
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{{ name2 }}>"
    text = prompt(client, chat_template_str=template, greeting="Unused")
    assert text.startswith("<system>Mara keeps an inn; Ada is a guest.<user>Hello.<assistant>")
    assert text.endswith("<user>A room?Mara>")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("Alpaca", "S\n\n### Instruction:\nQ\n\n### Response:\nA\n\n### Instruction:\nR\n\n"),
        ("llama-v2", "[INST] <<SYS>>\nS\n<</SYS>>\n\nQ [/INST] A </s><s>[INST] R [/INST]"),
        ("gemma", "<start_of_turn>user\nS\n\nQ<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>"),
        ("Vicuna-v1.1", "S USER: Q ASSISTANT: A</s>USER: R ASSISTANT:"),
    ],
)
def test_a_template_may_be_named(client: httpx.Client, name: str, wanted: str) -> None:
    turns = [("system", "S"), ("user", "Q"), ("assistant", "A"), ("user", "R")]
    messages = [{"role": role, "content": content} for role, content in turns]
    text = prompt(client, mode=None, messages=messages, instruction_template=name)
    assert text.startswith(wanted)


@pytest.mark.parametrize("name", NAMES)
def test_every_named_template_keeps_all_texts_in_order(client: httpx.Client, name: str) -> None:
    turns = [("system", "First."), ("user", "Second."), ("assistant", "Third")]
    messages = [{"role": role, "content": content} for role, content in turns]
    fields = {"mode": None, "messages": messages, "instruction_template": name}
    text = prompt(client, **fields, continue_=True)
    assert text.index("First.") < text.index("Second.") < text.index("Third")
    assert text.endswith("Third"), "the last turn is open"


def test_a_named_template_ends_the_reply_where_the_user_would_speak(client: httpx.Client) -> None:
    body = {**PLAY, "mode": "instruct", "instruction_template": "Alpaca", "stop": ["x"]}
    answer = client.post("/v1/chat/completions", json=body).json()
    assert not [text for text in answer["warnings"] if "instruction_template" in text]
    refused = client.post("/v1/chat/completions", json={**body, "instruction_template": "Nope"})
    assert refused.status_code == 400 and "ChatML" in refused.text
