"""Random chats over the fake pool, which refuses every broken precondition: after each step the
account, the positions and the sharing of cells are what the pool holds, and what the account calls
exact is what a fresh reading would give.

``INNKEEPER_EDIT_SEQUENCES`` sets how many sequences are tried; 10,000 take a few minutes.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from random import Random

import numpy as np
import pytest

from innkeeper.backends.fake import Cell, FakeRunner
from innkeeper.core import EngineConfig
from innkeeper.engine.disk_cache import DiskCache
from innkeeper.engine.kv_cache import KVCache
from innkeeper.engine.reuse import Policy
from innkeeper.engine.runner import Logits, Row, State
from innkeeper.engine.tiers import Tiers
from tests.chat_edits import EditedChat
from tests.unit.engine.conftest import pool_config
from tests.unit.engine.test_kv_cache import evaluate

NUM_SEQUENCES = int(os.environ.get("INNKEEPER_EDIT_SEQUENCES", "200"))
NUM_STEPS = 14
NUM_IDS = 3
SLICE = 100


class Memory:
    """What reading token after token leaves in the cells: each depends on all before it."""

    def __init__(self, contents: Iterable[int] = ()) -> None:
        self._sum = 0
        for content in contents:
            self._take_in(content)

    def read(self, token_id: int) -> int:
        """The content of the cell that the token gets."""
        content = hash((self._sum, token_id))
        self._take_in(content)
        return content

    def _take_in(self, content: int) -> None:
        self._sum = hash((self._sum, content))


class TracingRunner(FakeRunner):
    """Knows of every cell what had been read before it, wherever the cell is by now."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self._contents: dict[Cell, int] = {}
        self.loads: Counter[int] = Counter()
        """By sequence id."""

    def contents(self, sequence_id: int) -> list[int]:
        return [self._contents[cell] for cell in self.cells(sequence_id)]

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        place = rows[0].sequence_id
        memory = Memory(self.contents(place))
        logits = super().forward(rows)
        for cell in self.cells(place)[rows[0].position :]:
            self._contents[cell] = memory.read(cell.token_id)
        return logits

    def save(self, sequence_id: int) -> State:
        contents = np.asarray(self.contents(sequence_id), np.int64)
        return np.concatenate((super().save(sequence_id), contents.view(np.uint8)))

    def load(self, sequence_id: int, state: State) -> bool:
        self.loads[sequence_id] += 1
        num_tokens = len(state) // 12
        super().load(sequence_id, state[: -8 * num_tokens])
        contents = np.frombuffer(state[-8 * num_tokens :].tobytes(), np.int64).tolist()
        self._contents.update(zip(self.cells(sequence_id), contents, strict=True))
        return True


@dataclass
class Turn:
    """A prompt that is being read, and goes on behind its end."""

    place: int
    tokens: list[int]
    is_refresh: bool = False


