"""Bases that leave the pool: kept in memory, written to disk, and found again."""

import time
from pathlib import Path

import pytest

from innkeeper.backends.fake import FakeRunner
from innkeeper.engine.disk_cache import DiskCache
from innkeeper.engine.kv_cache import KVCache
from innkeeper.engine.reuse import Policy
from innkeeper.engine.tiers import Tiers
from innkeeper.errors import EngineError
from tests.unit.engine.conftest import pool_config
from tests.unit.engine.test_kv_cache import evaluate

SLOW = 1.0
"""Seconds a token: loading is always quicker."""


class Place:
    """A pool over tiers."""

    def __init__(self, ram_bytes: int, folder: Path | None, num_cells: int = 1000) -> None:
        self.runner = FakeRunner(pool_config(num_cells, 3))
        disk = DiskCache(folder, 1 << 30, self.runner.state_key) if folder else None
        self.tiers = Tiers(self.runner, ram_bytes, disk)
        self.cache = KVCache(self.runner, num_cells, num_scratch=3, tiers=self.tiers)
        for _ in range(40):
            self.tiers.learn(1, SLOW)

    def turn(self, tokens: list[int], policy: Policy = Policy.EXACT) -> tuple[int, int]:
        """Reads a prompt; (tokens that were cached, tokens of those that came from the tiers)."""
        lease = self.cache.lease(tokens, policy)
        assert lease is not None
        num_attached = 0
        while (length := self.cache.length(lease.sequence_id)) < len(tokens):
            stop = min(self.cache.next_stop(lease.sequence_id) or len(tokens), length + 512)
            assert evaluate(self.cache, self.runner, lease.sequence_id, tokens[length:stop])
            num_attached += self.cache.attach(lease.sequence_id)
        assert self.runner.tokens(lease.sequence_id) == tokens
        self.cache.release(lease.sequence_id)
        self.cache.check()
        assert self.cache.num_used == self.runner.num_cells_used()
        return lease.num_cached + num_attached, lease.num_restored


def chat(number: int, length: int = 600) -> list[int]:
    return [number * 1000 + i for i in range(length)]


def test_a_chat_that_had_to_leave_comes_back_from_memory() -> None:
    place = Place(1 << 20, None)
    place.turn(chat(1))
    place.turn(chat(2))
    assert place.turn([*chat(1), 7]) == (600, 600)
    assert place.turn([*chat(2), 7]) == (600, 600)


def test_nothing_comes_back_without_tiers_to_keep_it() -> None:
    place = Place(0, None)
    place.turn(chat(1))
    place.turn(chat(2))
    assert place.turn([*chat(1), 7]) == (0, 0)


def test_memory_is_bounded_and_overflows_to_disk(tmp_path: Path) -> None:
    place = Place(2 * 601 * 4, tmp_path)
    for number in range(6):
        place.turn(chat(number))
        assert place.tiers.wait(time.monotonic() + 5)
    assert place.tiers.num_ram_bytes <= 2 * 601 * 4
    assert sorted(s.tokens[0] for s in place.tiers.disk.states()) == [0, 1000, 2000]  # type: ignore[union-attr]
    assert place.turn([*chat(0), 7]) == (600, 600)


def test_a_restart_brings_back_what_close_wrote(tmp_path: Path) -> None:
    place = Place(1 << 20, tmp_path)
    place.turn(chat(1))
    place.turn(chat(2))  # the first one is in memory by now
    place.cache.close(5)
    again = Place(0, tmp_path)
    assert again.turn([*chat(1), 7]) == (600, 600)
    assert Place(0, tmp_path).turn([*chat(2), 7]) == (600, 600)


def test_a_stored_chat_is_edited_like_any_other(tmp_path: Path) -> None:
    place = Place(0, tmp_path)
    place.turn(chat(1))
    place.cache.close(5)
    again = Place(0, tmp_path)
    edited = [*chat(1)[:100], *chat(1)[200:], 7]
    cached, restored = again.turn(edited, Policy.FAST)
    assert cached == restored == 600 - 100 - 16  # the removed ones, and what is repaired


