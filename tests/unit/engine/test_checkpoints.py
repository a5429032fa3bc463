"""Models that cannot take a token back: what of a cached chat serves a changed prompt all the same.

The fake backend keeps one state a sequence, and refuses to go on from one of other tokens.
"""

import time
from pathlib import Path
from random import Random

import numpy as np
import pytest

from innkeeper.backends.fake import BOS, FakeRunner
from innkeeper.engine.checkpoints import MAX_KEPT
from innkeeper.engine.disk_cache import DiskCache
from innkeeper.engine.kv_cache import KVCache
from innkeeper.engine.runner import State
from innkeeper.engine.tiers import Tiers
from innkeeper.errors import EngineError
from tests.chat_edits import EditedChat
from tests.unit.engine.conftest import pool_config
from tests.unit.engine.test_kv_cache import evaluate

SLICE = 100
STATE_BYTES = 16
CARD = list(b"Mira keeps the Lantern, an inn at the ford.\n" * 10)


def line(number: int) -> list[int]:
    return list(f"Guest {number}: the road from the mill was long this time.\n".encode())


class Pool:
    """A pool over the tiers, of a model with a state."""

    def __init__(
        self,
        num_cells: int = 4000,
        *,
        ram_bytes: int = 1 << 20,
        folder: Path | None = None,
        num_ids: int = 4,
    ) -> None:
        self.runner = FakeRunner(pool_config(num_cells, num_ids, options={"state": "yes"}))
        disk = DiskCache(folder, 1 << 30, "fake") if folder else None
        self.tiers = Tiers(self.runner, ram_bytes, disk)
        self.cache = KVCache(self.runner, num_cells, tiers=self.tiers)
        for _ in range(40):
            self.tiers.learn(1, 1.0)

    def begin(self, tokens: list[int], stop_at: int = 1 << 30) -> tuple[int, int]:
        """Reads a prompt, or a part of it; (its sequence id, tokens that were cached)."""
        lease = self.cache.lease(tokens)
        assert lease is not None
        assert lease.num_exact == lease.num_cached < len(tokens)
        while (start := self.cache.length(lease.sequence_id)) < min(len(tokens), stop_at):
            stop = min(self.cache.next_stop(lease.sequence_id) or len(tokens), start + SLICE)
            assert stop > start
            assert evaluate(self.cache, self.runner, lease.sequence_id, tokens[start:stop])
        return lease.sequence_id, lease.num_cached

    def turn(self, tokens: list[int], reply: list[int] | None = None) -> int:
        """Reads a prompt and replies; how much of the prompt was cached."""
        place, num_cached = self.begin(tokens)
        for token in reply or []:
            assert evaluate(self.cache, self.runner, place, [token])
        assert self.runner.tokens(place) == [*tokens, *(reply or [])]
        self.cache.release(place)
        self.check()
        return num_cached

    def check(self) -> None:
        self.cache.check()
        assert self.cache.num_used == self.runner.num_cells_used()
        bases = self.cache._bases
        states = {id(c.state): len(c.state) for base in bases for c in base.checkpoints}
        assert sum(states.values()) <= self.tiers.ram_bytes // 2
        assert self.tiers.num_ram_bytes <= self.tiers.ram_bytes or not self.tiers._in_ram
        for base in bases:
            lengths = [checkpoint.length for checkpoint in base.checkpoints]
            assert lengths == sorted(set(lengths))
            assert len(lengths) <= MAX_KEPT
            assert all(0 < length <= len(base.tokens) for length in lengths)


REPLY = list(b" Sit down, then.\nGuest")


def test_another_reply_to_the_same_prompt_reads_its_last_token() -> None:
    pool = Pool()
    prompt = [*CARD, *line(1)]
    assert pool.turn(prompt, REPLY) == 0
    assert pool.turn(prompt, REPLY) == len(prompt) - 1
    assert pool.turn(prompt) == len(prompt) - 1


def test_without_memory_for_them_everything_is_read_again() -> None:
    pool = Pool(ram_bytes=0)
    prompt = [*CARD, *line(1)]
    pool.turn(prompt, REPLY)
    assert pool.turn(prompt, REPLY) == 0
    assert pool.turn([*prompt, *REPLY, *line(2)]) == len([*prompt, *REPLY])


