"""What one sequence id of the KV cache holds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from innkeeper.engine.runner import State

SHORT_TAIL = 16
"""So few last tokens of a base may be lost: the next prompt often lacks how the reply ended."""


class Parked(NamedTuple):
    """Cached tokens that wait on the scratch id until the sequence has grown to ``target``."""

    target: int
    tokens: list[int]
    cells: list[int]


class Checkpoint(NamedTuple):
    """What a sequence cannot take back (``Runner.checkpoint``), as it was at ``length`` tokens."""

    length: int
    state: State


class SavedBase(NamedTuple):
    """A base with all that the runner holds of it, to be loaded again."""

    tokens: list[int]
    num_exact: int
    speaker: str
    state: State
    checkpoints: Sequence[Checkpoint] = ()

    @property
    def num_bytes(self) -> int:
        return len(self.state) + sum(len(each.state) for each in self.checkpoints)

    @property
    def cuts(self) -> Sequence[int]:
        """Lengths that it can be cut to though its model cannot take tokens back."""
        return [each.length for each in self.checkpoints]


@dataclass
class Base:
    """What one sequence id holds: ``tokens[i]`` is in ``cells[i]``."""

    tokens: list[int] = field(default_factory=list)
    cells: list[int] = field(default_factory=list)
    num_exact: int = 0
    """The first tokens whose cache is what a fresh reading gives; the rest came over an edit."""
    speaker: str = ""
    """Who speaks at the end of its prompt, where that is said."""
    in_use: bool = False
    last_used: int = 0
    checkpoints: list[Checkpoint] = field(default_factory=list)
    """By rising length."""
    borders: list[int] = field(default_factory=list)
    """Where reading stops to take the next ones."""
    parked: list[Parked] = field(default_factory=list)
    scratch_id: int = -1
    is_whole: bool = True
    """Whether every layer holds all of its tokens. States on disk lack what sliding windows have
    left behind, so that nothing in them can be moved."""
    is_remnant: bool = False
    """What a cancelled edit left: chunks without the text between them."""

    @property
    def is_stale(self) -> bool:
        """Whether a part of it is approximate."""
        return self.num_exact < len(self.tokens)

    def copy_from(self, other: "Base", length: int) -> None:
        """Takes over what the first ``length`` tokens of another base are."""
        self.tokens, self.cells = other.tokens[:length], other.cells[:length]
        self.num_exact, self.speaker = min(other.num_exact, length), other.speaker
        self.is_whole = other.is_whole
        self.checkpoints = [each for each in other.checkpoints if each.length <= length]

    def cut(self, length: int) -> list[int]:
        """Forgets all but the first ``length`` tokens; the cells that it held for the others."""
        cells = self.cells[length:]
        del self.tokens[length:], self.cells[length:]
        self.num_exact = min(self.num_exact, length)
        self.checkpoints = [each for each in self.checkpoints if each.length <= length]
        return cells

    def saved(self, state: State) -> SavedBase:
        """A copy beside ``state``, which the runner has saved of it."""
        tokens, checkpoints = list(self.tokens), tuple(self.checkpoints)
        return SavedBase(tokens, self.num_exact, self.speaker, state, checkpoints)

    def checkpoint_before(self, length: int) -> Checkpoint | None:
        """The last one that is not beyond ``length``."""
        return next((each for each in reversed(self.checkpoints) if each.length <= length), None)

    def all_cells(self) -> Iterable[int]:
        yield from self.cells
        for parked in self.parked:
            yield from parked.cells


def newest_stale(bases: Sequence[Base]) -> Base | None:
    """The idle one that was used last of those of which a part is approximate."""
    stale = (b for b in bases if b.is_stale and b.is_whole and not b.in_use and not b.is_remnant)
    return max(stale, key=lambda base: base.last_used, default=None)
