"""Replies taken apart: reasoning, text and tool calls, however the text is cut."""

import json
import random

import pytest

from innkeeper.core import ReplyForm
from innkeeper.prompt.reply_reader import ReplyReader

THINK = ("<think>", "</think>")
NAMES = ("look", "go_to")
ARGUMENTS = {"where": 'a "}" {[ \\ ünï\n', "n": [1, {"x": None}]}
CALL = json.dumps({"name": "look", "arguments": ARGUMENTS})
OTHER = json.dumps({"name": "go_to", "arguments": {}})


def form(tools: str, **changes: object) -> ReplyForm:
    return ReplyForm(reasoning=THINK, tool_format=tools, tool_names=NAMES, **changes)  # type: ignore[arg-type]


def read(pieces: list[str], shape: ReplyForm) -> tuple[str, str, list[tuple[str, str]]]:
    """(reasoning, text, calls as name and arguments) of a reply that comes in pieces."""
    reader = ReplyReader(shape)
    parts = [*(reader.push(piece) for piece in pieces), reader.finish()]
    deltas = [delta for part in parts for delta in part.calls]
    calls: list[tuple[str, str]] = []
    for delta in deltas:
        if delta.name is not None:
            assert delta.index == len(calls) and delta.id and len(delta.id) == 9
            calls.append((delta.name, ""))
        name, arguments = calls[delta.index]
        calls[delta.index] = (name, arguments + delta.arguments)
    return "".join(p.reasoning for p in parts), "".join(p.text for p in parts), calls


HERMES = f"<tool_call>\n{CALL}\n</tool_call>"
LLAMA = CALL.replace('"arguments"', '"parameters"')
BOTH = [("look", ARGUMENTS), ("go_to", {})]
REPLIES: dict[str, tuple[str, ReplyForm, str, str, list[tuple[str, object]]]] = {
    "plain": ("Hello <b>you</b>.\n", form(""), "", "Hello <b>you</b>.\n", []),
    "blanks": ("  Hello \n", form("hermes"), "", "  Hello \n", []),
    "reasoning": ("<think>\nHm </thi.\n</think>\n\nYes.", form(""), "Hm </thi.", "Yes.", []),
    "reasoning opened by the prompt": (
        "\nHm.</think>Yes.",
        form("", in_reasoning=True),
        "Hm.",
        "Yes.",
        [],
    ),
    "reasoning cut off": ("<think>Hm", form(""), "Hm", "", []),
    "a mark later is text": ("So: <think>x</think>", form(""), "", "So: <think>x</think>", []),
    "hermes": (f"Wait.\n{HERMES}\n", form("hermes"), "", "Wait.", BOTH[:1]),
    "hermes after reasoning": (
        f"<think>I look.</think>\n{HERMES}\n<tool_call>{OTHER}</tool_call>",
        form("hermes"),
        "I look.",
        "",
        BOTH,
    ),
    "hermes with the keys turned": (
        '<tool_call>{"arguments": {"a": 1}, "name": "look"}</tool_call>',
        form("hermes"),
        "",
        "",
        [("look", {"a": 1})],
    ),
    "hermes with an unknown name": (
        '<tool_call>{"name": "x", "arguments": {}}</tool_call> ok',
        form("hermes"),
        "",
        '<tool_call>{"name": "x", "arguments": {}}</tool_call> ok',
        [],
    ),
    "hermes that is no JSON": (
        "<tool_call>oh</tool_call>",
        form("hermes"),
        "",
        "<tool_call>oh</tool_call>",
        [],
    ),
    "hermes cut off in its head": ('<tool_call>{"na', form("hermes"), "", '<tool_call>{"na', []),
    "mistral": (f"[TOOL_CALLS][{CALL}, {OTHER}]", form("mistral"), "", "", BOTH),
    "mistral with marks": (
        f"Ok[TOOL_CALLS]look[CALL_ID]abc[ARGS]{json.dumps(ARGUMENTS)}[TOOL_CALLS]go_to[ARGS]{{}}",
        form("mistral-args"),
        "",
        "Ok",
        BOTH,
    ),
    "llama": (LLAMA, form("llama3"), "", "", BOTH[:1]),
    "llama with its tag": (f"<|python_tag|>{LLAMA}", form("llama3"), "", "", BOTH[:1]),
    "llama, JSON that is no call": ('{"a": 1} x', form("llama3"), "", '{"a": 1} x', []),
    "llama, text": ("Hi {name}", form("llama3"), "", "Hi {name}", []),
    "required": (
        f"{CALL}\n</tool_call>",
        ReplyForm(tool_format="hermes", tool_names=NAMES, opening="<tool_call>\n"),
        "",
        "",
        BOTH[:1],
    ),
}


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_reads_the_same_however_it_is_cut(name: str) -> None:
    reply, shape, reasoning, text, calls = REPLIES[name]
    rng = random.Random(name)
    cuts = [[reply], list(reply)]
    for _ in range(20):
        at = sorted(rng.sample(range(len(reply)), min(4, len(reply) - 1)))
        cuts.append([reply[a:b] for a, b in zip([0, *at], [*at, len(reply)], strict=True)])
    for pieces in cuts:
        found = read(pieces, shape)
        assert found[:2] == (reasoning, text), pieces
        assert [(n, json.loads(arguments)) for n, arguments in found[2]] == calls, pieces


def test_arguments_come_while_they_are_written() -> None:
    reader = ReplyReader(form("hermes"))
    reader.push('<tool_call>\n{"name": "look", "arguments": {"where": "a long')
    (delta,) = reader.push(" way").calls
    assert delta.arguments == " way" and delta.name is None
