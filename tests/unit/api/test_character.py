"""Oobabooga's mode ``chat``, and templates that requests bring."""

from typing import Any

import httpx
import pytest

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