class Trial:
    """One chat (now and then two) in one small pool; ``seen`` counts what came to pass."""

    def __init__(self, seed: int, folder: Path, seen: Counter[str]) -> None:
        self.rng = rng = Random(seed)
        self.seen = seen
        num_cells = rng.choice((400, 700, 1500, 3000))
        self.runner = TracingRunner(pool_config(num_cells, NUM_IDS))
        tiers = self._tiers(rng, folder) if rng.random() < 0.7 else None
        self.cache = KVCache(self.runner, num_cells, num_scratch=NUM_IDS, tiers=tiers)
        self.chats = [EditedChat(rng) for _ in range(rng.randint(1, 2))]
        self.longest = min(900, num_cells * 2 // 3)
        self.turns: list[Turn] = []

    def _tiers(self, rng: Random, folder: Path) -> Tiers:
        disk = DiskCache(folder, 1 << 20, f"{rng.random()}") if rng.random() < 0.3 else None
        tiers = Tiers(self.runner, rng.choice((15000, 60000)), disk)
        for _ in range(40):
            tiers.learn(1, 1.0)
        return tiers

    def step(self) -> None:
        """Edits a chat and begins its turn; some turns, any of them, go on, and some end."""
        chat = self.rng.choice(self.chats)
        for _ in range(self.rng.randint(1, 3)):
            self.seen[chat.edit()] += 1
        chat.fit(self.longest)
        self._begin(chat)
        for _ in range(self.rng.randrange(12)):
            if self.turns:
                self._advance(self.rng.choice(self.turns))
                self.check()
        while self.turns and self.rng.random() < 0.8:
            self._end(self.rng.choice(self.turns), keep=self.rng.random() < 0.9)
            self.check()
        if not self.turns and self.rng.random() < 0.4:
            self._refresh()
        self.check_exact()

    def _begin(self, chat: EditedChat) -> None:
        policy = self.rng.choice((Policy.EXACT, Policy.AUTO, Policy.FAST, Policy.TURBO))
        tokens = chat.prompt()
        lease = self.cache.lease(tokens, policy, chat.speaker)
        self.check()
        if lease is None:
            assert len(self.turns) == NUM_IDS
            self.seen["no id"] += 1
            return
        self.seen["restored"] += lease.num_restored > 0
        self.turns.append(Turn(lease.sequence_id, tokens))

    def _refresh(self) -> None:
        """Reads the newest approximate prompt again, as idle time does; the next step may stop
        it."""
        tokens = self.cache.stale_base()
        if tokens is None:
            return
        lease = self.cache.lease(tokens)
        assert lease is not None
        self.seen["refresh"] += 1
        turn = Turn(lease.sequence_id, tokens, is_refresh=True)
        self.turns.append(turn)
        for _ in range(self.rng.randrange(12)):
            if turn in self.turns:
                self._advance(turn)
                self.check()

    def _advance(self, turn: Turn) -> None:
        """Reads a slice of the prompt; behind it decodes, branches, takes back."""
        length, num_prompt = self.cache.length(turn.place), len(turn.tokens)
        if length < num_prompt:
            self.seen["hole"] += (stop := self.cache.next_stop(turn.place)) is not None
            stop = min(stop or num_prompt, length + SLICE)
            assert stop > length
            if self._read(turn, turn.tokens[length:stop]):
                self.seen["attached"] += self.cache.attach(turn.place) > 0
                if turn.is_refresh:
                    self.cache.make_exact(turn.place)
            return
        assert self.runner.tokens(turn.place)[:num_prompt] == turn.tokens
        if turn.is_refresh:
            self._end(turn)
            same = [base for base in self.cache._bases if base.tokens == turn.tokens]
            assert not any(base.is_stale for base in same if not base.in_use)
        elif self.rng.random() < 0.2:
            self._branch(turn)
        elif self.rng.random() < 0.2 and length > num_prompt:
            assert self.cache.take_back(turn.place, num_prompt)
        else:
            self._read(turn, [self.rng.randrange(3, 200)])

    def _branch(self, turn: Turn) -> None:
        branch = self.cache.fork(turn.place)
        if branch is not None:
            self.seen["branch"] += 1
            self.turns.append(Turn(branch, turn.tokens))

    def _read(self, turn: Turn, tokens: list[int]) -> bool:
        """False, and the turn over, if the pool is full."""
        if evaluate(self.cache, self.runner, turn.place, tokens):
            return True
        self.seen["full"] += 1
        self._end(turn, keep=self.rng.random() < 0.5)
        return False

    def _end(self, turn: Turn, *, keep: bool = True) -> None:
        self.seen["cancelled"] += self.cache.length(turn.place) < len(turn.tokens)
        self.turns.remove(turn)
        self.cache.release(turn.place, keep=keep and not turn.is_refresh)

    def check(self) -> None:
        """The account equals the pool, cell by cell."""
        self.cache.check()
        pool = [self.runner.cells(i) for i in range(self.runner.num_sequence_ids)]
        num_used = len(set(chain.from_iterable(pool)))
        assert self.cache.num_used == self.runner.num_cells_used() == num_used
        pairs: set[tuple[int, Cell]] = set()
        for base, cells in zip(self.cache._bases, pool, strict=False):
            assert [cell.position for cell in cells] == list(range(len(base.tokens)))
            assert [cell.token_id for cell in cells] == base.tokens
            pairs.update(zip(base.cells, cells, strict=True))
        assert len(dict(pairs)) == len(pairs), "two bases disagree on what they share"
        assert len({cell for _, cell in pairs}) == len(pairs), "one cell counts as two"
        assert not pool[-1], "a piece is still on its way"

    def check_exact(self) -> None:
        """What is called exact holds what reading it from the start would leave there."""
        for sequence_id, base in enumerate(self.cache._bases):
            fresh = Memory()
            expected = [fresh.read(token) for token in base.tokens[: base.num_exact]]
            assert self.runner.contents(sequence_id)[: base.num_exact] == expected
            self.seen["approximate"] += base.num_exact < len(base.tokens)

    def close(self) -> None:
        for turn in list(self.turns):
            self._end(turn)
        self.cache.drop_idle()
        self.seen["brought"] += self.runner.loads[self.runner.num_sequence_ids - 1]
        assert self.runner.num_cells_used() == 0


EVENTS = frozenset(
    "insert delete move swipe branch cancelled full refresh restored brought attached"
    " approximate".split()
)


@pytest.mark.parametrize("part", range(4))
def test_account_equals_the_pool_after_every_edit(part: int, tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    for number in range(part, NUM_SEQUENCES, 4):
        trial = Trial(number, tmp_path, seen)
        try:
            for _ in range(NUM_STEPS):
                trial.step()
            trial.close()
        except Exception as error:
            raise AssertionError(f"sequence {number}: {error}") from error
    if NUM_SEQUENCES >= 200:
        assert set(seen) >= EVENTS, f"never happened: {EVENTS - set(seen)}"
