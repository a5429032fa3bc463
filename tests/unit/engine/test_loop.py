"""The engine over the fake backend, through its inbox and its frames."""

import random
import threading
import time
from collections.abc import Callable

import pytest

from innkeeper.core import SamplingParams
from innkeeper.core.frames import Delta, Finished
from tests.unit.engine.conftest import Bench

MakeBench = Callable[..., Bench]


def test_reply_has_the_asked_for_length(bench: Bench) -> None:
    request_id = bench.submit(max_tokens=20)
    bench.run()
    assert len(bench.text(request_id)) == 20
    assert bench.finished(request_id).reason == "length"


def test_end_token_stops_without_text(make_bench: MakeBench) -> None:
    bench = make_bench(options={"reply": "Good evening."})
    request_id = bench.submit(max_tokens=50)
    bench.run()
    assert bench.text(request_id) == "Good evening."
    assert bench.finished(request_id).reason == "stop"
    assert bench.finished(request_id).stop_text is None


def test_banned_end_token_goes_on_to_the_limit(make_bench: MakeBench) -> None:
    bench = make_bench(options={"reply": "Hi"})
    sampling = SamplingParams(temperature=0, ban_eos=True)
    request_id = bench.submit(max_tokens=5, sampling=sampling)
    bench.run()
    assert bench.finished(request_id).reason == "length"
    assert bench.finished(request_id).timings.predicted_n == 5


def test_end_token_waits_for_min_tokens(make_bench: MakeBench) -> None:
    bench = make_bench(options={"reply": "Hi"})
    sampling = SamplingParams(temperature=0, min_tokens=6)
    request_id = bench.submit(max_tokens=50, sampling=sampling)
    bench.run()
    assert bench.finished(request_id).timings.predicted_n >= 6


def test_stop_string_ends_and_never_shows(make_bench: MakeBench) -> None:
    bench = make_bench(options={"reply": "Yes.\nUser: and you?"})
    request_id = bench.submit(max_tokens=50, stop=("\nUser:",))
    bench.run()
    assert bench.text(request_id) == "Yes."
    assert bench.finished(request_id).stop_text == "\nUser:"


def test_max_tokens_of_zero_reads_the_prompt_only(bench: Bench) -> None:
    request_id = bench.submit(max_tokens=0)
    bench.run()
    end = bench.finished(request_id)
    assert (end.reason, end.timings.predicted_n, end.timings.prompt_n) == ("length", 0, 6)


def test_reply_ends_where_the_context_ends_and_says_so(make_bench: MakeBench) -> None:
    bench = make_bench(num_ctx=64)
    request_id = bench.submit("x" * 40, max_tokens=100)
    bench.run()
    end = bench.finished(request_id)
    assert end.timings.predicted_n == 64 - 41
    assert "64" in end.warnings[0]


def test_second_turn_evaluates_only_what_is_new(bench: Bench) -> None:
    first = bench.submit("Once upon a time", max_tokens=10)
    bench.run()
    reply = bench.text(first)
    second = bench.submit("Once upon a time" + reply + " and then?", max_tokens=3)
    bench.run()
    timings = bench.finished(second).timings
    assert timings.cache_n == 17 + 9  # the last generated token was never evaluated
    assert timings.prompt_n == 1 + len(" and then?")


def test_regenerate_reads_one_token(bench: Bench) -> None:
    bench.submit("Tell me of the inn.", max_tokens=10)
    bench.run()
    again = bench.submit("Tell me of the inn.", max_tokens=10)
    bench.run()
    assert bench.finished(again).timings.prompt_n == 1


def test_running_sequence_shares_its_prefix(bench: Bench) -> None:
    card = "A long card of a character. " * 8
    bench.submit(card + "A", max_tokens=200)
    for _ in range(30):
        bench.engine.step()
    other = bench.submit(card + "B", max_tokens=2)
    bench.run()
    assert bench.finished(other).timings.cache_n == len(card) + 1


CARD = "Mira keeps the Lantern, an inn at the ford; she is quick, kind and curious. " * 2
CHAT = [
    f"Guest {n} says that the road to the {n}th milestone is long and dark.\n" for n in range(9)
]


