"""Our own account of the KV pool: which sequence holds which tokens, in how many cells.

llama.cpp aborts the process on a broken precondition, so every place is counted here before the
runner is asked. A cell holds one token at one position; ``copy`` lets sequences share cells, and a
shared cell is free only when the last of them lets go.

No client names its chat, so finished sequences stay behind as anonymous bases, least recently used
first out, and a new prompt resumes from the base with the longest common prefix.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from innkeeper.engine.runner import Runner

_COMPARE_CHUNK = 256


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Number of tokens at the start that are equal. Compares slices: 32k tokens in well under
    a millisecond."""
    limit = min(len(left), len(right))
    start = 0
    while (
        start < limit
        and left[start : start + _COMPARE_CHUNK] == right[start : start + _COMPARE_CHUNK]
    ):
        start += _COMPARE_CHUNK
    end = min(start + _COMPARE_CHUNK, limit)
    while start < end and left[start] == right[start]:
        start += 1
    return min(start, limit)


@dataclass
class Base:
    """What one sequence id holds: ``tokens[i]`` is in ``cells[i]``."""

    tokens: list[int] = field(default_factory=list)
    cells: list[int] = field(default_factory=list)
    in_use: bool = False
    last_used: int = 0


class Lease(NamedTuple):
    """A sequence id handed out, with the first ``num_cached`` tokens already in its cache."""

    sequence_id: int
    num_cached: int