def test_a_reply_cut_at_a_stop_string_is_all_that_is_read_again() -> None:
    pool = Pool()
    prompt = [*CARD, *line(1)]
    pool.turn(prompt, REPLY)
    assert pool.turn([*prompt, *REPLY[:-6], *line(2)]) == len(prompt) - 1


def test_an_edited_last_message_is_read_from_its_start() -> None:
    pool = Pool()
    before = [*CARD, *line(1), *line(2)]
    pool.turn([*before, *line(3), *b"Mira:"])
    assert pool.turn([*before, *line(4), *b"Mira:"]) == len(before)


def test_an_edit_of_what_was_said_after_a_reply_keeps_the_reply() -> None:
    pool = Pool()
    so_far = [*CARD, *line(1)]
    pool.turn(so_far, REPLY)
    pool.turn([*so_far, *REPLY, *b" one long answer to all of this"])
    assert pool.turn([*so_far, *REPLY, *b" another answer"]) == len(so_far) + len(REPLY)


def test_the_card_is_kept_once_messages_fall_out_behind_it() -> None:
    pool = Pool()
    messages = [token for number in range(40) for token in line(number)]
    size = len(line(1))
    pool.turn([*CARD, *messages])
    shared = len(CARD) + len(b"Guest ")  # the next line begins like the one that fell out
    pool.turn([*CARD, *messages[size:]])
    assert pool.turn([*CARD, *messages[2 * size :]]) == shared


def test_late_edits_of_a_long_prompt_read_a_few_times_their_distance() -> None:
    tokens = [BOS, *(Random(3).randrange(32, 127) for _ in range(3000))]
    for distance in (3, 20, 60, 200, 700, 2000):
        pool = Pool(num_cells=7000)
        pool.turn(tokens)
        edited = [*tokens[:-distance], 5, *tokens[-distance + 1 :]]
        assert distance <= len(tokens) - pool.turn(edited) <= 4 * distance + 32


def test_few_checkpoints_are_taken_of_a_long_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()
    taken = []
    take = pool.runner.checkpoint
    monkeypatch.setattr(pool.runner, "checkpoint", lambda place: taken.append(place) or take(place))
    pool.turn([*CARD * 5, *line(1)])
    assert 3 <= len(taken) <= 6


def test_a_long_chat_keeps_few_and_they_reach_back() -> None:
    pool = Pool()
    tokens = list(CARD)
    for number in range(25):
        tokens += [*line(number), *REPLY]
        pool.turn(tokens)  # checks that there are not too many
    for distance in (100, 400, 1200):
        cached = pool.turn([*tokens[:-distance], 5])
        assert len(tokens) - 3 * distance - 100 < cached <= len(tokens) - distance


def test_states_that_never_fit_are_not_copied_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(ram_bytes=2 * STATE_BYTES - 1)
    taken = []
    take = pool.runner.checkpoint
    monkeypatch.setattr(pool.runner, "checkpoint", lambda place: taken.append(place) or take(place))
    for number in range(4):
        pool.turn([*line(number), *CARD])
    num_taken = len(taken)
    pool.turn([*line(5), *CARD])
    assert len(taken) == num_taken
    assert pool.tiers.num_ram_bytes == 0


def test_where_copying_takes_long_only_those_are_taken_that_save_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """64 MB a state, which takes as long as reading 43 tokens at 1,000 a second."""
    pool = Pool(ram_bytes=1 << 31)
    for _ in range(100):
        pool.tiers.learn(1, 1e-3)
    big = np.zeros(1 << 26, np.uint8)
    monkeypatch.setattr(pool.runner, "checkpoint", lambda place: big)
    pool.turn(list(CARD))
    tokens = [*CARD, *line(1), *line(2), *CARD * 5]
    place, num_cached = pool.begin(tokens)
    lengths = [checkpoint.length for checkpoint in pool.cache._bases[place].checkpoints]
    new = [length for length in lengths if length > num_cached]
    assert new[-1] == len(tokens) - 1
    assert len(new) > 1
    assert np.diff(new).min() >= 8 * 43


