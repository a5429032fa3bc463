"""Guesses of a draft model: right ones save time, wrong ones change nothing and cost little."""

from collections.abc import Callable, Sequence
from random import Random

import pytest

from innkeeper.backends.fake import BOS, FakeRunner
from innkeeper.core import Constraint, EngineConfig, SamplingParams
from innkeeper.engine.draft_model import DraftModel
from innkeeper.engine.reuse import common_prefix
from innkeeper.engine.runner import Logits, Row
from innkeeper.errors import EngineError
from tests.unit.engine.conftest import Bench

MakeBench = Callable[..., Bench]
REPLY = "Mara pours the ale and says nothing; outside, the rain has not stopped for three days."
STEP, GUESS, READ, CHECK = 1.0, 0.08, 0.01, 0.05
"""Seconds of the clock below: a step of the large model, and what guesses take."""


def drafting(make_bench: MakeBench, **options: str) -> Bench:
    return make_bench(draft_path="small.gguf", options=options)


def reply(bench: Bench, prompt: str = "hello", **fields: object) -> tuple[str, int, int]:
    """(text, tokens guessed, tokens guessed right)"""
    request_id = bench.submit(prompt, **{"max_tokens": 80, **fields})
    bench.run()
    timings = bench.finished(request_id).timings
    return bench.text(request_id), timings.draft_n, timings.draft_n_accepted


def test_right_guesses_are_taken(make_bench: MakeBench) -> None:
    text, drafted, right = reply(drafting(make_bench, reply=REPLY), max_tokens=200)
    assert text == REPLY
    assert drafted >= right > 0


@pytest.mark.parametrize("seed", range(12))
def test_sampled_reply_is_the_same_with_a_draft_model(make_bench: MakeBench, seed: int) -> None:
    sampling = SamplingParams(
        seed=seed,
        temperature=[0.0, 0.3, 1.0][seed % 3],
        repetition_penalty=1.1,
        dry_multiplier=0.5,
        mirostat=2 * (seed % 2),
    )
    fields = {
        "sampling": sampling,
        "banned": ("ab", "q z") if seed % 4 == 3 else (),
        "lookup": 6 * (seed % 2),
    }
    prompt = "abc abd abe abc abd abf " * 5
    plain = reply(make_bench(), prompt, **fields)
    bench = drafting(make_bench)
    guessed = reply(bench, prompt, **fields)
    assert guessed[0] == plain[0]
    assert guessed[1] > 0
    bench.engine.cache.check()


def test_a_request_may_do_without(make_bench: MakeBench) -> None:
    assert reply(drafting(make_bench, reply=REPLY), draft_max=0) == (REPLY[:80], 0, 0)


def test_guesses_obey_the_constraint_and_the_limit(make_bench: MakeBench) -> None:
    bench = drafting(make_bench, reply=REPLY)
    for limit in range(1, 30, 4):
        constraint = Constraint("regex", "[A-Za-z ]+")
        assert reply(bench, max_tokens=limit, constraint=constraint)[0] == REPLY[:limit]


def test_nobody_guesses_while_others_wait(make_bench: MakeBench) -> None:
    bench = drafting(make_bench, reply=REPLY)
    ids = [bench.submit("hello", max_tokens=20) for _ in range(2)]
    bench.run()
    assert all(bench.text(request_id) == REPLY[:20] for request_id in ids)
    assert bench.finished(ids[0]).timings.draft_n == 0


def test_a_draft_model_that_fails_is_not_asked_again(make_bench: MakeBench) -> None:
    bench = drafting(make_bench, reply=REPLY)
    assert bench.runner.draft is not None

    def fail(rows: Sequence[Row]) -> list[Logits]:
        raise EngineError("no")

    bench.runner.draft.forward = fail  # type: ignore[method-assign]
    assert reply(bench, max_tokens=200) == (REPLY, 0, 0)


def letters(count: int, seed: int) -> bytes:
    return bytes(Random(seed).choices(b"abcdefghijklmnopqrstuvwxyz", k=count))


def speed(text: bytes, says: bytes, prompt: bytes = b"hello", num_ctx: int = 4096) -> float:
    """How many times as fast a large model writes ``text`` beside a draft model that ``says`` what
    comes next (nothing: letters that nobody can guess), on a clock of its own."""
    seconds = 0.0
    options = {"reply": says.decode()}
    config = EngineConfig(
        backend="fake", path="", name="small", num_ctx=num_ctx, num_pool=num_ctx, options=options
    )
    runner = FakeRunner(config)
    forward = runner.forward

    def timed(rows: Sequence[Row]) -> list[Logits]:
        nonlocal seconds
        seconds += GUESS if len(rows) == 1 else READ * len(rows)
        return forward(rows)

    runner.forward = timed  # type: ignore[method-assign]
    model = DraftModel(runner, 258, clock=lambda: seconds)
    tokens = [BOS, *prompt]
    model.earn(READ * 20 * len(tokens))
    seconds += READ * 20 * len(tokens)
    end = len(tokens) + len(text)
    while (done := len(tokens) - 1 - len(prompt)) < len(text):
        draft = model.draft(tokens, min(16, end - len(tokens)))
        num_right = common_prefix(draft, list(text[done:]))
        step = STEP + CHECK * len(draft)
        seconds += step
        tokens += text[done : done + num_right + 1]
        model.observe(len(draft), num_right, step)
    return (READ * 20 * (1 + len(prompt)) + STEP * len(text)) / seconds


def test_right_guesses_save_time() -> None:
    text = letters(500, 1)
    assert speed(text, text) > 3


@pytest.mark.parametrize("num_prompt", [5, 300, 3000])
@pytest.mark.parametrize("says", [b"", b"wrong", letters(400, 2)], ids=["unsure", "sure", "other"])
@pytest.mark.parametrize("length", [100, 1000])
def test_wrong_guesses_cost_next_to_nothing(says: bytes, num_prompt: int, length: int) -> None:
    assert speed(letters(length, 3), says, letters(num_prompt, 4)) >= 0.97


def test_what_can_be_guessed_later_is_guessed_then() -> None:
    text = letters(1000, 5)
    assert speed(letters(300, 6) + text, text) > 2


def test_a_long_text_is_guessed_from_its_end() -> None:
    text = letters(200, 7)
    assert speed(text, text, letters(700, 8), num_ctx=500) > 1.5