class KVCache:
    """Hands out sequence ids and cells. Owned by the loop's thread."""

    def __init__(self, runner: Runner, num_cells: int) -> None:
        self.num_cells = num_cells
        self._runner = runner
        self._bases = [Base() for _ in range(runner.num_sequence_ids)]
        self._holders = [0] * num_cells
        self._free = list(range(num_cells - 1, -1, -1))
        self._clock = 0

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_used(self) -> int:
        return self.num_cells - len(self._free)

    @property
    def num_kept(self) -> int:
        return sum(1 for base in self._bases if base.tokens and not base.in_use)

    def length(self, sequence_id: int) -> int:
        """Tokens of the sequence that are in the cache."""
        return len(self._bases[sequence_id].tokens)

    def num_reclaimable(self) -> int:
        """Cells that are free, or would be after every idle base was dropped."""
        held = {cell for base in self._bases if base.in_use for cell in base.cells}
        return self.num_cells - len(held)

    def num_new_cells(self, tokens: Sequence[int]) -> int:
        """Cells that ``tokens`` would take beyond those that sequences in use hold already."""
        source_id, length = self._best_source(tokens)
        shared = length if source_id is not None and self._bases[source_id].in_use else 0
        return len(tokens) - shared

    def lease(self, tokens: Sequence[int]) -> Lease | None:
        """A sequence id to evaluate ``tokens`` in, resumed from the best base.

        At least the last token is always left to evaluate, since its logits are needed. None if
        every id is in use.
        """
        source_id, length = self._best_source(tokens)
        source = self._bases[source_id] if source_id is not None else None
        if source_id is not None and source is not None and not source.in_use:
            if length == len(source.tokens):
                return self._hand_out(source_id, length)
        target_id = self._empty_id(spare=source_id)
        if target_id is None:
            if source_id is not None and source is not None and not source.in_use:
                self._cut(source_id, length)
                return self._hand_out(source_id, length)
            target_id = self._empty_id()
            if target_id is None:
                return None
            return self._hand_out(target_id, 0)
        if source_id is not None:
            self._share(source_id, target_id, length)
        return self._hand_out(target_id, length if source_id is not None else 0)

    def fork(self, sequence_id: int) -> int | None:
        """Another id in use that shares all of ``sequence_id``'s cells; None if there is none."""
        target_id = self._empty_id()
        if target_id is None:
            return None
        self._share(sequence_id, target_id, self.length(sequence_id))
        return self._hand_out(target_id, 0).sequence_id

    def make_room(self, num_cells: int) -> bool:
        """Drops idle bases, oldest first, until ``num_cells`` are free. False if impossible."""
        while len(self._free) < num_cells:
            victim_id = self._oldest_idle()
            if victim_id is None:
                return False
            self._clear(victim_id)
        return True

    def drop_idle(self) -> int:
        """Drops every idle base; returns how many there were."""
        idle = [i for i, base in enumerate(self._bases) if base.tokens and not base.in_use]
        for sequence_id in idle:
            self._clear(sequence_id)
        return len(idle)

    def append(self, sequence_id: int, tokens: Sequence[int]) -> None:
        """Records tokens that the runner has just evaluated; ``make_room`` came before."""
        base = self._bases[sequence_id]
        base.tokens.extend(tokens)
        for _ in tokens:
            cell = self._free.pop()
            self._holders[cell] = 1
            base.cells.append(cell)

    def release(self, sequence_id: int, *, keep: bool = True) -> None:
        """Ends the use of an id; its tokens stay as an idle base if ``keep``."""
        base = self._bases[sequence_id]
        base.in_use = False
        self._touch(base)
        if not keep:
            self._clear(sequence_id)

    def check(self) -> None:
        """Raises AssertionError if the account contradicts itself. For tests and idle moments."""
        holders = [0] * self.num_cells
        for base in self._bases:
            assert len(base.tokens) == len(base.cells), "a token without a cell"
            for cell in base.cells:
                holders[cell] += 1
        assert holders == self._holders, "holders miscounted"
        free = sorted(self._free)
        assert free == [i for i, count in enumerate(holders) if count == 0], "free list wrong"

    def _best_source(self, tokens: Sequence[int]) -> tuple[int | None, int]:
        best_id, best_length = None, 0
        limit = len(tokens) - 1
        for sequence_id, base in enumerate(self._bases):
            length = min(common_prefix(base.tokens, tokens), limit)
            if length <= best_length:
                continue
            if self._runner.can_resume(sequence_id, length, len(base.tokens)):
                best_id, best_length = sequence_id, length
        return best_id, best_length

    def _empty_id(self, spare: int | None = None) -> int | None:
        """An id without tokens; the oldest idle base but ``spare`` is dropped if none is left."""
        for sequence_id, base in enumerate(self._bases):
            if not base.tokens and not base.in_use:
                return sequence_id
        victim_id = self._oldest_idle(spare)
        if victim_id is not None:
            self._clear(victim_id)
        return victim_id

    def _oldest_idle(self, spare: int | None = None) -> int | None:
        idle = [
            (base.last_used, sequence_id)
            for sequence_id, base in enumerate(self._bases)
            if base.tokens and not base.in_use and sequence_id != spare
        ]
        return min(idle)[1] if idle else None

    def _hand_out(self, sequence_id: int, num_cached: int) -> Lease:
        base = self._bases[sequence_id]
        base.in_use = True
        self._touch(base)
        return Lease(sequence_id, num_cached)

    def _touch(self, base: Base) -> None:
        self._clock += 1
        base.last_used = self._clock

    def _share(self, source_id: int, target_id: int, length: int) -> None:
        source, target = self._bases[source_id], self._bases[target_id]
        self._runner.copy(source_id, target_id, length)
        target.tokens = source.tokens[:length]
        target.cells = source.cells[:length]
        for cell in target.cells:
            self._holders[cell] += 1
        if not source.in_use:
            self._touch(source)

    def _cut(self, sequence_id: int, length: int) -> None:
        base = self._bases[sequence_id]
        self._runner.remove(sequence_id, length)
        for cell in base.cells[length:]:
            self._holders[cell] -= 1
            if self._holders[cell] == 0:
                self._free.append(cell)
        del base.tokens[length:], base.cells[length:]

    def _clear(self, sequence_id: int) -> None:
        self._cut(sequence_id, 0)
