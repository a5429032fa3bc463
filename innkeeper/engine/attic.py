"""What fell out of edited prompts, kept as long as there is room: it often comes back.

A lorebook entry comes in, old messages fall out for it, and two turns later they are back. The
pieces lie on a sequence id of their own, wherever there was a gap, and are nobody's prompt.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from innkeeper.engine.reuse import MIN_CHUNK, REPAIR, Chunk, ReusePlan, common_chunks

MIN_FRAGMENT = MIN_CHUNK + REPAIR
"""Shorter pieces would not be worth a chunk."""
_MAX_FRAGMENTS = 64
_MAX_ROUNDS = 3


class Fragment(NamedTuple):
    """Cached tokens at positions from ``start`` on of the attic's sequence."""

    start: int
    tokens: list[int]
    cells: list[int]
    speaker: str
    """Of the prompt it was cut from (``Base.speaker``)."""

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


class Fill(NamedTuple):
    """``chunk`` of a fragment serves a prompt; its source is a position on the attic's sequence."""

    fragment: Fragment
    chunk: Chunk


class Attic:
    """The fragments, oldest first. Only the account: ``editor`` moves the cells."""

    def __init__(self) -> None:
        self.fragments: list[Fragment] = []

    @property
    def num_cells(self) -> int:
        return sum(len(fragment.cells) for fragment in self.fragments)

    @property
    def is_full(self) -> bool:
        return len(self.fragments) >= _MAX_FRAGMENTS

    def place(self, length: int) -> int:
        """The first gap of ``length`` positions."""
        start = 0
        for fragment in sorted(self.fragments, key=lambda each: each.start):
            if fragment.start - start >= length:
                break
            start = fragment.end
        return start

    def fills(self, prompt: Sequence[int], plan: ReusePlan, speaker: str | None) -> list[Fill]:
        """What serves the holes of ``plan``; only fragments of ``speaker``'s prompts, if given."""
        usable = [f for f in self.fragments if speaker is None or f.speaker == speaker]
        if not usable:
            return []
        joined, starts = _join(usable)
        found: list[Fill] = []
        for _ in range(_MAX_ROUNDS):
            served = sorted((*plan.chunks, *(fill.chunk for fill in found)), key=_target)
            num_before = len(found)
            for start, end in _holes(plan.prefix, served, len(prompt) - 1):
                for chunk in common_chunks(joined, prompt, start, end):
                    found.append(Fill(*_locate(chunk, usable, starts)))
                    _strike_out(joined, chunk)
            if len(found) == num_before:
                break
        return found


def _target(chunk: Chunk) -> int:
    return chunk.target


def _holes(prefix: int, chunks: Sequence[Chunk], limit: int) -> Iterator[tuple[int, int]]:
    """Ranges of the prompt between the chunks that are long enough for another one."""
    start = prefix
    for chunk in chunks:
        if chunk.target - start >= MIN_FRAGMENT:
            yield start, chunk.target
        start = chunk.target + chunk.length
    if limit - start >= MIN_FRAGMENT:
        yield start, limit


def _join(fragments: Sequence[Fragment]) -> tuple[list[int], list[int]]:
    """All tokens in a row, with a token that no prompt has between two; where each begins."""
    joined: list[int] = []
    starts = []
    for fragment in fragments:
        starts.append(len(joined))
        joined += fragment.tokens
        joined.append(-1 - len(joined))
    return joined, starts


def _strike_out(joined: list[int], chunk: Chunk) -> None:
    """What serves one place of the prompt serves no other."""
    for index in range(chunk.source, chunk.source + chunk.length):
        joined[index] = -1 - len(joined) - index


def _locate(
    chunk: Chunk, fragments: Sequence[Fragment], starts: Sequence[int]
) -> tuple[Fragment, Chunk]:
    """The fragment that a chunk of the joined tokens lies in, and its position there."""
    index = int(np.searchsorted(starts, chunk.source, side="right")) - 1
    fragment = fragments[index]
    return fragment, chunk._replace(source=fragment.start + chunk.source - starts[index])
