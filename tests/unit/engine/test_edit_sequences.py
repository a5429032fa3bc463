"""Random chats over the fake pool, which refuses every broken precondition: after each step the
account, the positions and the sharing of cells are what the pool holds.

``INNKEEPER_EDIT_SEQUENCES`` sets how many sequences are tried; 10,000 take about ten minutes.
"""

import os
from pathlib import Path
from random import Random

import pytest

from innkeeper.backends.fake import FakeRunner
from innkeeper.core import EngineConfig
from innkeeper.engine.disk_cache import DiskCache
from innkeeper.engine.kv_cache import KVCache
from innkeeper.engine.reuse import Policy
from innkeeper.engine.tiers import Tiers
from tests.chat_edits import EditedChat
from tests.unit.engine.test_kv_cache import evaluate

NUM_SEQUENCES = int(os.environ.get("INNKEEPER_EDIT_SEQUENCES", "200"))
NUM_STEPS = 14
NUM_IDS = 3


class Trial:
    """One chat (now and then two) in one small pool."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = rng = Random(seed)
        num_cells = rng.choice((400, 700, 1500, 3000))
        config = EngineConfig(
            backend="fake",
            path="",
            name="fake",
            num_ctx=num_cells,
            num_pool=num_cells,
            max_sequences=NUM_IDS,
            max_kept=0,
        )
        self.runner = FakeRunner(config)
        tiers = self._tiers(rng, folder) if rng.random() < 0.3 else None
        self.cache = KVCache(self.runner, num_cells, num_scratch=NUM_IDS, tiers=tiers)
        self.chats = [EditedChat(rng) for _ in range(rng.randint(1, 2))]
        self.longest = min(900, num_cells * 2 // 3)
        self.open: list[int] = []

    def _tiers(self, rng: Random, folder: Path) -> Tiers:
        disk = DiskCache(folder, 1 << 20, f"{rng.random()}") if rng.random() < 0.3 else None
        tiers = Tiers(self.runner, 5000, disk)
        for _ in range(40):
            tiers.learn(1, 1.0)
        return tiers

    def step(self) -> None:
        chat = self.rng.choice(self.chats)
        for _ in range(self.rng.randint(1, 3)):
            chat.edit()
        chat.fit(self.longest)
        self._turn(chat)
        self.check()
        while self.open and self.rng.random() < 0.8:
            sequence_id = self.open.pop(self.rng.randrange(len(self.open)))
            self.cache.release(sequence_id, keep=self.rng.random() < 0.9)
            self.check()

    def _turn(self, chat: EditedChat) -> None:
        """Reads a prompt, or part of it; decodes, branches, takes back."""
        tokens = chat.prompt()
        policy = self.rng.choice((Policy.EXACT, Policy.AUTO, Policy.FAST, Policy.TURBO))
        lease = self.cache.lease(tokens, policy, chat.speaker)
        self.check()
        if lease is None:
            assert len(self.open) == NUM_IDS
            return
        place = lease.sequence_id
        self.open.append(place)
        cancel_at = self.rng.randrange(2 * len(tokens))
        while (length := self.cache.length(place)) < len(tokens):
            stop = min(self.cache.next_stop(place) or len(tokens), length + 100)
            assert stop > length
            if length >= cancel_at or not self._read(place, tokens[length:stop]):
                return
            self.cache.attach(place)
            self.check()
        assert self.runner.tokens(place) == tokens
        self._go_on(place, len(tokens))

    def _go_on(self, place: int, num_prompt: int) -> None:
        for _ in range(self.rng.randrange(4)):
            if self.rng.random() < 0.2:
                branch = self.cache.fork(place)
                self.open += [branch] if branch is not None else []
            elif self.rng.random() < 0.2 and self.cache.length(place) > num_prompt:
                assert self.cache.take_back(place, num_prompt)
            elif not self._read(place, [self.rng.randrange(3, 200)]):
                return
            self.check()

    def _read(self, place: int, tokens: list[int]) -> bool:
        return evaluate(self.cache, self.runner, place, tokens)

    def check(self) -> None:
        """The account equals the pool, cell by cell."""
        cache, runner = self.cache, self.runner
        cache.check()
        assert cache.num_used == runner.num_cells_used()
        twins: dict[int, int] = {}
        for sequence_id, base in enumerate(cache._bases):
            assert runner.positions(sequence_id) == list(range(len(base.tokens)))
            assert runner.tokens(sequence_id) == base.tokens
            for position, cell in enumerate(base.cells):
                assert twins.setdefault(cell, runner.cell(sequence_id, position)) == runner.cell(
                    sequence_id, position
                ), "two bases disagree on what they share"
        assert len(set(twins.values())) == len(twins)
        self._check_attic()

    def _check_attic(self) -> None:
        attic_id = self.runner.num_sequence_ids - 1
        positions = []
        for fragment in sorted(self.cache._editor.attic.fragments, key=lambda each: each.start):
            positions += range(fragment.start, fragment.end)
        assert self.runner.positions(attic_id) == positions

    def close(self) -> None:
        for sequence_id in self.open:
            self.cache.release(sequence_id)
        self.cache.drop_idle()
        assert self.runner.num_cells_used() == 0


@pytest.mark.parametrize("part", range(4))
def test_account_equals_the_pool_after_every_edit(part: int, tmp_path: Path) -> None:
    for number in range(part, NUM_SEQUENCES, 4):
        trial = Trial(number, tmp_path)
        try:
            for _ in range(NUM_STEPS):
                trial.step()
            trial.close()
        except Exception as error:
            raise AssertionError(f"sequence {number}: {error}") from error
