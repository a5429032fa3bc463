"""Which rows the next step evaluates: every decoding sequence, and a slice of the prompts."""

import time
from collections import deque
from dataclasses import dataclass, field

from innkeeper.engine.kv_cache import KVCache
from innkeeper.engine.runner import Row
from innkeeper.engine.sequence import Sequence, Status

MIN_SLICE = 16
"""Kernels work in tiles of so many rows: on a CPU nine rows take nearly as long as sixteen. So
a lone prompt has no smaller slice, if it can be read with the one before."""
_START_SLICE = 32


class SliceSizer:
    """How many prompt tokens fit into ``max_seconds``, from what the last slices took: whole tiles,
    and one at least."""

    def __init__(self, max_seconds: float, max_tokens: int) -> None:
        self._max_seconds = max_seconds
        self._max_tokens = max_tokens
        self.num_tokens = min(_START_SLICE, max_tokens)

    def observe(self, num_tokens: int, seconds: float) -> None:
        """Follows a step that read ``num_tokens`` of a prompt. Halves at once when too slow, grows
        at most twofold when there is room, so one odd measurement does no harm."""
        if num_tokens < MIN_SLICE or seconds <= 0:
            return
        fitting = int(num_tokens / seconds * self._max_seconds * 0.9)
        if seconds > self._max_seconds:
            size = min(fitting, num_tokens // 2)
        elif num_tokens >= self.num_tokens:
            size = min(fitting, self.num_tokens * 2)
        else:
            return
        self.num_tokens = min(max(MIN_SLICE, size - size % MIN_SLICE), self._max_tokens)


@dataclass
class Batch:
    """One ``forward``: its rows, and the sequences they belong to."""

    rows: list[Row] = field(default_factory=list)
    reads: list[tuple[Sequence, int]] = field(default_factory=list)
    """(sequence, number of its rows), in row order."""
    num_prefill: int = 0
    readers: list[Sequence] = field(default_factory=list)
    """Whose prompts those ``num_prefill`` rows are."""
    is_alone: bool = False
    """Whether nobody else would have had a row in it."""

    @property
    def sampled(self) -> list[Sequence]:
        """The sequences whose last token is in this batch, in the order of the logits."""
        return [seq for seq, count in self.reads if seq.num_cached + count >= len(seq.tokens)]


class Scheduler:
    """First come, first served into the running set; prompts there take turns, slice by slice."""

    def __init__(
        self,
        cache: KVCache,
        sizer: SliceSizer,
        lone_sizer: SliceSizer,
        *,
        max_sequences: int,
        max_rows: int,
        max_outputs: int = 1,
    ) -> None:
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.num_restored = 0
        """Tokens that came back from memory or disk, ever."""
        self._cache = cache
        self._sizers = {False: sizer, True: lone_sizer}
        """By ``Batch.is_alone``."""
        self._max_sequences = max_sequences
        self._max_rows = max_rows
        self._max_outputs = max_outputs

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def schedule(self) -> Batch | None:
        """The next batch, its cells made free; None if there is nothing to do. May preempt."""
        self._admit()
        while self.running:
            batch = self._compose()
            if self._cache.make_room(len(batch.rows)):
                return batch
            self._preempt()
        return None

    def observe(self, batch: Batch, seconds: float) -> None:
        """Learns from a step; the prompts that were read go to the end of the line."""
        if batch.num_prefill:
            self._sizers[batch.is_alone].observe(batch.num_prefill, seconds)
            if batch.num_prefill >= MIN_SLICE:  # fewer take as long as a token of a reply
                self._cache.observe(batch.num_prefill, seconds)
            for reader in batch.readers:
                if reader in self.running:
                    self.running.remove(reader)
                    self.running.append(reader)

    def finish(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Takes a sequence out, wherever it is; its cache stays for the next prompt if ``keep``."""
        if sequence.shadow is not None and sequence.shadow.status is not Status.WAITING:
            self.finish(sequence.shadow, keep=keep)
        if sequence.status is Status.WAITING:
            self.waiting.remove(sequence)
        elif sequence.status is not Status.DONE:
            self.running.remove(sequence)
            self._cache.release(sequence.sequence_id, keep=keep)
        sequence.status = Status.DONE

    def fork(self, leader: Sequence, sibling: Sequence) -> bool:
        """Lets a waiting sibling go on from its leader's prompt; False if there is no place."""
        if len(self.running) >= self._max_sequences:
            return False
        sequence_id = self._cache.fork(leader.sequence_id)
        if sequence_id is None:
            return False
        self.waiting.remove(sibling)
        sibling.sequence_id = sequence_id
        sibling.num_cached = leader.num_cached
        sibling.num_reused_approx = leader.num_reused_approx
        sibling.num_reused = leader.num_cached - leader.num_reused_approx
        sibling.started = leader.prefilled
        sibling.status = Status.DECODE
        self.running.append(sibling)
        return True

    def _draft(self, sequence: Sequence) -> list[int]:
        """Guesses to check beside the next token; none where others would have to wait for them,
        or where wrong ones could not be taken out of the cache."""
        if sequence.guesses is None or len(self.running) > 1:
            return []
        room = min(self._max_outputs, self._max_rows, sequence.max_length - len(sequence.tokens))
        if room < 2 or not self._cache.can_take_back(sequence.sequence_id, room):
            return []
        draft = sequence.guesses.draft(sequence.tokens, room - 1)
        return draft if len(draft) < self._cache.num_free else []

    def restart(self, sequence: Sequence) -> None:
        """Puts a running sequence to the front of the line, to be read again from the start, and
        its shadow with it."""
        if sequence.shadow_of is not None:
            self.restart(sequence.shadow_of)
            return
        if sequence.shadow is not None:
            self._free(sequence.shadow)
        self._free(sequence)
        self.waiting.appendleft(sequence)

    def _free(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._cache.release(sequence.sequence_id, keep=False)
        sequence.sequence_id, sequence.num_cached, sequence.draft = -1, 0, []
        sequence.status = Status.WAITING

    def _admit(self) -> None:
        for sequence in list(self.waiting):
            if len(self.running) + (sequence.shadow is not None) >= self._max_sequences:
                return
            if sequence.leader is not None and sequence.leader.status in (
                Status.WAITING,
                Status.PREFILL,
            ):
                continue
            if not self._has_room(sequence) or not self._start(sequence):
                return

    def _has_room(self, sequence: Sequence) -> bool:
        """Whether the whole prompt fits beside those being read, so that reading is not in vain."""
        if not self.running:
            return True
        promised = sum(other.num_to_read for other in self.running)
        needed = self._cache.num_new_cells(sequence.tokens) + 1 + promised
        needed += len(sequence.shadow.tokens) + 1 if sequence.shadow is not None else 0
        return needed <= self._cache.num_reclaimable()

    def _start(self, sequence: Sequence) -> bool:
        lease = self._cache.lease(sequence.tokens, sequence.policy, sequence.speaker)
        if lease is None:
            return False
        if sequence.shadow_of is None:
            self.waiting.remove(sequence)
        sequence.sequence_id, sequence.num_cached, num_exact, num_restored = lease
        self.num_restored += num_restored
        if not sequence.started:
            sequence.num_reused = min(num_exact, sequence.num_prompt)
            sequence.num_reused_approx = min(lease.num_cached, sequence.num_prompt) - num_exact
            sequence.num_restored = num_restored
        sequence.started = sequence.started or time.perf_counter()
        sequence.status = Status.PREFILL
        self.running.append(sequence)
        if sequence.shadow is not None and not self._start(sequence.shadow):
            self._free(sequence)
            self.waiting.appendleft(sequence)
            return False
        return True

    def _compose(self) -> Batch:
        batch = Batch(is_alone=self._is_alone())
        for sequence in self.running:
            if sequence.is_decoding:
                sequence.draft = self._draft(sequence)
                _add_rows(batch, sequence, 1 + len(sequence.draft))
        room = min(self._sizers[batch.is_alone].num_tokens, self._max_rows - len(batch.rows))
        for sequence in self.running:
            num_readable = sequence.num_readable
            if sequence.status is Status.PREFILL and min(room, num_readable) > 0:
                stop = self._cache.next_stop(sequence.sequence_id) or len(sequence.tokens)
                unread = min(stop - sequence.num_cached, num_readable)
                count = min(unread, room)
                if batch.is_alone and unread - count < MIN_SLICE:
                    count = min(unread, self._max_rows)
                _add_rows(batch, sequence, count)
                batch.readers.append(sequence)
                batch.num_prefill += count
                room -= count
        return batch

    def _is_alone(self) -> bool:
        """Whether only one request runs or waits. Idle work always makes way."""
        is_only = len(self.running) + len(self.waiting) == 1
        return is_only and not self.running[0].is_idle_work

    def _preempt(self) -> None:
        """Sends the sequence that came last back to the front of the line, its cells freed."""
        self.restart(max(self.running, key=lambda sequence: sequence.arrived))


def _add_rows(batch: Batch, sequence: Sequence, count: int) -> None:
    first = sequence.num_cached
    last = len(sequence.tokens) - 1
    tokens = sequence.tokens[first : first + count] + sequence.draft
    for position, token_id in zip(range(first, first + count), tokens, strict=False):
        batch.rows.append(Row(token_id, position, sequence.sequence_id, position >= last))
    batch.reads.append((sequence, count))