def test_exact_never_takes_approximate_tokens_from_a_tier(tmp_path: Path) -> None:
    place = Place(0, tmp_path)
    place.turn(chat(1))
    place.turn([*chat(1)[:300], *chat(1)[400:], *chat(5, 100)], Policy.FAST)
    place.cache.close(5)
    again = Place(0, tmp_path)  # 16 tokens were repaired behind the first 300: they are exact too
    assert again.turn([*chat(1)[:300], *chat(1)[400:], *chat(5, 100), 7]) == (316, 316)


@pytest.mark.parametrize("length", [100, 255])
def test_short_chats_are_not_written(tmp_path: Path, length: int) -> None:
    place = Place(0, tmp_path)
    place.turn(chat(1, length))
    place.cache.close(5)
    assert list(tmp_path.iterdir()) == []


def test_a_chat_is_written_once(tmp_path: Path) -> None:
    place = Place(0, tmp_path)
    place.turn(chat(1))
    assert place.cache.has_unwritten()
    assert place.cache.write_one() > 0
    assert place.tiers.wait(time.monotonic() + 5)
    assert not place.cache.has_unwritten()
    place.turn([*chat(1), *chat(9, 100)])
    assert place.cache.has_unwritten()


def test_reading_is_preferred_where_it_is_quicker(tmp_path: Path) -> None:
    place = Place(0, tmp_path)
    place.turn(chat(1))
    place.cache.close(5)
    again = Place(0, tmp_path)
    for _ in range(100):
        again.tiers.learn(1, 0.0)
    assert again.turn([*chat(1), 7]) == (0, 0)


def test_a_state_the_backend_refuses_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(0, tmp_path)
    place.turn(chat(1))
    place.cache.close(5)
    again = Place(0, tmp_path)
    monkeypatch.setattr(again.runner, "load", lambda sequence_id, state: False)
    assert again.turn([*chat(1), 7]) == (0, 0)
    assert list(tmp_path.glob("*.kv")) == []


def test_a_full_disk_ends_writing_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> bool:
        raise OSError(28, "No space left on device")

    place = Place(0, tmp_path)
    assert place.tiers.disk is not None
    monkeypatch.setattr(place.tiers.disk, "write", refuse)
    place.turn(chat(1))
    place.cache.close(5)
    assert "No space left" in capsys.readouterr().err
    assert place.turn([*chat(1), 7]) == (600, 0)
    assert not place.cache.has_unwritten()


def test_a_backend_that_cannot_save_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def refuse(sequence_id: int) -> None:
        calls.append(sequence_id)
        raise EngineError("no state")

    place = Place(0, tmp_path)
    monkeypatch.setattr(place.runner, "save", refuse)
    for number in range(3):
        place.turn(chat(number))
    assert place.cache.write_one() == 0
    assert not place.cache.has_unwritten()
    assert len(calls) == 1


def test_a_snapshot_is_adopted_where_there_is_room(tmp_path: Path) -> None:
    place = Place(1 << 20, tmp_path)
    place.turn(chat(1))
    base = place.cache.snapshot(0)
    assert place.cache.forget(0) == 600 and place.cache.forget(0) == 0
    place.turn(chat(2))
    place.cache.adopt(base)
    place.cache.check()
    assert place.cache.num_used == place.runner.num_cells_used()
    assert place.turn([*base.tokens, 7]) == (600, 0)


def test_what_is_forgotten_is_gone_from_every_tier(tmp_path: Path) -> None:
    place = Place(1 << 20, tmp_path)
    place.turn(chat(1))
    place.cache.write_one()
    assert place.tiers.wait(time.monotonic() + 30)
    assert place.tiers.num_disk_bytes
    assert place.cache.forget(0) == 600
    assert place.tiers.num_disk_bytes == 0
    assert place.turn([*chat(1), 7]) == (0, 0)
