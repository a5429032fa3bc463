"""What falls out of a prompt is kept for when it comes back, for whoever it belonged to."""

import pytest

from innkeeper.backends.fake import FakeRunner
from innkeeper.engine.kv_cache import KVCache
from innkeeper.engine.prompt import next_speaker
from innkeeper.engine.reuse import REPAIR, EditKind, Policy, edit_kind, plan_reuse
from innkeeper.engine.tiers import Tiers
from tests.unit.engine.conftest import pool_config
from tests.unit.engine.test_kv_cache import evaluate


def text(number: int, length: int = 100) -> list[int]:
    return [number * 1000 + i for i in range(length)]


CARD, LORE, OLD, MIDDLE, NEW = (text(n) for n in range(5))


class Pool:
    def __init__(self, num_cells: int = 2000, ram_bytes: int = 10000) -> None:
        self.runner = FakeRunner(pool_config(num_cells, 2, max_kept=2))
        self.tiers = Tiers(self.runner, ram_bytes, None)
        self.cache = KVCache(self.runner, num_cells, num_scratch=2, tiers=self.tiers)

    def turn(self, *parts: list[int], speaker: str = "Mira", policy: Policy = Policy.FAST) -> int:
        """Reads a prompt; the number of tokens that had to be evaluated."""
        tokens = [token for part in parts for token in part]
        lease = self.cache.lease(tokens, policy, speaker)
        assert lease is not None
        place, before = lease.sequence_id, self.runner.num_evaluated
        while (length := self.cache.length(place)) < len(tokens):
            stop = self.cache.next_stop(place) or len(tokens)
            stop = min(stop, length + self.runner.max_rows)
            assert evaluate(self.cache, self.runner, place, tokens[length:stop])
            self.cache.attach(place)
        assert self.runner.tokens(place) == tokens
        self.cache.release(place)
        self.cache.check()
        assert self.cache.num_used == self.runner.num_cells_used()
        return self.runner.num_evaluated - before

    def refresh(self, num_tokens: int) -> None:
        """Idle time reads the start of the newest prompt again until a request comes."""
        tokens = self.cache.stale_base()
        assert tokens is not None
        lease = self.cache.lease(tokens)
        assert lease is not None and lease.num_cached < num_tokens <= len(tokens)
        unread = tokens[lease.num_cached : num_tokens]
        assert evaluate(self.cache, self.runner, lease.sequence_id, unread)
        self.cache.make_exact(lease.sequence_id)
        self.cache.check()
        self.cache.release(lease.sequence_id, keep=False)


def test_what_is_read_again_last_is_not_lost() -> None:
    """A base that lacks a few exact tokens was taken over for it, and dropped with it."""
    pool = Pool()
    pool.turn(CARD, OLD, MIDDLE, NEW)
    pool.turn(CARD, LORE, MIDDLE, NEW)
    pool.refresh(395)
    pool.refresh(400)
    assert pool.turn(CARD, LORE, MIDDLE, NEW) == 1


def test_messages_that_come_back_are_not_read_again() -> None:
    pool = Pool()
    pool.turn(CARD, OLD, MIDDLE, NEW)
    # lore comes in, and an old message falls out for it
    assert pool.turn(CARD, LORE, MIDDLE, NEW) == len(LORE) + REPAIR + 1
    assert pool.turn(CARD, OLD, MIDDLE, NEW) == REPAIR + 1
    assert pool.turn(CARD, LORE, MIDDLE, NEW) == REPAIR + 1


def test_a_reply_that_is_continued_keeps_its_speaker() -> None:
    pool = Pool()
    pool.turn(CARD, OLD, MIDDLE, NEW)
    pool.turn(CARD, LORE, MIDDLE, NEW)
    reply = text(8)
    pool.turn(CARD, LORE, MIDDLE, NEW, reply, speaker="")
    assert pool.turn(CARD, OLD, MIDDLE, NEW, reply, [7]) <= 2 * REPAIR + 1


def test_exact_policy_takes_nothing_from_the_attic() -> None:
    pool = Pool()
    pool.turn(CARD, OLD, MIDDLE, NEW)
    pool.turn(CARD, LORE, MIDDLE, NEW)
    assert pool.turn(CARD, OLD, MIDDLE, NEW, policy=Policy.EXACT) == 300


def test_what_fell_out_takes_no_cells() -> None:
    pool = Pool(num_cells=430)
    pool.turn(CARD, OLD, MIDDLE, NEW)
    pool.turn(CARD, MIDDLE, NEW)
    assert pool.cache.num_used == 300
    assert pool.turn(CARD, OLD, MIDDLE, NEW) == REPAIR + 1


def test_the_oldest_goes_where_there_is_no_memory() -> None:
    bytes_of_one = 4 * (100 + REPAIR + 1)  # the next message's start fell out with it
    for num_kept in range(3):
        pool = Pool(ram_bytes=2 * num_kept * bytes_of_one)
        pool.turn(CARD, OLD, LORE, MIDDLE, NEW)
        pool.turn(CARD, LORE, MIDDLE, NEW)
        pool.turn(CARD, MIDDLE, NEW)
        assert pool.tiers.num_ram_bytes == num_kept * bytes_of_one
        num_repaired = (1, 1, 2)[num_kept] * REPAIR
        num_read = pool.turn(CARD, OLD, LORE, MIDDLE, NEW)
        assert num_read == (2 - num_kept) * 100 + num_repaired + 1


