"""Our own account of the KV pool: which sequence holds which tokens, in how many cells.

llama.cpp aborts the process on a broken precondition, so every place is counted here before the
runner is asked. A cell holds one token at one position; ``copy`` lets sequences share cells, and a
shared cell is free only when the last of them lets go.

No client names its chat, so finished sequences stay behind as anonymous bases, least recently used
first out. A new prompt goes on from the base that leaves the least to evaluate: by its longest
common prefix, or by an edit (``reuse``) that also keeps chunks further back.

An edit needs holes to be evaluated before the chunks behind them are in place, since llama.cpp
evaluates at a sequence's end only. So the chunks are parked on a scratch id, moved there, and
attached one after the other as the sequence grows up to them.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

from innkeeper.engine.bases import Base, Parked
from innkeeper.engine.reuse import Chunk, Policy, ReusePlan, common_prefix
from innkeeper.engine.runner import Runner
from innkeeper.engine.sources import Source, Sources, best_prefix, find_sources
from innkeeper.engine.tiers import MIN_NEW, Tiers


class Lease(NamedTuple):
    """A sequence id handed out, with the first ``num_cached`` tokens already in its cache."""

    sequence_id: int
    num_cached: int
    num_exact: int
    """How many of ``num_cached`` are exact."""
    num_restored: int = 0
    """Tokens that came from memory or disk, and would have been read without."""


class KVCache:
    """Hands out sequence ids and cells. Owned by the loop's thread.

    tiers: where bases go that the pool has no room for; None = nowhere.
    """

    def __init__(
        self, runner: Runner, num_cells: int, num_scratch: int = 0, tiers: Tiers | None = None
    ) -> None:
        num_scratch = num_scratch if runner.can_edit else 0
        num_bases = runner.num_sequence_ids - num_scratch
        self.num_cells = num_cells
        self.tiers = tiers
        self._runner = runner
        self._bases = [Base() for _ in range(num_bases)]
        self._scratch_ids = list(range(num_bases, runner.num_sequence_ids))
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
        held = {cell for base in self._bases if base.in_use for cell in base.all_cells()}
        return self.num_cells - len(held)

    def num_new_cells(self, tokens: Sequence[int]) -> int:
        """Cells that ``tokens`` would take beyond those that sequences in use hold already."""
        source = best_prefix(self._bases, self._runner, tokens, Policy.FAST)
        shared = source.plan.prefix if source and self._bases[source.sequence_id].in_use else 0
        return len(tokens) - shared

    def lease(self, tokens: Sequence[int], policy: Policy = Policy.EXACT) -> Lease | None:
        """A sequence id to evaluate ``tokens`` in, resumed from the best base.

        At least the last token is always left to evaluate, since its logits are needed. Chunks
        that ``policy`` lets move are parked; ``attach`` puts them in place. None if every id is in
        use.
        """
        sources = find_sources(self._bases, self._runner, tokens, policy)
        if num_restored := self._restore(tokens, policy, sources.num_reused()):
            sources = find_sources(self._bases, self._runner, tokens, policy)
        lease = self._lease(sources)
        return lease._replace(num_restored=num_restored) if lease else None

    def next_stop(self, sequence_id: int) -> int | None:
        """The position where a parked chunk goes on; None if none waits."""
        parked = self._bases[sequence_id].parked
        return parked[0].target if parked else None

    def attach(self, sequence_id: int) -> int:
        """Puts the parked chunk in place that begins where the sequence ends; its length, or 0."""
        base = self._bases[sequence_id]
        if not base.parked or base.parked[0].target != len(base.tokens):
            return 0
        start, tokens, cells = base.parked.pop(0)
        self._runner.copy(base.scratch_id, sequence_id, start, start + len(tokens))
        base.tokens.extend(tokens)
        base.cells.extend(cells)
        if not base.parked:
            self._unpark(base)
        return len(tokens)

    def stale_base(self) -> list[int] | None:
        """Tokens of the most recent idle base of which a part is approximate, if an exact copy
        can be made beside it without dropping anything."""
        idle = [base for base in self._bases if base.tokens and not base.in_use]
        stale = [base for base in idle if base.num_exact < len(base.tokens) and not base.is_remnant]
        newest = max(stale, key=lambda base: base.last_used, default=None)
        if newest is None:
            return None
        source = best_prefix(self._bases, self._runner, newest.tokens, Policy.EXACT)
        num_new = len(newest.tokens) - (source.plan.prefix if source else 0)
        has_id = any(not base.tokens and not base.in_use for base in self._bases)
        return list(newest.tokens) if has_id and len(self._free) >= num_new else None

    def drop_stale(self, tokens: Sequence[int]) -> None:
        """Drops idle bases of exactly ``tokens`` that are not exact."""
        for sequence_id, base in enumerate(self._bases):
            is_stale = base.num_exact < len(base.tokens) and not base.in_use
            if is_stale and base.tokens == list(tokens):
                self._clear(sequence_id)

    def fork(self, sequence_id: int) -> int | None:
        """Another id in use that shares all of ``sequence_id``'s cells; None if there is none."""
        target_id = self._empty_id()
        if target_id is None:
            return None
        self._share(sequence_id, target_id, self.length(sequence_id))
        return self._hand_out(target_id).sequence_id

    def make_room(self, num_cells: int) -> bool:
        """Drops idle bases, oldest first, until ``num_cells`` are free. False if impossible."""
        while len(self._free) < num_cells:
            victim_id = self._oldest_idle()
            if victim_id is None:
                return False
            self._retire(victim_id)
        return True

    def drop_idle(self) -> int:
        """Drops every idle base; returns how many there were."""
        idle = self._idle_ids()
        for sequence_id in idle:
            self._clear(sequence_id)
        return len(idle)

    def observe(self, num_tokens: int, seconds: float) -> None:
        """Learns what reading ``num_tokens`` took."""
        if self.tiers is not None:
            self.tiers.learn(num_tokens, seconds)

    def has_unwritten(self) -> bool:
        """Whether much of an idle base is not on disk."""
        return self._newest_unwritten() is not None

    def write_one(self) -> int:
        """Begins to write the newest such base; the number of bytes, 0 if nothing was done."""
        newest = self._newest_unwritten()
        if self.tiers is None or newest is None:
            return 0
        return self.tiers.write(newest, self._bases[newest])

    def close(self, seconds: float) -> None:
        """Writes what would be lost to disk, newest first, for about ``seconds`` at most."""
        if self.tiers is None:
            return
        deadline = time.monotonic() + seconds
        while self.tiers.wait(deadline) and self.write_one():
            pass
        self.tiers.flush(deadline)

    def append(self, sequence_id: int, tokens: Sequence[int]) -> None:
        """Records tokens that the runner has just evaluated; ``make_room`` came before."""
        base = self._bases[sequence_id]
        if base.num_exact == len(base.tokens):
            base.num_exact += len(tokens)
        base.tokens.extend(tokens)
        for _ in tokens:
            cell = self._free.pop()
            self._holders[cell] = 1
            base.cells.append(cell)

    def can_take_back(self, sequence_id: int, count: int) -> bool:
        """Whether the last ``count`` tokens of a sequence can be cut off."""
        length = self.length(sequence_id)
        return self._runner.can_resume(sequence_id, max(0, length - count), length)

    def take_back(self, sequence_id: int, length: int) -> bool:
        """Cuts a sequence in use to its first ``length`` tokens; False if that cannot be."""
        if not self._runner.can_resume(sequence_id, length, self.length(sequence_id)):
            return False
        self._cut(sequence_id, length)
        return True

    def release(self, sequence_id: int, *, keep: bool = True) -> None:
        """Ends the use of an id; its tokens stay as an idle base if ``keep``."""
        base = self._bases[sequence_id]
        if keep:
            self._close_up(sequence_id)
        self._unpark(base)
        base.in_use = False
        self._touch(base)
        if not keep:
            self._clear(sequence_id)

    def check(self) -> None:
        """Raises AssertionError if the account contradicts itself. For tests and idle moments."""
        holders = [0] * self.num_cells
        for base in self._bases:
            assert len(base.tokens) == len(base.cells), "a token without a cell"
            assert base.num_exact <= len(base.tokens), "more exact tokens than tokens"
            assert base.in_use or not base.parked, "an idle base with parked chunks"
            for cell in base.all_cells():
                holders[cell] += 1
        assert holders == self._holders, "holders miscounted"
        free = sorted(self._free)
        assert free == [i for i, count in enumerate(holders) if count == 0], "free list wrong"

    def _lease(self, sources: Sources) -> Lease | None:
        edit = sources.edit
        if edit is not None and self._scratch_ids and self._edit(edit.sequence_id, edit.plan):
            return self._hand_out(edit.sequence_id)
        return self._lease_prefix(sources.prefix)

    def _restore(self, tokens: Sequence[int], policy: Policy, num_held: int) -> int:
        """Brings a base back into the pool that serves more of ``tokens`` than the ``num_held``
        that the pool can; how many more."""
        found = self.tiers.best(tokens, policy, num_held) if self.tiers else None
        if self.tiers is None or found is None:
            return 0
        stored = found.stored
        if not self.make_room(len(stored.tokens)) or (target_id := self._empty_id()) is None:
            return 0
        if not self.tiers.load(stored, target_id):
            return 0
        self.append(target_id, stored.tokens)
        base = self._bases[target_id]
        base.num_exact = stored.num_exact
        self._touch(base)
        return found.num_reused - num_held

    def _lease_prefix(self, source: Source | None) -> Lease | None:
        if source is None:
            target_id = self._empty_id()
            return None if target_id is None else self._hand_out(target_id)
        sequence_id, length = source.sequence_id, source.plan.prefix
        base = self._bases[sequence_id]
        if not base.in_use and length == len(base.tokens):
            return self._hand_out(sequence_id)
        target_id = self._empty_id(spare=sequence_id)
        if target_id is not None:
            self._share(sequence_id, target_id, length)
            return self._hand_out(target_id)
        if base.in_use:
            return None
        self._cut(sequence_id, length)
        return self._hand_out(sequence_id)

    def _edit(self, sequence_id: int, plan: ReusePlan) -> bool:
        """Cuts an idle base to the plan's prefix and parks its chunks at their new positions.

        False, and nothing done, if a running sequence shares a cell that would have to move.
        """
        base = self._bases[sequence_id]
        moving = [chunk for chunk in plan.chunks if chunk.shift]
        if not self._own_cells(sequence_id, moving):
            return False
        scratch_id = self._scratch_ids.pop()
        parked = []
        for source, target, length in plan.chunks:
            self._runner.copy(sequence_id, scratch_id, source, source + length)
            cells = base.cells[source : source + length]
            for cell in cells:
                self._holders[cell] += 1
            parked.append(Parked(target, base.tokens[source : source + length], cells))
        self._cut(sequence_id, plan.prefix)
        # Leftward moves first, from the left; then the others from the right: none lands on
        # a chunk that has not moved yet.
        left = [chunk for chunk in moving if chunk.shift < 0]
        right = [chunk for chunk in reversed(moving) if chunk.shift > 0]
        for chunk in [*left, *right]:
            end = chunk.source + chunk.length
            self._runner.shift(scratch_id, chunk.source, end, chunk.shift)
        base.parked, base.scratch_id = parked, scratch_id
        return True

    def _own_cells(self, sequence_id: int, chunks: Sequence[Chunk]) -> bool:
        """Makes the chunks' cells private to the base by dropping idle bases that share them."""
        cells = self._bases[sequence_id].cells
        wanted = {cell for c in chunks for cell in cells[c.source : c.source + c.length]}
        sharers = [
            (other_id, other)
            for other_id, other in enumerate(self._bases)
            if other_id != sequence_id and not wanted.isdisjoint(other.all_cells())
        ]
        if any(other.in_use for _, other in sharers):
            return False
        for other_id, _ in sharers:
            self._clear(other_id)
        return True

    def _close_up(self, sequence_id: int) -> None:
        """Joins parked chunks to the end of a sequence whose prompt was cut short, over the holes
        that were not read. It is nobody's prompt, but the next one finds its chunks in it."""
        base = self._bases[sequence_id]
        base.is_remnant = bool(base.parked)
        while base.parked:
            start, tokens, cells = base.parked[0]
            end = len(base.tokens)
            if start != end:
                if any(self._holders[cell] > 1 for cell in cells):
                    return
                self._runner.shift(base.scratch_id, start, start + len(tokens), end - start)
            self._runner.copy(base.scratch_id, sequence_id, end, end + len(tokens))
            base.tokens.extend(tokens)
            base.cells.extend(cells)
            del base.parked[0]

    def _unpark(self, base: Base) -> None:
        """Gives the scratch id back; chunks that were not attached are dropped."""
        if base.scratch_id < 0:
            return
        self._runner.remove(base.scratch_id, 0)
        for parked in base.parked:
            self._let_go(parked.cells)
        self._scratch_ids.append(base.scratch_id)
        base.parked, base.scratch_id = [], -1

    def _empty_id(self, spare: int | None = None) -> int | None:
        """An id without tokens; the oldest idle base but ``spare`` is dropped if none is left."""
        for sequence_id, base in enumerate(self._bases):
            if not base.tokens and not base.in_use:
                return sequence_id
        victim_id = self._oldest_idle(spare)
        if victim_id is not None:
            self._retire(victim_id)
        return victim_id

    def _idle_ids(self) -> list[int]:
        return [i for i, base in enumerate(self._bases) if base.tokens and not base.in_use]

    def _newest_unwritten(self) -> int | None:
        waiting = [i for i in self._idle_ids() if self.tiers and self.tiers.wants(self._bases[i])]
        return max(waiting, key=lambda i: self._bases[i].last_used, default=None)

    def _oldest_idle(self, spare: int | None = None) -> int | None:
        idle = [i for i in self._idle_ids() if i != spare]
        return min(idle, key=lambda i: self._bases[i].last_used, default=None)

    def _hand_out(self, sequence_id: int) -> Lease:
        base = self._bases[sequence_id]
        base.in_use, base.is_remnant = True, False
        self._touch(base)
        return Lease(sequence_id, len(base.tokens), base.num_exact)

    def _touch(self, base: Base) -> None:
        self._clock += 1
        base.last_used = self._clock

    def _share(self, source_id: int, target_id: int, length: int) -> None:
        source, target = self._bases[source_id], self._bases[target_id]
        self._runner.copy(source_id, target_id, 0, length)
        target.num_exact = min(source.num_exact, length)
        target.tokens = source.tokens[:length]
        target.cells = source.cells[:length]
        for cell in target.cells:
            self._holders[cell] += 1
        if not source.in_use:
            self._touch(source)

    def _cut(self, sequence_id: int, length: int) -> None:
        base = self._bases[sequence_id]
        self._runner.remove(sequence_id, length)
        self._let_go(base.cells[length:])
        del base.tokens[length:], base.cells[length:]
        base.num_exact = min(base.num_exact, length)

    def _let_go(self, cells: Sequence[int]) -> None:
        for cell in cells:
            self._holders[cell] -= 1
            if self._holders[cell] == 0:
                self._free.append(cell)

    def _retire(self, sequence_id: int) -> None:
        """Drops an idle base; what no other one holds goes to the tiers."""
        base = self._bases[sequence_id]
        others = (o.tokens for i, o in enumerate(self._bases) if i != sequence_id)
        num_shared = max((common_prefix(tokens, base.tokens) for tokens in others), default=0)
        if self.tiers is not None and len(base.tokens) - num_shared >= MIN_NEW:
            self.tiers.keep(sequence_id, base)
        self._clear(sequence_id)

    def _clear(self, sequence_id: int) -> None:
        self._cut(sequence_id, 0)
