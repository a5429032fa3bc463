"""Guesses from repetitions: right ones save steps, wrong ones change nothing."""

from collections.abc import Callable

import pytest

from innkeeper.core import Constraint, SamplingParams
from innkeeper.engine.lookup import CheckCosts, PromptLookup
from tests.unit.engine.conftest import Bench

MakeBench = Callable[..., Bench]
REPLY = "the red fox and the red hen and the red fox and the red hen ran."


def steps(bench: Bench, prompt: str, **fields: object) -> tuple[int, str, int]:
    """Steps taken, the reply, and the tokens guessed right."""
    before = bench.engine.stats().num_steps
    request_id = bench.submit(prompt, max_tokens=80, **fields)
    bench.run()
    timings = bench.finished(request_id).timings
    taken = bench.engine.stats().num_steps - before
    return taken, bench.text(request_id), timings.draft_n_accepted


def test_repetition_takes_fewer_steps_for_the_same_reply(make_bench: MakeBench) -> None:
    plain = steps(make_bench(options={"reply": REPLY}), REPLY + "#")
    guessed = steps(make_bench(options={"reply": REPLY}), REPLY + "#", lookup=8)
    assert guessed[1] == plain[1] == REPLY
    assert guessed[0] < plain[0] / 2
    assert guessed[2] > len(REPLY) / 2 and plain[2] == 0


@pytest.mark.parametrize("seed", range(12))
def test_sampled_reply_is_the_same_with_wrong_guesses(make_bench: MakeBench, seed: int) -> None:
    sampling = SamplingParams(
        seed=seed,
        temperature=[0.0, 0.3, 1.0][seed % 3],
        repetition_penalty=1.1,
        dry_multiplier=0.5,
        mirostat=2 * (seed % 2),
    )
    prompt = "abc abd abe abc abd abf " * 5
    fields = {"sampling": sampling, "banned": ("ab", "q z") if seed % 4 == 3 else ()}
    plain = steps(make_bench(), prompt, **fields)
    bench = make_bench()
    guessed = steps(bench, prompt, lookup=6, **fields)
    assert guessed[1] == plain[1]
    bench.engine.cache.check()


def test_guesses_obey_the_constraint_and_the_limit(make_bench: MakeBench) -> None:
    for limit in range(1, 30, 4):
        bench = make_bench(options={"reply": REPLY})
        fields = {"max_tokens": limit, "lookup": 8, "constraint": Constraint("regex", "[a-z ]+")}
        request_id = bench.submit(REPLY + "#", **fields)
        bench.run()
        assert bench.text(request_id) == REPLY[:limit]
        assert bench.finished(request_id).timings.predicted_n == limit


def test_stop_string_inside_a_guess_ends_the_reply(make_bench: MakeBench) -> None:
    bench = make_bench(options={"reply": REPLY})
    request_id = bench.submit(REPLY + "#", max_tokens=80, lookup=8, stop=("hen",))
    bench.run()
    assert bench.text(request_id) == "the red fox and the red "
    bench.engine.cache.check()
    again = bench.submit(REPLY + "#the red fox", max_tokens=5)
    bench.run()
    assert bench.finished(again).timings.cache_n > len(REPLY)


def test_nobody_guesses_while_others_wait(make_bench: MakeBench) -> None:
    bench = make_bench(options={"reply": REPLY})
    ids = [bench.submit(REPLY + "#", max_tokens=20, lookup=8) for _ in range(2)]
    bench.run()
    assert all(bench.text(request_id) == REPLY[:20] for request_id in ids)
    assert bench.finished(ids[0]).timings.draft_n == 0


def test_cache_that_cannot_be_cut_is_never_guessed_for(make_bench: MakeBench) -> None:
    bench = make_bench(options={"reply": REPLY})
    bench.runner.can_resume = lambda sequence_id, length, cached: length == cached
    assert steps(bench, REPLY + "#", lookup=8)[1:] == (REPLY, 0)


def test_guess_follows_the_latest_of_the_longest_matches() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 9, 2, 3, 4, 5, 6, 7, 8, 2, 3, 4], 8, CheckCosts())
    assert lookup.draft([1, 2, 3, 4, 9, 2, 3, 4, 5, 6, 7, 8, 2, 3, 4], 3) == [5, 6, 7]
    assert PromptLookup([1, 2, 3, 4, 1, 2], 8, CheckCosts()).draft([1, 2, 3, 4, 1, 2], 8) == []
    assert PromptLookup([1], 8, CheckCosts()).draft([1], 8) == []


def test_wrong_guesses_become_rare_and_right_ones_longer() -> None:
    text = list(range(100)) * 2
    lookup = PromptLookup(text[:110], 32, CheckCosts())
    lengths = []
    for _ in range(5):
        lengths.append(len(lookup.draft(text[:110], 32)))
        lookup.observe(lengths[-1], lengths[-1], 1.0)
    assert lengths == [3, 7, 15, 31, 32]
    tried = 0
    for _ in range(1_000):
        if draft := lookup.draft(text[:110], 32):
            tried += 1
            lookup.observe(len(draft), 0, 1.0)
    assert tried < 20


def test_guesses_stay_as_many_as_are_checked_at_the_least_cost() -> None:
    """As if a batch of 16 rows took a kernel three times as slow as the others."""
    costs, text = CheckCosts(), list(range(100)) * 2
    asked = []
    for _ in range(20):
        lookup = PromptLookup(text[:110], 15, costs)
        for _ in range(10):
            asked.append(len(lookup.draft(text[:110], 32)))
            lookup.observe(asked[-1], asked[-1], 3.0 if asked[-1] == 15 else 1.0)
    assert asked[:3] == [3, 7, 15], "it was tried"
    assert asked.count(15) == 2, "again, in case another program had the processor"
    assert asked.count(7) > 150


def test_tokens_that_were_taken_back_are_not_matched() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 5, 6], 8, CheckCosts())
    lookup.draft([1, 2, 3, 4, 5, 6, 1, 2, 3], 8)
    lookup.forget(7)
    assert lookup.draft([1, 2, 3, 4, 5, 6, 1, 7, 8, 2, 3, 4], 2) == [5, 6]