def test_what_has_no_room_in_the_pool_is_read() -> None:
    pool = Pool(num_cells=500)
    pool.turn(CARD, OLD, LORE, MIDDLE, NEW)
    pool.turn(CARD, MIDDLE, NEW)
    running = pool.cache.lease(text(7))
    assert running is not None
    assert evaluate(pool.cache, pool.runner, running.sequence_id, text(7, 60))
    assert pool.turn(CARD, OLD, MIDDLE, NEW) == 100 + REPAIR + 1


def test_only_turbo_uses_what_was_read_with_another_card() -> None:
    other_card = text(9)
    for policy, cost in ((Policy.FAST, 400), (Policy.TURBO, 100 + 4 * REPAIR)):
        pool = Pool()
        pool.turn(CARD, OLD, MIDDLE, NEW, speaker="Mira")
        num_read = pool.turn(other_card, OLD, MIDDLE, NEW, speaker="Bram", policy=policy)
        assert num_read <= cost
        assert (num_read == 400) == (policy is Policy.FAST)


def test_a_refresh_that_was_stopped_costs_no_card() -> None:
    other_card = text(9)
    for num_refreshed in (150, 300):
        pool = Pool()
        pool.turn(CARD, OLD, MIDDLE, NEW)
        pool.turn(CARD, MIDDLE, NEW)
        pool.refresh(num_refreshed)
        pool.turn(other_card, MIDDLE, NEW, speaker="Bram", policy=Policy.TURBO)
        assert pool.turn(CARD, MIDDLE, NEW, policy=Policy.TURBO) == REPAIR + 1


def test_a_refresh_goes_on_where_it_was_stopped() -> None:
    pool = Pool()
    pool.turn(CARD, OLD, MIDDLE, NEW)
    pool.turn(CARD, MIDDLE, NEW)
    pool.refresh(250)
    assert pool.turn(CARD, MIDDLE, NEW, [7], policy=Policy.EXACT) == 51
    pool.turn(CARD, OLD, MIDDLE, NEW)
    pool.turn(CARD, MIDDLE, NEW)
    pool.refresh(250)
    pool.refresh(300)
    assert pool.turn(CARD, MIDDLE, NEW, policy=Policy.EXACT) == 1


def test_a_refresh_needs_no_more_room_than_a_batch() -> None:
    pool, long = Pool(num_cells=2400), text(5, 1300)
    pool.turn(CARD, OLD, long)
    pool.turn(CARD, long)
    pool.turn(text(7), text(8), speaker="Bram")
    assert pool.cache.num_free < len(long)
    for num_tokens in (600, 1100, 1400):
        pool.refresh(num_tokens)
    assert pool.cache.stale_base() is None
    assert pool.cache.num_kept == 2
    assert pool.turn(CARD, long, policy=Policy.EXACT) == 1


def test_a_chat_that_is_forgotten_leaves_nothing() -> None:
    pool = Pool()
    pool.turn(CARD, OLD, MIDDLE, NEW)
    pool.turn(CARD, MIDDLE, NEW)
    assert pool.cache.forget(0) == 300
    assert pool.cache.num_used == pool.runner.num_cells_used() == 0
    assert pool.tiers.num_ram_bytes == 0


@pytest.mark.parametrize(
    ("speakers", "length", "is_reused"),
    [
        (("Mira", "Mira"), 500, True),
        (("Mira", "Bram"), 40, False),
        (("", ""), 40, True),
        (("", ""), 100, False),
        (("", "Mira"), 100, False),
    ],
)
def test_who_speaks_tells_lore_from_a_card(
    speakers: tuple[str, str], length: int, is_reused: bool
) -> None:
    head, rest = text(1, 20), text(2, 300)
    cached = head + text(3, length) + rest
    prompt = head + text(4, length) + rest + [7]
    plan = plan_reuse(cached, prompt, Policy.FAST, speakers=speakers)
    assert bool(plan.chunks) == is_reused


def test_a_later_replacement_is_never_a_card() -> None:
    assert edit_kind(300, 300, is_first=False) is EditKind.REPLACEMENT


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("Once.\nUser: Hello.\nMira:", "Mira"),
        ("<|im_start|>assistant\nOld Bram: ", "Old Bram"),
        ("User: Hello.\n<|im_start|>assistant\n", ""),
        ("It was late: the bell had rung.", ""),
        ("", ""),
    ],
)
def test_the_next_speaker_is_the_name_at_the_end(prompt: str, name: str) -> None:
    runner = Pool().runner
    tokens = runner.tokenizer.encode(prompt, add_special=False, parse_special=False)
    assert next_speaker(tokens, runner.tokenizer) == name
