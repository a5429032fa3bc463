"""gpt-oss's channels, however a reply is cut, and what a prompt ends with."""

import json
import random

import pytest

from innkeeper.core import Constraint, GenerateRequest, Message, ReplyForm, ToolUse
from innkeeper.prompt import harmony, reply_form
from innkeeper.prompt.harmony import HarmonyReader

FORM = ReplyForm(
    reasoning=(harmony.ANALYSIS, harmony.FINAL), tool_names=("look",), has_channels=True
)
THOUGHT = "<|channel|>analysis<|message|>Is it 1 < 2?<|end|>"
ANSWER = "<|start|>assistant<|channel|>final<|message|>Yes, 1 < 2."
CALL = (
    '<|start|>assistant<|channel|>commentary to=functions.look <|constrain|>json<|message|>{"a":1}'
)
REPLIES: dict[str, tuple[str, ReplyForm, str, str, list[tuple[str, str]]]] = {
    "reasoning and answer": (THOUGHT + ANSWER, FORM, "Is it 1 < 2?", "Yes, 1 < 2.", []),
    "answer alone": (
        "<|channel|>final<|message|>Yes.<|return|>",
        FORM,
        "",
        "Yes.",
        [],
    ),
    "channel opened by the prompt": (
        f"Hm.<|end|>{ANSWER}",
        ReplyForm(
            reasoning=FORM.reasoning,
            has_channels=True,
            in_reasoning=True,
            opening=harmony.ANALYSIS,
        ),
        "Hm.",
        "Yes, 1 < 2.",
        [],
    ),
    "cut off in reasoning": (
        "<|channel|>analysis<|message|>Hm <|",
        FORM,
        "Hm <|",
        "",
        [],
    ),
    "a call": (THOUGHT + CALL + "<|call|>", FORM, "Is it 1 < 2?", "", [("look", '{"a":1}')]),
    "a call after a word to the user": (
        f"{THOUGHT}<|start|>assistant<|channel|>commentary<|message|>I look.<|end|>{CALL}",
        FORM,
        "Is it 1 < 2?",
        "I look.",
        [("look", '{"a":1}')],
    ),
    "a tool that nobody has": (
        "<|channel|>commentary to=python<|message|>1+1<|end|>" + ANSWER,
        FORM,
        "1+1",
        "Yes, 1 < 2.",
        [],
    ),
    "no channel at all": ("Just text <b>.", FORM, "", "Just text <b>.", []),
    "reasoning left in the text": (
        THOUGHT + ANSWER,
        ReplyForm(has_channels=True),
        "",
        "Is it 1 < 2?\n\nYes, 1 < 2.",
        [],
    ),
}


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_reads_the_same_however_it_is_cut(name: str) -> None:
    reply, form, reasoning, text, calls = REPLIES[name]
    rng = random.Random(name)
    cuts = [[reply], list(reply)]
    for _ in range(20):
        at = sorted(rng.sample(range(len(reply)), 4))
        cuts.append([reply[a:b] for a, b in zip([0, *at], [*at, len(reply)], strict=True)])
    for pieces in cuts:
        reader = HarmonyReader(form)
        parts = [*(reader.push(piece) for piece in pieces), reader.finish()]
        deltas = [delta for part in parts for delta in part.calls]
        assert "".join(part.reasoning for part in parts) == reasoning, pieces
        assert "".join(part.text for part in parts) == text, pieces
        assert [delta.name for delta in deltas if delta.name] == [name for name, _ in calls]
        assert "".join(delta.arguments for delta in deltas) == "".join(a for _, a in calls)
        assert reader.num_calls == len(calls)


TEMPLATE = "{% if tools %}{{ tools }}{% endif %}<|channel|>analysis<|message|><|start|>assistant"
LOOK = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
}


def prepared(**fields: object) -> GenerateRequest:
    request = GenerateRequest(
        messages=(Message("user", "hi"),),
        splits_reasoning=True,
        **fields,  # type: ignore[arg-type]
    )
    return reply_form.for_prompt(
        reply_form.for_template(request, TEMPLATE), "hi<|start|>assistant", TEMPLATE
    )


def test_the_model_chooses_its_channel_where_it_may() -> None:
    request = prepared()
    assert request.prompt == "hi<|start|>assistant"
    assert request.form is not None and request.form.reasoning_end == harmony.CLOSING
    assert "<|channel|>" in request.shown_special


def test_without_reasoning_the_answer_begins_at_once() -> None:
    assert prepared(reasoning_budget=0).prompt == f"hi<|start|>assistant{harmony.FINAL}"


def test_a_form_holds_for_the_answer_and_not_for_reasoning() -> None:
    request = prepared(constraint=Constraint("regex", "yes|no"))
    assert request.prompt == f"hi<|start|>assistant{harmony.ANALYSIS}"
    assert request.form is not None and request.form.in_reasoning


def test_a_required_call_begins_in_the_prompt() -> None:
    request = prepared(tools=ToolUse((LOOK,), is_required=True))
    call = "<|channel|>commentary to=functions.look <|constrain|>json<|message|>"
    assert str(request.prompt).endswith(call)
    assert request.constraint is not None
    schema = request.constraint.text.removeprefix("start: %json ")
    assert json.loads(schema)["type"] == "object"