def test_edited_prompt_evaluates_the_edit_alone(bench: Bench) -> None:
    bench.submit(CARD + "".join(CHAT[:5]), max_tokens=1)
    bench.run()
    prompt = CARD + "".join(CHAT[2:6])
    request_id = bench.submit(prompt, max_tokens=1, kv_reuse="fast")
    bench.run()
    timings = bench.finished(request_id).timings
    assert timings.cache_n >= len(CARD)
    assert timings.cache_approx_n > 2 * len(CHAT[0])
    assert timings.prompt_n <= len(CHAT[0]) + 2 * 16 + 10
    assert timings.prompt_n + timings.cache_n + timings.cache_approx_n == len(prompt) + 1
    stats = bench.engine.stats()
    assert stats.approximate_tokens == timings.cache_approx_n > 0
    assert stats.cached_tokens == timings.cache_n > 0


def test_exact_policy_never_reuses_over_an_edit(bench: Bench) -> None:
    bench.submit(CARD + "".join(CHAT[:5]), max_tokens=1)
    bench.run()
    request_id = bench.submit(CARD + "".join(CHAT[2:6]), max_tokens=1, kv_reuse="exact")
    bench.run()
    assert bench.finished(request_id).timings.cache_approx_n == 0


def test_idle_time_makes_the_cache_exact_again(bench: Bench) -> None:
    bench.submit(CARD + "".join(CHAT[:5]), max_tokens=1)
    bench.run()
    prompt = CARD + "".join(CHAT[2:6])
    bench.submit(prompt, max_tokens=1, kv_reuse="fast")
    bench.run()  # until the engine rests, refreshed
    assert bench.engine.stats().refreshed_tokens > 0
    request_id = bench.submit(prompt, max_tokens=1, kv_reuse="exact")
    bench.run()
    timings = bench.finished(request_id).timings
    assert (timings.cache_n, timings.prompt_n) == (len(prompt), 1)


def test_a_request_that_comes_at_once_meets_no_idle_work(make_bench: MakeBench) -> None:
    bench = make_bench(idle_seconds=1000)
    for chat in (CHAT[:5], CHAT[2:6]):
        bench.submit(CARD + "".join(chat), max_tokens=1, kv_reuse="fast")
        bench.run()
    assert not bench.engine.step()
    assert bench.engine.stats().refreshed_tokens == 0


