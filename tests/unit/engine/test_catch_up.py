"""In idle time the speakers of a group chat hear what the others have said."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from innkeeper.core import Timings
from innkeeper.engine.bases import Base
from innkeeper.engine.catch_up import left_behind
from tests.unit.engine.conftest import Bench

MakeBench = Callable[..., Bench]

LINE = 100
"""Tokens of a reply; the fake backend's tokens are bytes."""


def words(seed: int, length: int) -> str:
    letters = random.Random(seed).choices("abcdefghijklmnopqrstuvwxyz      ", k=length)
    return "".join(letters).strip().ljust(length, ".")


class Group:
    """A chat of several speakers, each with a card on top."""

    def __init__(self, bench: Bench, same_card: bool = False) -> None:
        self.bench = bench
        self.lines: list[str] = []
        self.same_card = same_card

    def prompt(self, speaker: str) -> str:
        card = "" if self.same_card else speaker
        return words(sum(card.encode()), 120) + "\n" + "".join(self.lines) + speaker + ":"

    def ask(self, speaker: str) -> int:
        return self.bench.submit(self.prompt(speaker), max_tokens=1)

    def turn(self, speaker: str) -> Timings:
        """One reply and the silence behind it. What is said next time is not what was answered:
        front ends change it, and a reply of one token is quick."""
        request_id = self.ask(speaker)
        self.bench.run()
        self.say(speaker)
        return self.bench.finished(request_id).timings

    def say(self, speaker: str) -> None:
        self.lines.append(f"{speaker}: {words(1000 + len(self.lines), LINE)}\n")


@pytest.fixture
def group(make_bench: MakeBench) -> Group:
    return Group(make_bench(num_ctx=2048, num_pool=4096))


def play(group: Group) -> Iterator[Timings]:
    group.say("Odette")
    for speaker in ("Mira", "Bram", "Odette", "Bram", "Mira"):
        yield group.turn(speaker)


def test_a_speaker_reads_its_last_lines_only(group: Group, make_bench: MakeBench) -> None:
    restless = Group(make_bench(num_ctx=2048, num_pool=4096, idle_seconds=1000))
    *_, without = play(restless)
    *_, caught_up = play(group)
    assert without.prompt_n > 4 * LINE  # what three others have said, and its own line
    assert caught_up.prompt_n < 1.5 * LINE  # the line that was said last
    assert caught_up.cache_approx_n == 0
    group.bench.engine.cache.check()


def test_what_was_heard_is_exact(group: Group) -> None:
    list(play(group))
    request_id = group.bench.submit(group.prompt("Odette"), max_tokens=20, kv_reuse="exact")
    group.bench.run()
    group.bench.engine.cache.drop_idle()
    fresh_id = group.bench.submit(group.prompt("Odette"), max_tokens=20, kv_reuse="exact")
    group.bench.run()
    assert group.bench.finished(fresh_id).timings.cache_n == 0
    assert group.bench.finished(request_id).timings.cache_n > 4 * LINE
    assert group.bench.text(request_id) == group.bench.text(fresh_id)


def test_a_request_interrupts_it_and_what_was_heard_stays(make_bench: MakeBench) -> None:
    bench = make_bench(num_ctx=2048, num_pool=4096, options={"prefill_per_second": "1000"})
    group = Group(bench)
    group.say("Odette")
    group.turn("Mira")
    for _ in range(6):
        group.say("Bram")
    request_id = group.ask("Bram")
    bench.run_until_finished(request_id)
    bench.engine.step()
    heard = bench.engine.stats().refreshed_tokens
    assert 0 < heard < 5 * LINE
    request_id = group.ask("Mira")
    bench.run()
    timings = bench.finished(request_id).timings
    assert timings.cache_n >= 120 + heard
    assert timings.prompt_n > LINE
    bench.engine.cache.check()


def test_nothing_is_dropped_for_it(make_bench: MakeBench) -> None:
    bench = make_bench(num_ctx=1024, num_pool=1152)
    group = Group(bench)
    for speaker in ("Mira", "Bram", "Odette"):
        group.say(speaker)
        request_id = group.ask(speaker)
        bench.run()
    assert bench.engine.stats().num_kept == 3
    again = bench.submit(group.prompt("Odette"), max_tokens=1)
    bench.run()
    assert bench.finished(request_id).timings.prompt_n > LINE
    assert bench.finished(again).timings.prompt_n == 1


