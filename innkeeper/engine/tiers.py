"""Where bases go that the pool has no room for: memory beside it, then disk.

A chat that comes back after others, after a restart or after another model, is then not read again:
its state is copied back into the pool, as a base like any other, if that is quicker than reading.
Both tiers are bounded; on disk the least recently used goes first.
"""

import queue
import sys
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from innkeeper.engine.bases import Base, SavedBase
from innkeeper.engine.disk_cache import DiskCache, DiskState
from innkeeper.engine.reuse import Policy, common_prefix, plan_reuse
from innkeeper.engine.runner import Runner, State
from innkeeper.errors import EngineError

MIN_TOKENS = 256
"""Shorter bases are read again quickly enough."""
MIN_NEW = 64
"""A base is written again once it has this many tokens beyond what is on disk."""
_MAX_PLANNED = 4
"""Stored bases, those with the longest common start first, that edits are looked for in."""
_RAM_BYTES_PER_SECOND = 1.5e9
_DISK_BYTES_PER_SECOND = 4e8
_TOKEN_SECONDS = 1e-3
"""Guesses, until something was measured."""


class Found(NamedTuple):
    """A stored base that leaves less to read than the pool does."""

    stored: SavedBase | DiskState
    num_reused: int


class Tiers:
    """Used by the loop's thread; files are written on another one."""

    def __init__(self, runner: Runner, ram_bytes: int, disk: DiskCache | None) -> None:
        self._runner = runner
        self.ram_bytes = ram_bytes
        self._num_reserved = 0
        self._in_ram: list[SavedBase] = []
        """Least recently used first."""
        self.disk = disk
        self._speeds = {SavedBase: _RAM_BYTES_PER_SECOND, DiskState: _DISK_BYTES_PER_SECOND}
        self._token_seconds = _TOKEN_SECONDS
        self._can_save = True
        self._writer = _Writer(disk) if disk is not None else None

    @property
    def in_ram(self) -> Sequence[SavedBase]:
        """The bases in memory, those used last first."""
        return self._in_ram[::-1]

    @property
    def num_ram_bytes(self) -> int:
        return self._num_reserved + sum(each.num_bytes for each in self._in_ram)

    @property
    def num_disk_bytes(self) -> int:
        return self.disk.num_bytes() if self.disk is not None else 0

    def learn(self, num_tokens: int, seconds: float) -> None:
        """What reading takes, so that loading can be weighed against it."""
        self._token_seconds += 0.2 * (seconds / num_tokens - self._token_seconds)

    def tokens_worth(self, num_bytes: int) -> int:
        """How many tokens are read in the time that copying ``num_bytes`` takes in memory."""
        return int(num_bytes / _RAM_BYTES_PER_SECOND / max(self._token_seconds, 1e-9))

    @property
    def most_reserved(self) -> int:
        """Bytes: half of the memory, so that chats that left the pool have the rest."""
        return self.ram_bytes // 2

    def reserve(self, num_bytes: int) -> None:
        """Leaves a part of the memory to what is kept beside the pool: the attic of a model whose
        cache can be edited, the checkpoints of another."""
        self._num_reserved = num_bytes
        self._bound()

    def save(self, sequence_id: int) -> State | None:
        """What the runner holds of a sequence; None, and nothing tried again, if it refuses."""
        if not self._can_save:
            return None
        try:
            return self._runner.save(sequence_id)
        except (EngineError, MemoryError) as error:
            print(f"a chat could not be saved, and no other will be: {error}", file=sys.stderr)
            self._can_save = False
            return None

    def copy(self, sequence_id: int, base: Base) -> SavedBase | None:
        """What ``keep`` takes of a base that leaves the pool; None if it is stored already."""
        if not self._is_worth_it(base) or (state := self.save(sequence_id)) is None:
            return None
        return base.saved(state)

    def keep(self, copied: SavedBase) -> None:
        """Keeps a base in memory, and writes to disk what it has no room for any more."""
        self._in_ram.append(copied)
        self._bound()

    def best(
        self, tokens: Sequence[int], policy: Policy, speaker: str, beyond: int
    ) -> Found | None:
        """The stored base that serves more of ``tokens`` than ``beyond``, and enough more that
        loading it takes less time than reading."""
        if len(tokens) - beyond < MIN_NEW:
            return None
        stored: list[SavedBase | DiskState] = [*self._in_ram, *self._on_disk()]
        ranked = sorted(stored, key=lambda each: -self._reachable(each, tokens))
        best: Found | None = None
        for each in ranked[:_MAX_PLANNED]:
            num_reused = self._num_reused(each, tokens, policy, speaker)
            gain = num_reused - (best.num_reused if best else beyond)
            if gain >= MIN_NEW and self._load_seconds(each) < gain * self._token_seconds:
                best = Found(each, num_reused)
        return best

    def load(self, stored: SavedBase | DiskState, sequence_id: int) -> SavedBase | None:
        """Copies a stored base to an empty sequence. None if it turns out to be unusable."""
        started = time.perf_counter()
        if isinstance(stored, SavedBase):
            self._in_ram = [each for each in self._in_ram if each is not stored]
            found: SavedBase | None = stored
        else:
            found = self.disk.read(stored) if self.disk is not None else None
        if found is None or not self._runner.load(sequence_id, found.state):
            if isinstance(stored, DiskState) and self.disk is not None:
                self.disk.drop(stored)
            return None
        speed = stored.num_bytes / max(1e-6, time.perf_counter() - started)
        self._speeds[type(stored)] += 0.5 * (speed - self._speeds[type(stored)])
        return found

    def wants(self, base: Base) -> bool:
        """Whether a base has enough in it that is not on disk."""
        can_write = self._writer is not None and not self._writer.has_failed
        return can_write and self._is_worth_it(base, is_for_disk=True)

    def write(self, sequence_id: int, base: Base) -> int:
        """Begins to write a base to disk; the number of bytes, 0 if it cannot be now."""
        if self._writer is None or not self._writer.is_idle.is_set():
            return 0
        if (state := self.save(sequence_id)) is None:
            return 0
        written = base.saved(state)
        self._writer.offer(written)
        return written.num_bytes

    def forget(self, tokens: Sequence[int]) -> None:
        """Drops what is stored of a chat: earlier moments of ``tokens``, and later ones."""

        def is_of_it(stored: SavedBase | DiskState) -> bool:
            shorter = min(len(stored.tokens), len(tokens))
            return common_prefix(stored.tokens, tokens) >= shorter

        self._in_ram = [each for each in self._in_ram if not is_of_it(each)]
        for each in self._on_disk():
            if self.disk is not None and is_of_it(each):
                self.disk.drop(each)

    def flush(self, deadline: float) -> None:
        """Writes what is in memory, newest first, until ``time.monotonic()`` is ``deadline``."""
        for each in reversed(self._in_ram):
            if self.wait(deadline) and self._writer is not None:
                self._writer.offer(each)
        self.wait(deadline)

    def wait(self, deadline: float) -> bool:
        """Waits for what is being written; False at the deadline."""
        seconds = max(0.0, deadline - time.monotonic())
        return self._writer is None or self._writer.is_idle.wait(seconds)

    def _is_worth_it(self, base: Base, *, is_for_disk: bool = False) -> bool:
        """Whether much of ``base`` would be lost with it."""
        if not self._can_save or base.is_remnant or len(base.tokens) < MIN_TOKENS:
            return False
        stored: list[SavedBase | DiskState] = [*self._on_disk()]
        stored += [] if is_for_disk else self._in_ram
        at_least_as_exact = (
            each for each in stored if each.num_exact >= min(base.num_exact, len(each.tokens))
        )
        num_stored = max(
            (self._reachable(each, base.tokens) for each in at_least_as_exact), default=0
        )
        return len(base.tokens) - num_stored >= MIN_NEW

    def _num_reused(
        self, stored: SavedBase | DiskState, tokens: Sequence[int], policy: Policy, speaker: str
    ) -> int:
        plan = plan_reuse(
            stored.tokens,
            tokens,
            policy,
            num_exact=stored.num_exact,
            speakers=(stored.speaker, speaker),
        )
        if self._runner.can_cut and self._runner.can_edit:
            return plan.num_reused()
        return self._reachable(stored, tokens[: plan.prefix])

    def _reachable(self, stored: SavedBase | DiskState, tokens: Sequence[int]) -> int:
        """How many of the first ``tokens`` a stored base can be cut back to."""
        prefix = common_prefix(stored.tokens, tokens)
        if self._runner.can_cut or prefix == len(stored.tokens):
            return prefix
        return max((cut for cut in stored.cuts if cut <= prefix), default=0)

    def _bound(self) -> None:
        while self._in_ram and self.num_ram_bytes > self.ram_bytes:
            oldest = self._in_ram.pop(0)
            if self._writer is not None:
                self._writer.offer(oldest)

    def _on_disk(self) -> list[DiskState]:
        return self.disk.states() if self.disk is not None else []

    def _load_seconds(self, stored: SavedBase | DiskState) -> float:
        return stored.num_bytes / self._speeds[type(stored)]


class _Writer:
    """The thread that writes, one state at a time."""

    def __init__(self, disk: DiskCache) -> None:
        self.is_idle = threading.Event()
        self.is_idle.set()
        self.has_failed = False
        """Whether a write did not succeed: nothing more is tried."""
        self._disk = disk
        self._jobs: queue.SimpleQueue[SavedBase] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="cache writer", daemon=True).start()

    def offer(self, state: SavedBase) -> bool:
        """False, and nothing done, while another one is being written: memory is bounded."""
        if not self.is_idle.is_set():
            return False
        self.is_idle.clear()
        self._jobs.put(state)
        return True

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                if not self._disk.write(job):
                    self.has_failed = True
            except OSError as error:
                self.has_failed = True
                print(f"the cache could not be written: {error}", file=sys.stderr)
            finally:
                del job
                self.is_idle.set()
