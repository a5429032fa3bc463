"""Reasoning in replies: its budget, what a constraint holds behind it, and how it is counted."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from innkeeper.core import Constraint, ReplyForm
from tests.unit.engine.conftest import Bench

MakeBench = Callable[..., Bench]
FORM = ReplyForm(reasoning=("<think>", "</think>"))
OPENED = ReplyForm(reasoning=("<think>", "</think>"), in_reasoning=True)
END = "\n</think>\n\n"


def reply(bench: Bench, **fields: Any) -> tuple[str, int]:
    """(text, tokens of reasoning)"""
    request = bench.submit(**{"form": FORM, "max_tokens": 60, **fields})
    bench.run()
    return bench.text(request), bench.finished(request).timings.reasoning_n


def test_reasoning_is_counted_with_its_end_mark(make_bench: MakeBench) -> None:
    bench = make_bench(options={"reply": "<think>\nHm.</think>\nYes."})
    text, num_reasoning = reply(bench)
    assert text == "<think>\nHm.</think>\nYes."
    assert num_reasoning == len("\nHm.</think>")
    assert reply(bench, form=None)[1] == 0


def test_nothing_counts_where_nothing_is_marked_at_the_start(make_bench: MakeBench) -> None:
    bench = make_bench(options={"reply": "No <think>x</think>"})
    assert reply(bench, reasoning_budget=2) == ("No <think>x</think>", 0)


@pytest.mark.parametrize("budget", [1, 7, 20])
def test_a_budget_ends_reasoning_with_its_mark(make_bench: MakeBench, budget: int) -> None:
    bench = make_bench()
    text, num_reasoning = reply(bench, form=OPENED, reasoning_budget=budget)
    assert text.index(END) == budget
    assert text.count("</think>") == 1
    assert num_reasoning == budget + len("\n</think>")


def test_a_budget_that_is_not_reached_changes_nothing(make_bench: MakeBench) -> None:
    bench = make_bench(options={"reply": "Hm.</think>\nYes."})
    assert reply(bench, form=OPENED, reasoning_budget=50)[0] == "Hm.</think>\nYes."


def test_a_constraint_holds_behind_reasoning(make_bench: MakeBench) -> None:
    bench = make_bench()
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    constraint = Constraint("json_schema", json.dumps({**schema, "additionalProperties": False}))
    text, _ = reply(bench, form=OPENED, reasoning_budget=9, constraint=constraint)
    thoughts, answer = text.split(END)
    assert len(thoughts) == 9 and "a" in json.loads(answer)


def test_banned_phrases_may_lie_across_the_end_of_reasoning(make_bench: MakeBench) -> None:
    bench = make_bench()
    constraint = Constraint("regex", "yes|no!")
    plain, _ = reply(bench, form=OPENED, reasoning_budget=9, constraint=constraint)
    banned = (plain[7:9] + END + plain[-3:],)
    text, _ = reply(bench, form=OPENED, reasoning_budget=9, constraint=constraint, banned=banned)
    assert banned[0] not in text and text.split(END)[1] in ("yes", "no!")


def test_a_banned_end_mark_does_not_hang(make_bench: MakeBench) -> None:
    text, _ = reply(make_bench(), form=OPENED, reasoning_budget=3, banned=("</think>",))
    assert "</think>" not in text