def test_one_card_for_all_needs_no_second_reading(make_bench: MakeBench) -> None:
    group = Group(make_bench(num_ctx=2048, num_pool=4096), same_card=True)
    list(play(group))
    assert group.bench.engine.stats().refreshed_tokens == 0


def test_an_exact_server_catches_up_as_well(make_bench: MakeBench) -> None:
    group = Group(make_bench(num_ctx=2048, num_pool=4096, kv_reuse="exact"))
    *_, caught_up = play(group)
    assert caught_up.prompt_n < 1.5 * LINE


@pytest.mark.parametrize("seed", range(8))
def test_any_course_of_a_group_is_answered_as_by_a_fresh_server(
    seed: int, make_bench: MakeBench
) -> None:
    """In pools of any size, interrupted at any step."""
    rng = random.Random(seed)
    pool = {"num_pool": rng.choice((1024, 1536, 4096)), "ram_cache_bytes": rng.choice((0, 1 << 20))}
    pace = {"prefill_per_second": "20000"}
    bench = make_bench(num_ctx=1024, kv_reuse="exact", options=pace, **pool)
    group = Group(bench)
    for _ in range(12):
        for _ in range(rng.randrange(3)):
            group.say("User")
        if rng.random() < 0.3 or len("".join(group.lines)) > 700:
            del group.lines[:2]
        speaker = rng.choice(("Mira", "Bram", "Odette"))
        prompt = group.prompt(speaker)
        request_id = bench.submit(prompt, max_tokens=20)
        bench.run_until_finished(request_id)
        for _ in range(rng.randrange(12)):  # of silence
            bench.engine.step()
        bench.engine.cache.check()
        fresh = make_bench(num_ctx=1024)
        fresh_id = fresh.submit(prompt, max_tokens=20)
        fresh.run()
        assert bench.text(request_id) == fresh.text(fresh_id)
        group.lines.append(f"{speaker}:{bench.text(request_id)}\n")
    assert bench.engine.stats().refreshed_tokens > 0 or pool["num_pool"] < 4096


def tokens(number: int, length: int) -> list[int]:
    return [1000 * number + i for i in range(length)]


def base(speaker: str, *parts: list[int]) -> Base:
    return Base(tokens=[token for part in parts for token in part], speaker=speaker)


CARD, OTHER_CARD, TALK, NEWS = tokens(1, 90), tokens(2, 90), tokens(3, 200), tokens(4, 80)
NEWEST = base("Bram", OTHER_CARD, TALK, NEWS)


@pytest.mark.parametrize(
    ("other", "is_behind"),
    [
        (base("Mira", CARD, TALK), True),
        (base("Mira", CARD, TALK, tokens(5, 10)), True),  # how its reply ended
        (base("Mira", CARD, TALK, tokens(5, 100)), False),  # a reply that is not in the chat
        (base("Mira", CARD, tokens(6, 200)), False),
        (base("Mira", CARD, TALK, NEWS), False),
        (base("Mira", OTHER_CARD, TALK), False),
        (base("Mira", CARD, tokens(6, 400), TALK), False),  # silent for too long
        (base("Bram", CARD, TALK), False),
        (base("", CARD, TALK), False),
    ],
)
def test_who_is_left_behind(other: Base, is_behind: bool) -> None:
    found = left_behind(NEWEST, [other])
    assert [(each.tokens, each.speaker) for each in found] == (
        [(CARD + TALK + NEWS, "Mira")] if is_behind else []
    )


def test_each_speaker_goes_on_from_its_latest_base() -> None:
    later, earlier = base("Mira", CARD, TALK, NEWS[:40]), base("Mira", CARD, TALK)
    other = base("Odette", tokens(7, 90), TALK)
    found: Any = left_behind(NEWEST, [later, other, earlier])
    assert [(each.speaker, each.tokens[-80:]) for each in found] == [
        ("Mira", NEWS),
        ("Odette", NEWS),
    ]
