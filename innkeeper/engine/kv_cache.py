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

from innkeeper.engine.bases import SHORT_TAIL, Base, SavedBase, newest_stale
from innkeeper.engine.catch_up import Behind, left_behind
from innkeeper.engine.cells import Cells
from innkeeper.engine.checkpoints import Checkpoints
from innkeeper.engine.disk_cache import DiskState
from innkeeper.engine.editor import NUM_OWN_IDS, Editor
from innkeeper.engine.reuse import Chunk, Policy, common_prefix
from innkeeper.engine.runner import Runner
from innkeeper.engine.sources import Source, Sources, best_prefix, find_sources
from innkeeper.engine.tiers import MIN_NEW, Tiers
from innkeeper.errors import EngineError, InvalidRequestError


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
        num_spare = num_scratch + NUM_OWN_IDS if runner.can_edit else 0
        num_bases = runner.num_sequence_ids - num_spare
        self.num_cells = num_cells
        self.tiers = tiers
        self._runner = runner
        self._bases = [Base() for _ in range(num_bases)]
        self._cells = Cells(num_cells)
        spare_ids = range(num_bases, runner.num_sequence_ids)
        self._editor = Editor(runner, self._cells, spare_ids, tiers)
        self._checkpoints = Checkpoints(runner, self._bases, tiers)
        self._clock = 0

    @property
    def num_free(self) -> int:
        return self._cells.num_free

    @property
    def num_used(self) -> int:
        return self.num_cells - self._cells.num_free

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

    def lease(
        self, tokens: Sequence[int], policy: Policy = Policy.EXACT, speaker: str = ""
    ) -> Lease | None:
        """A sequence id to evaluate ``tokens`` in, resumed from the best base.

        At least the last token is always left to evaluate, since its logits are needed. Chunks
        that ``policy`` lets move are parked; ``attach`` puts them in place. None if every id is in
        use.
        """
        parting = self._checkpoints.parting(tokens)
        sources = find_sources(self._bases, self._runner, tokens, policy, speaker)
        num_held, num_restored = sources.num_reused(), 0
        found = self.tiers.best(tokens, policy, speaker, num_held) if self.tiers else None
        if found is not None:
            if self._restore(found.stored):
                num_restored = found.num_reused - num_held
            # what made room for it, also if it did not come, may be what was found before
            sources = find_sources(self._bases, self._runner, tokens, policy, speaker)
        lease = self._lease(sources, tokens, policy, speaker)
        if lease is None:
            return None
        base = self._bases[lease.sequence_id]
        self._checkpoints.plan(lease.sequence_id, tokens, parting)
        if speaker:  # one that goes on with a reply names nobody, and is still the same
            base.speaker = speaker
        return lease._replace(num_restored=num_restored)

    def next_stop(self, sequence_id: int) -> int | None:
        """The position where reading must stop, for a parked chunk or a checkpoint."""
        base = self._bases[sequence_id]
        return min([*base.borders[:1], *(each.target for each in base.parked[:1])], default=None)

    def attach(self, sequence_id: int) -> int:
        """Puts the parked chunks in place that begin where the sequence ends; their length."""
        return self._editor.attach(sequence_id, self._bases[sequence_id])

    def stale_base(self) -> list[int] | None:
        """Tokens of the most recent idle base of which a part is approximate, if they can be read
        again, with ``make_exact`` behind each batch, without dropping another base."""
        newest = newest_stale(self._bases)
        if newest is None or not self._runner.can_edit:
            return None
        num_new = self._num_unread(newest.tokens, Policy.EXACT)
        if self._cells.are_private(newest.cells[newest.num_exact :]):  # each batch frees as many
            num_new = min(num_new, self._runner.max_rows)
        has_room = self._has_empty_id() and self.num_free >= num_new
        return list(newest.tokens) if has_room else None

    def left_behind(self) -> list[Behind]:
        """What the other speakers of the chat that was used last have not heard of it yet."""
        newest, *others = [self._bases[i] for i in self._whole_ids()] or [Base()]
        if not newest.speaker or not self._runner.can_edit or not self._runner.can_cut:
            return []
        return left_behind(newest, [*others, *(self.tiers.in_ram if self.tiers else ())])

    def has_room_to_read(self, tokens: Sequence[int]) -> bool:
        """Whether ``tokens`` can be read behind what is cached of them, without dropping a base."""
        num_new = self._num_unread(tokens, Policy.FAST)
        return self._has_empty_id() and self.num_free >= num_new + MIN_NEW

    def make_exact(self, sequence_id: int) -> None:
        """What a sequence has read takes the place of the same tokens of idle bases that have them
        approximately."""
        exact = self._bases[sequence_id]
        for other_id, base in enumerate(self._bases):
            end = min(common_prefix(base.tokens, exact.tokens), exact.num_exact)
            if end > base.num_exact and base.is_whole and not base.in_use:
                self._editor.replace(other_id, base, sequence_id, exact.cells[:end])

    def fork(self, sequence_id: int) -> int | None:
        """Another id in use that shares all of ``sequence_id``'s cells; None if there is none."""
        target_id = self._empty_id()
        if target_id is None:
            return None
        self._share(sequence_id, target_id, self.length(sequence_id))
        return self._hand_out(target_id).sequence_id

    def make_room(self, num_cells: int) -> bool:
        """Drops idle bases, oldest first, until ``num_cells`` are free. False if that is
        impossible."""
        while self.num_free < num_cells:
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

    def snapshot(self, slot: int) -> SavedBase:
        """A copy of the idle base ``slot``; 0 is the one that was used last.

        Raises: InvalidRequestError if there is none; EngineError if the library refuses.
        """
        sequence_id = self._slot(slot)
        if sequence_id is None:
            raise InvalidRequestError(
                f"slot {slot} holds no chat that has ended; {len(self._whole_ids())} are kept",
                field="id_slot",
                hint="0 is the chat that was read last",
            )
        return self._bases[sequence_id].saved(self._runner.save(sequence_id))

    def adopt(self, saved: SavedBase) -> None:
        """Makes a saved base the one that was used last. Raises: EngineError without room."""
        target_id = self._empty_id() if self.make_room(len(saved.tokens)) else None
        if target_id is None or not self._runner.load(target_id, saved.state):
            raise EngineError(
                f"the pool has no room for {len(saved.tokens)} tokens",
                hint="wait until the running replies end, or start with a larger --pool",
            )
        self._place(target_id, saved)

    def forget(self, slot: int) -> int:
        """Drops the idle base ``slot``, what is stored of its chat, and what fell out of any; the
        number of its tokens, 0 if there is none."""
        sequence_id = self._slot(slot)
        if sequence_id is None:
            return 0
        tokens = list(self._bases[sequence_id].tokens)
        self._clear(sequence_id)
        self._editor.attic.clear()
        if self.tiers is not None:
            self.tiers.forget(tokens)
        return len(tokens)

    def append(self, sequence_id: int, tokens: Sequence[int]) -> None:
        """Records tokens that the runner has just evaluated; ``make_room`` came before."""
        base = self._bases[sequence_id]
        if base.num_exact == len(base.tokens):
            base.num_exact += len(tokens)
        base.tokens.extend(tokens)
        base.cells += self._cells.take(len(tokens))
        self._checkpoints.reach(sequence_id)

    def can_take_back(self, sequence_id: int, count: int) -> bool:
        """Whether the last ``count`` tokens of a sequence can be cut off."""
        length = self.length(sequence_id)
        return self._runner.can_resume(sequence_id, max(0, length - count), length)

    def take_back(self, sequence_id: int, length: int) -> bool:
        """Cuts a sequence in use to its first ``length`` tokens; False if that cannot be."""
        if not self._runner.can_resume(sequence_id, length, self.length(sequence_id)):
            return False
        self._editor.cut(sequence_id, self._bases[sequence_id], length)
        return True

    def release(self, sequence_id: int, *, keep: bool = True) -> None:
        """Ends the use of an id; its tokens stay as an idle base if ``keep``."""
        base = self._bases[sequence_id]
        if keep:
            self._editor.close_up(sequence_id, base)
        self._editor.unpark(base)
        base.in_use, base.borders = False, []
        self._touch(base)
        if not keep:
            self._clear(sequence_id)

    def check(self) -> None:
        """Raises AssertionError if the account contradicts itself. For tests and idle moments."""
        held: list[int] = []
        for base in self._bases:
            assert len(base.tokens) == len(base.cells), "a token without a cell"
            assert base.num_exact <= len(base.tokens), "more exact tokens than tokens"
            assert base.in_use or not base.parked, "an idle base with parked chunks"
            held += base.all_cells()
        self._cells.check(held)

    def _lease(
        self, sources: Sources, tokens: Sequence[int], policy: Policy, speaker: str
    ) -> Lease | None:
        edit = sources.edit
        if edit is not None and self._editor.can_edit and self._edit(edit, tokens, policy, speaker):
            return self._hand_out(edit.sequence_id)
        return self._lease_prefix(sources.prefix, tokens)

    def _restore(self, stored: SavedBase | DiskState) -> bool:
        """Brings a base back into the pool. False if there is no room, or it is of no use."""
        if not self.make_room(len(stored.tokens)) or (target_id := self._empty_id()) is None:
            return False
        if self.tiers is None or (saved := self.tiers.load(stored, target_id)) is None:
            return False
        self._place(target_id, saved)
        return True

    def _place(self, target_id: int, saved: SavedBase) -> None:
        """Accounts for a state that the runner has loaded."""
        self.append(target_id, saved.tokens)
        base = self._bases[target_id]
        base.num_exact, base.speaker = saved.num_exact, saved.speaker
        base.is_whole = self._runner.can_resume(target_id, 1, len(saved.tokens))
        base.checkpoints = list(saved.checkpoints)
        self._touch(base)
        self._checkpoints.bound()

    def _lease_prefix(self, source: Source | None, tokens: Sequence[int]) -> Lease | None:
        if source is None:
            target_id = self._empty_id()
            return None if target_id is None else self._hand_out(target_id)
        sequence_id, length, checkpoint = source.sequence_id, source.plan.prefix, source.checkpoint
        base = self._bases[sequence_id]
        if not base.in_use and checkpoint is None and _is_outgrown(base, length, tokens):
            self._editor.cut(sequence_id, base, length)
            return self._hand_out(sequence_id)
        target_id = self._empty_id(spare=sequence_id)
        if target_id is not None:
            self._share(sequence_id, target_id, length)
        elif base.in_use:
            return None
        else:
            target_id = sequence_id
        if checkpoint is not None and not self._runner.rewind(target_id, length, checkpoint.state):
            base.checkpoints = [each for each in base.checkpoints if each is not checkpoint]
            length = 0
        self._editor.cut(target_id, self._bases[target_id], length)
        return self._hand_out(target_id)

    def _edit(self, edit: Source, tokens: Sequence[int], policy: Policy, speaker: str) -> bool:
        """Begins an edit of an idle base. False, and nothing done, if a running sequence shares a
        cell that would have to move."""
        sequence_id, plan = edit.sequence_id, edit.plan
        base = self._bases[sequence_id]
        if not self._own_cells(sequence_id, [chunk for chunk in plan.chunks if chunk.shift]):
            return False
        fills = self._editor.attic.fills(tokens, plan, None if policy is Policy.TURBO else speaker)
        num_needed = sum(len(fill.fragment.tokens) for fill in fills)
        base.in_use = True  # so that room is made of others; a cell is for settling shifts
        self.make_room(max(1, num_needed - (len(base.tokens) - plan.num_reused())))
        self._editor.edit(sequence_id, base, plan)
        self._editor.fill(base, fills)
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

    def _empty_id(self, spare: int | None = None) -> int | None:
        """An id without tokens; the oldest idle base but ``spare`` is dropped if none is left."""
        for sequence_id, base in enumerate(self._bases):
            if not base.tokens and not base.in_use:
                return sequence_id
        victim_id = self._oldest_idle(spare)
        if victim_id is not None:
            self._retire(victim_id)
        return victim_id

    def _num_unread(self, tokens: Sequence[int], policy: Policy) -> int:
        """How many of ``tokens`` are left to read behind the longest start that the pool has."""
        source = best_prefix(self._bases, self._runner, tokens, policy)
        return len(tokens) - (source.plan.prefix if source else 0)

    def _has_empty_id(self) -> bool:
        return any(not base.tokens and not base.in_use for base in self._bases)

    def _idle_ids(self) -> list[int]:
        return [i for i, base in enumerate(self._bases) if base.tokens and not base.in_use]

    def _whole_ids(self) -> list[int]:
        """Idle bases that are whole chats, the one that was used last first."""
        whole = [i for i in self._idle_ids() if not self._bases[i].is_remnant]
        return sorted(whole, key=lambda i: -self._bases[i].last_used)

    def _slot(self, slot: int) -> int | None:
        ids = self._whole_ids()
        return ids[slot] if slot < len(ids) else None

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
        target.copy_from(source, length)
        self._cells.hold(target.cells)
        if not source.in_use:
            self._touch(source)

    def _retire(self, sequence_id: int) -> None:
        """Drops an idle base; what no other one holds goes to the tiers."""
        base = self._bases[sequence_id]
        others = (o.tokens for i, o in enumerate(self._bases) if i != sequence_id)
        num_shared = max((common_prefix(tokens, base.tokens) for tokens in others), default=0)
        copied = None
        if self.tiers is not None and len(base.tokens) - num_shared >= MIN_NEW:
            copied = self.tiers.copy(sequence_id, base)
        self._clear(sequence_id)
        if self.tiers is not None and copied is not None:
            self.tiers.keep(copied)

    def _clear(self, sequence_id: int) -> None:
        self._editor.cut(sequence_id, self._bases[sequence_id], 0)
        self._bases[sequence_id].speaker = ""
        self._bases[sequence_id].is_whole = True
        self._checkpoints.bound()


def _is_outgrown(base: Base, length: int, tokens: Sequence[int]) -> bool:
    """Whether ``tokens`` go on where ``base`` ends, but for how its last reply ended."""
    num_left = len(base.tokens) - length
    return num_left == 0 or (num_left <= SHORT_TAIL and base.tokens[length] != tokens[length])