def test_idle_work_begins_after_some_silence(make_bench: MakeBench) -> None:
    bench = make_bench(idle_seconds=0.01)
    for chat in (CHAT[:5], CHAT[2:6]):
        bench.submit(CARD + "".join(chat), max_tokens=1, kv_reuse="fast")
        bench.run()
    thread = threading.Thread(target=bench.engine.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while bench.engine.stats().refreshed_tokens < len(CHAT[2]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    bench.engine.end()
    thread.join()


def test_refresh_makes_way_for_a_request_within_one_step(make_bench: MakeBench) -> None:
    bench = make_bench(options={"prefill_per_second": "1000"})
    bench.submit(CARD + "".join(CHAT[:5]), max_tokens=1)
    bench.run()
    edited = bench.submit(CARD + "".join(CHAT[2:6]), max_tokens=1, kv_reuse="fast")
    bench.run_until_finished(edited)
    bench.engine.step()  # begins the refresh
    request_id = bench.submit("hi", max_tokens=1)
    bench.engine.step()
    assert bench.finished(request_id).reason == "length"
    bench.run()
    bench.engine.cache.check()


def test_refresh_that_made_way_costs_no_card(make_bench: MakeBench) -> None:
    pace = {"prefill_per_second": "600"}
    bench = make_bench(num_ctx=2048, num_pool=4096, ram_cache_bytes=1 << 20, options=pace)
    chat, other_card = "".join(CHAT[2:6]), CARD.upper()
    bench.submit(CARD + "".join(CHAT[:5]), max_tokens=1)
    bench.run()
    edited = bench.submit(CARD + chat, max_tokens=1, kv_reuse="fast")
    bench.run_until_finished(edited)
    bench.engine.step()  # begins the refresh, which shares the card's cells
    bench.submit(other_card + chat, max_tokens=1, kv_reuse="turbo")
    bench.run()
    back = bench.submit(CARD + chat, max_tokens=1, kv_reuse="turbo")
    bench.run()
    assert bench.finished(back).timings.prompt_n < len(CARD) // 2


def test_edit_that_is_cancelled_keeps_its_chunks_for_the_next_prompt(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(num_ctx=2048, num_pool=4096, options={"prefill_per_second": "300"})
    bench.submit(CARD + "".join(CHAT[:8]), max_tokens=1)
    bench.run()
    edited = CARD + "The lantern is lit, for it is late and dark. " * 6 + "".join(CHAT[:8])
    cancelled = bench.submit(edited, kv_reuse="fast")
    bench.engine.step()
    bench.cancel(cancelled)
    bench.run()
    bench.engine.cache.check()
    again = bench.submit(edited, max_tokens=1, kv_reuse="fast")
    bench.run()
    timings = bench.finished(again).timings
    assert timings.cache_approx_n > 6 * len(CHAT[0])
    bench.engine.cache.check()


def test_edit_is_cancelled_without_a_trace(bench: Bench) -> None:
    bench.submit(CARD + "".join(CHAT[:5]), max_tokens=1)
    bench.run()
    request_id = bench.submit(CARD + "x" * 90 + "".join(CHAT[2:6]), kv_reuse="turbo")
    bench.engine.step()
    bench.cancel(request_id)
    bench.run()
    bench.engine.cache.check()
    bench.engine.cache.drop_idle()
    assert bench.runner.num_cells_used() == 0


def test_choices_share_the_prompt(bench: Bench) -> None:
    request_id = bench.submit("Choose!", n=3, max_tokens=4, sampling=SamplingParams(seed=1))
    bench.run()
    timings = [bench.finished(request_id, index).timings for index in range(3)]
    assert [t.prompt_n for t in timings] == [8, 0, 0]
    assert [t.cache_n for t in timings] == [0, 8, 8]
    assert len({bench.text(request_id, index) for index in range(3)}) > 1


def test_more_choices_than_places_all_finish(make_bench: MakeBench) -> None:
    bench = make_bench(max_sequences=2, max_kept=0)
    request_id = bench.submit("Choose!", n=5, max_tokens=4, sampling=SamplingParams(seed=1))
    bench.run()
    assert all(bench.finished(request_id, index).reason == "length" for index in range(5))


def test_choice_equals_a_single_request_with_its_seed(bench: Bench) -> None:
    many = bench.submit("Choose!", n=3, max_tokens=9, sampling=SamplingParams(seed=10))
    bench.run()
    one = bench.submit("Choose!", max_tokens=9, sampling=SamplingParams(seed=12))
    bench.run()
    assert bench.text(one) == bench.text(many, 2)


def test_seed_reproduces_and_no_seed_varies(bench: Bench) -> None:
    fixed = [bench.submit(max_tokens=20, sampling=SamplingParams(seed=7)) for _ in range(2)]
    free = [bench.submit(max_tokens=20, sampling=SamplingParams()) for _ in range(2)]
    bench.run()
    assert bench.text(fixed[0]) == bench.text(fixed[1])
    assert bench.text(free[0]) != bench.text(free[1])


def test_batch_of_many_equals_one_at_a_time(make_bench: MakeBench) -> None:
    prompts = [f"Guest number {n} says " * (n + 1) for n in range(8)]
    together, alone = make_bench(max_sequences=8), make_bench()
    ids = [together.submit(p, max_tokens=30) for p in prompts]
    together.run()
    for request_id, prompt in zip(ids, prompts, strict=True):
        single = alone.submit(prompt, max_tokens=30)
        alone.run()
        assert together.text(request_id) == alone.text(single)


def test_preempted_sequence_resumes_with_same_tokens(make_bench: MakeBench) -> None:
    small = make_bench(num_ctx=200, num_pool=256, max_sequences=4)
    roomy = make_bench(num_ctx=200, num_pool=2048, max_sequences=4)
    prompts = [f"{n} says hello" for n in range(4)]
    texts = []
    for bench in (small, roomy):
        ids = [bench.submit(p, max_tokens=150) for p in prompts]
        bench.run()
        texts.append([bench.text(i) for i in ids])
    assert texts[0] == texts[1]
    evaluated = [e.timings.prompt_n for e in small.frames if isinstance(e, Finished)]
    assert max(evaluated) > len(prompts[0]) + 1, "nothing was preempted"
    small.engine.cache.check()


def test_cancel_takes_effect_within_one_step(bench: Bench) -> None:
    request_id = bench.submit("x" * 400, max_tokens=100)
    bench.engine.step()
    bench.cancel(request_id)
    bench.engine.step()
    assert bench.finished(request_id).reason == "cancelled"
    assert bench.engine.stats().num_running == 0


def test_cancel_of_all_spares_later_requests(bench: Bench) -> None:
    before = [bench.submit(max_tokens=100) for _ in range(6)]
    bench.engine.step()
    bench.cancel(None)
    after = bench.submit(max_tokens=5)
    bench.run()
    assert [bench.finished(i).reason for i in before] == ["cancelled"] * 6
    assert bench.finished(after).reason == "length"


def test_long_prompt_does_not_silence_another_chat(make_bench: MakeBench) -> None:
    bench = make_bench(num_ctx=4096, num_pool=8192)
    talker = bench.submit("hi", max_tokens=1000)
    for _ in range(5):
        bench.engine.step()
    bench.submit("y" * 3000, max_tokens=1)
    for _ in range(20):
        before = len(bench.text(talker))
        bench.engine.step()
        assert len(bench.text(talker)) == before + 1


def test_short_prompt_is_not_starved_by_a_long_one(make_bench: MakeBench) -> None:
    bench = make_bench(num_ctx=8192, num_pool=16384, options={"prefill_per_second": "2000"})
    bench.submit("y" * 2000, max_tokens=1)
    short = bench.submit("hi", max_tokens=1)
    for _ in range(4):
        bench.engine.step()
    assert bench.finished(short).reason == "length"


def test_short_prompts_are_read_in_one_step(make_bench: MakeBench) -> None:
    bench = make_bench(max_sequences=6)
    ids = [bench.submit(f"{n}", max_tokens=1) for n in range(6)]
    bench.engine.step()
    assert [bench.finished(i).reason for i in ids] == ["length"] * 6


def test_logprobs_come_with_every_token(bench: Bench) -> None:
    request_id = bench.submit(max_tokens=6, logprobs=3)
    bench.run()
    entries = [
        entry
        for f in bench.frames
        if isinstance(f, Delta) and f.id == request_id
        for entry in f.logprobs
    ]
    assert b"".join(e.piece for e in entries).decode() == bench.text(request_id)
    assert all(len(e.top) == 3 and e.top[0][2] >= e.logprob for e in entries)


def test_probe_lists_the_likeliest_first(bench: Bench) -> None:
    answer = bench.probe("hello", top=5)
    probabilities = [p for _, _, p in answer.tokens]
    assert probabilities == sorted(probabilities, reverse=True)
    assert len(probabilities) == 5


def test_probe_with_samplers_shows_the_draw(bench: Bench) -> None:
    answer = bench.probe("hello", use_samplers=True)
    assert [p for _, _, p in answer.tokens] == [1.0]


def test_unknown_step_fails_only_its_request(bench: Bench) -> None:
    bad = bench.submit(sampling=SamplingParams(order=("no_such_step",)))
    good = bench.submit(max_tokens=2)
    bench.run()
    assert "no_such_step" in bench.failed(bad).error.message
    assert bench.finished(good).reason == "length"


@pytest.mark.parametrize("seed", range(5))
def test_no_cell_leaks_after_random_submits_and_cancels(make_bench: MakeBench, seed: int) -> None:
    rng = random.Random(seed)
    bench = make_bench(num_ctx=200, num_pool=500, max_sequences=3, max_kept=2)
    cards = ["Mira keeps the inn. " * 3, "Bram sells rope. " * 4]
    open_ids: list[int] = []
    for _ in range(200):
        action = rng.random()
        if action < 0.4:
            prompt = rng.choice(cards) + "".join(rng.sample(CHAT[:3], rng.randrange(3)))[:130]
            reuse = rng.choice(["exact", "auto", "fast", "turbo"])
            count, limit = rng.randrange(1, 4), rng.randrange(40)
            open_ids.append(bench.submit(prompt, n=count, max_tokens=limit, kv_reuse=reuse))
        elif action < 0.6 and open_ids:
            bench.cancel(open_ids.pop(rng.randrange(len(open_ids))))
        else:
            bench.engine.step()
        bench.engine.cache.check()
    bench.run()
    bench.engine.cache.drop_idle()
    assert bench.engine.cache.num_used == 0
    assert bench.runner.num_cells_used() == 0