def test_a_cancelled_prompt_goes_on_where_it_was() -> None:
    pool = Pool()
    tokens = [*CARD, *line(1), *line(2)]
    for stop_at in range(1, len(tokens), 37):
        place, _ = pool.begin(tokens, stop_at)
        length = pool.cache.length(place)
        pool.cache.release(place)
        pool.check()
        if length < len(tokens):
            assert pool.begin(tokens)[1] >= length
            pool.cache.release(place)
        pool.cache.drop_idle()
        assert pool.runner.num_cells_used() == 0


def test_branches_of_a_running_chat_share_its_checkpoints() -> None:
    pool = Pool()
    prompt = [*CARD, *line(1)]
    first, _ = pool.begin(prompt)
    used = pool.tiers.num_ram_bytes
    second, num_cached = pool.begin(prompt)
    assert num_cached == len(prompt) - 1
    assert pool.cache.num_used == len(prompt) + 1
    assert pool.tiers.num_ram_bytes == used
    third = pool.cache.fork(first)
    assert third is not None
    for place in (first, second, third):
        assert evaluate(pool.cache, pool.runner, place, [7])
        pool.cache.release(place)
    pool.check()


def test_the_only_base_is_rewound_in_place() -> None:
    pool = Pool(num_ids=1)
    prompt = [*CARD, *line(1)]
    pool.turn(prompt, REPLY)
    assert pool.turn(prompt, REPLY) == len(prompt) - 1


def test_their_memory_is_bounded_and_half_of_it_is_for_chats() -> None:
    pool = Pool(num_cells=1200, ram_bytes=10 * STATE_BYTES + 4 * 900)
    for number in range(12):
        pool.turn([*line(number), *CARD, *line(number + 1)])
    assert pool.tiers.num_ram_bytes > 0
    small = Pool(ram_bytes=4 * STATE_BYTES)
    for number in range(4):
        small.turn([*line(number), *CARD, *line(number + 1)], REPLY)
    assert small.tiers.num_ram_bytes == 2 * STATE_BYTES
    prompt = [*line(3), *CARD, *line(4)]
    assert small.turn(prompt) == len(prompt) - 1  # the newest one goes last


def test_a_chat_that_left_the_pool_comes_back_with_its_checkpoints() -> None:
    pool = Pool(num_cells=1000)
    prompt = [*CARD, *line(1)]
    pool.turn(prompt, REPLY)
    pool.turn([*line(9), *CARD, *CARD[:100]])
    assert pool.cache.num_kept == 1
    assert pool.turn(prompt, REPLY) == len(prompt) - 1


def test_a_stored_chat_without_room_leaves_no_trace_of_what_was_dropped_for_it() -> None:
    pool = Pool(num_cells=1000)
    long = [*CARD, *line(1), *CARD[:400]]
    pool.turn(long)
    pool.turn([*line(9), *CARD, *CARD[:100]])  # the long one leaves for memory
    assert pool.turn([*CARD[:300], *line(2)]) == 0
    running, _ = pool.begin([*line(8), *CARD[:150]])
    lease = pool.cache.lease([*long, 7])  # the short one would serve, and is dropped in vain
    assert lease is not None
    assert (lease.num_cached, lease.num_restored) == (0, 0)
    for place in (running, lease.sequence_id):
        assert evaluate(pool.cache, pool.runner, place, [7])
        pool.cache.release(place)
    pool.check()


def test_a_restart_brings_them_back_from_disk(tmp_path: Path) -> None:
    pool = Pool(folder=tmp_path)
    prompt = [*CARD, *line(1), *line(2)]
    pool.turn([*prompt, *b"Mira:"], REPLY)
    pool.cache.close(5)
    again = Pool(folder=tmp_path)
    assert again.turn([*prompt, *b"Mira:"], REPLY) == len(prompt) + 4
    other = Pool(folder=tmp_path)
    assert other.turn([*prompt[: -len(line(2))], *line(3), *b"Mira:"]) == len(CARD) + len(line(1))
    assert other.tiers.wait(time.monotonic() + 5)


def test_a_chat_saved_by_name_keeps_them() -> None:
    pool = Pool()
    prompt = [*CARD, *line(1)]
    pool.turn(prompt, REPLY)
    saved = pool.cache.snapshot(0)
    pool.cache.forget(0)
    pool.cache.adopt(saved)
    pool.check()
    assert pool.turn(prompt) == len(prompt) - 1


