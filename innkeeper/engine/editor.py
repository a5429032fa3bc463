"""Edits of the pool in place: chunks are parked, moved, and attached as the prompt grows to them.

llama.cpp evaluates at a sequence's end only, so what is kept behind a hole waits on a scratch id.
What is not kept goes to the attic. Shifts are free until the next evaluation, which does all of
them at once; a cell that several sequences share moves for each of them, so it has to be private.
"""

from collections.abc import Iterator, Sequence

from innkeeper.engine.attic import Attic, Fill
from innkeeper.engine.bases import Base, Parked
from innkeeper.engine.cells import Cells
from innkeeper.engine.reuse import Chunk, ReusePlan
from innkeeper.engine.runner import Runner
from innkeeper.engine.tiers import Tiers

NUM_OWN_IDS = 1
"""Sequence ids for the way to the attic and back."""


class Editor:
    """Moves cells between sequence ids; ``spare_ids`` are its own: one for each sequence that may
    have parked chunks, and the attic's."""

    def __init__(
        self, runner: Runner, cells: Cells, spare_ids: Sequence[int], tiers: Tiers | None
    ) -> None:
        self._runner = runner
        self._cells = cells
        self._scratch_ids = list(spare_ids[:-NUM_OWN_IDS])
        self.attic = Attic(runner, spare_ids[-1] if spare_ids else -1, tiers)

    @property
    def can_edit(self) -> bool:
        """Whether chunks of one more sequence can be parked."""
        return bool(self._scratch_ids)

    def edit(self, sequence_id: int, base: Base, plan: ReusePlan) -> None:
        """Cuts an idle base to the plan's prefix and parks its chunks at their new positions. The
        cells of chunks that move are private to the base."""
        scratch_id = self._scratch_ids.pop()
        for source, target, length in plan.chunks:
            self._runner.copy(sequence_id, scratch_id, source, source + length)
            cells = base.cells[source : source + length]
            self._cells.hold(cells)
            base.parked.append(Parked(target, base.tokens[source : source + length], cells))
        for start, end in _left_out(plan, len(base.tokens)):
            self._store(sequence_id, base, start, end)
        self.cut(sequence_id, base, plan.prefix)
        self._shift(scratch_id, plan.chunks)
        base.scratch_id = scratch_id

    def fill(self, base: Base, fills: Sequence[Fill]) -> None:
        """Parks what the attic has for the holes of an edit that has begun, as far as there are
        cells for it; the rest is read."""
        for fill in fills:
            fragment, (source, target, length) = fill
            if self._cells.num_free <= len(fragment.tokens):
                continue
            if self.attic.bring(fill, base.scratch_id):
                tokens = fragment.tokens[source - fragment.start :][:length]
                base.parked.append(Parked(target, tokens, self._cells.take(length)))
        base.parked.sort(key=lambda each: each.target)

    def dismantle(self, sequence_id: int, base: Base, start: int) -> None:
        """Cuts an idle base to ``start`` tokens; the rest goes to the attic."""
        self._store(sequence_id, base, start, len(base.tokens))
        self.cut(sequence_id, base, start)

    def attach(self, sequence_id: int, base: Base) -> int:
        """Puts the parked chunks in place that begin where the sequence ends; their length."""
        before = len(base.tokens)
        while base.parked and base.parked[0].target == len(base.tokens):
            start, tokens, cells = base.parked.pop(0)
            self._runner.copy(base.scratch_id, sequence_id, start, start + len(tokens))
            base.tokens.extend(tokens)
            base.cells.extend(cells)
        if not base.parked:
            self.unpark(base)
        return len(base.tokens) - before

    def close_up(self, sequence_id: int, base: Base) -> None:
        """Joins parked chunks to the end of a sequence whose prompt was cut short, over the holes
        that were not read. It is nobody's prompt, but the next one finds its chunks in it."""
        base.is_remnant = bool(base.parked)
        while base.parked:
            start, tokens, cells = base.parked[0]
            end = len(base.tokens)
            if start != end:
                if not self._cells.are_private(cells):
                    return
                self._runner.shift(base.scratch_id, start, start + len(tokens), end - start)
            self._runner.copy(base.scratch_id, sequence_id, end, end + len(tokens))
            base.tokens.extend(tokens)
            base.cells.extend(cells)
            del base.parked[0]

    def unpark(self, base: Base) -> None:
        """Gives the scratch id back; chunks that were not attached are dropped."""
        if base.scratch_id < 0:
            return
        self._runner.remove(base.scratch_id, 0)
        for parked in base.parked:
            self._cells.let_go(parked.cells)
        self._scratch_ids.append(base.scratch_id)
        base.parked, base.scratch_id = [], -1

    def cut(self, sequence_id: int, base: Base, length: int) -> None:
        """Drops all but the first ``length`` tokens of a base."""
        self._runner.remove(sequence_id, length)
        self._cells.let_go(base.cut(length))

    def replace(
        self, sequence_id: int, base: Base, source_id: int, exact_cells: Sequence[int]
    ) -> None:
        """Lets a base share ``exact_cells``, the first ones of ``source_id``, which hold the same
        tokens, in place of its own behind its exact start."""
        start, end = base.num_exact, len(exact_cells)
        self._runner.remove(sequence_id, start, end)
        self._runner.copy(source_id, sequence_id, start, end)
        self._cells.hold(exact_cells[start:])
        self._cells.let_go(base.cells[start:end])
        base.cells[start:end] = exact_cells[start:]
        base.num_exact = end

    def _shift(self, scratch_id: int, chunks: Sequence[Chunk]) -> None:
        """Leftward moves first, from the left; then the others from the right: none lands on a
        chunk that has not moved yet."""
        left = [chunk for chunk in chunks if chunk.shift < 0]
        right = [chunk for chunk in reversed(chunks) if chunk.shift > 0]
        for chunk in [*left, *right]:
            end = chunk.source + chunk.length
            self._runner.shift(scratch_id, chunk.source, end, chunk.shift)

    def _store(self, sequence_id: int, base: Base, start: int, end: int) -> None:
        """Copies a piece of a base that nobody else holds to the attic."""
        if self._cells.num_free and self._cells.are_private(base.cells[start:end]):
            self.attic.put(sequence_id, start, base.tokens[start:end], base.speaker)


def _left_out(plan: ReusePlan, length: int) -> Iterator[tuple[int, int]]:
    """Ranges of a base of ``length`` tokens that a plan does not use."""
    start = plan.prefix
    for chunk in plan.chunks:
        yield start, chunk.source
        start = chunk.source + chunk.length
    yield start, length