def test_a_checkpoint_that_the_backend_refuses_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(sequence_id: int, length: int, checkpoint: State) -> bool:
        pool.runner.remove(sequence_id, 0)
        return False

    pool = Pool()
    prompt = [*CARD, *line(1)]
    pool.turn(prompt, REPLY)
    monkeypatch.setattr(pool.runner, "rewind", refuse)
    num_before = len(pool.cache._bases[0].checkpoints)
    assert pool.turn(prompt, REPLY) == 0
    assert len(pool.cache._bases[0].checkpoints) == num_before - 1


def test_a_backend_that_cannot_copy_its_state_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def refuse(sequence_id: int) -> State:
        calls.append(sequence_id)
        raise EngineError("no state")

    pool = Pool()
    monkeypatch.setattr(pool.runner, "checkpoint", refuse)
    for number in range(3):
        assert pool.turn([*line(number), *CARD]) == 0
    assert len(calls) == 1
    assert "no state" in capsys.readouterr().err


class Trial:
    """A chat (now and then two) whose turns begin, end and branch beside each other."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = rng = Random(seed)
        num_cells = rng.choice((500, 900, 2500))
        self.num_ids = rng.choice((1, 3))
        self.pool = Pool(
            num_cells,
            ram_bytes=rng.choice((200, 5000, 1 << 20)),
            folder=folder if rng.random() < 0.3 else None,
            num_ids=self.num_ids,
        )
        self.chats = [EditedChat(rng) for _ in range(rng.randint(1, 2))]
        self.longest = num_cells * 2 // 3
        self.turns: list[tuple[int, list[int]]] = []
        self.num_cached = self.num_read = 0

    def step(self) -> None:
        chat = self.rng.choice(self.chats)
        chat.edit()
        chat.fit(self.longest)
        lease = self.pool.cache.lease(chat.prompt())
        if lease is not None:
            self.num_cached += lease.num_cached
            self.turns.append((lease.sequence_id, chat.prompt()))
        for _ in range(self.rng.randrange(25)):
            if self.turns:
                self._advance(self.rng.choice(self.turns))
                self.pool.check()
        while len(self.turns) >= self.num_ids or (self.turns and self.rng.random() < 0.6):
            self._end(self.rng.choice(self.turns))

    def _advance(self, turn: tuple[int, list[int]]) -> None:
        place, tokens = turn
        start = self.pool.cache.length(place)
        if start < len(tokens):
            stop = min(self.pool.cache.next_stop(place) or len(tokens), start + SLICE)
            new = tokens[start:stop]
        elif self.rng.random() < 0.1 and (branch := self.pool.cache.fork(place)) is not None:
            self.turns.append((branch, tokens))
            return
        else:
            new = [self.rng.randrange(3, 200)]
        if evaluate(self.pool.cache, self.pool.runner, place, new):
            self.num_read += len(new)
        else:
            self._end(turn)

    def _end(self, turn: tuple[int, list[int]]) -> None:
        place, tokens = turn
        num_shared = min(self.pool.cache.length(place), len(tokens))
        assert self.pool.runner.tokens(place)[:num_shared] == tokens[:num_shared]
        self.turns.remove(turn)
        self.pool.cache.release(place, keep=self.rng.random() < 0.9)
        self.pool.check()

    def close(self) -> None:
        for turn in list(self.turns):
            self._end(turn)
        self.pool.cache.drop_idle()
        self.pool.check()
        assert self.pool.runner.num_cells_used() == 0


@pytest.mark.parametrize("part", range(4))
def test_random_chats_never_break_a_precondition(part: int, tmp_path: Path) -> None:
    """Edits, branches, cancellations, small pools: the state is always that of the tokens."""
    num_cached = num_read = 0
    for seed in range(part, 120, 4):
        trial = Trial(seed, tmp_path / str(seed))
        for _ in range(14):
            trial.step()
        trial.close()
        num_cached, num_read = num_cached + trial.num_cached, num_read + trial.num_read
    assert num_cached > num_read / 2
