"""What fell out of edited prompts, kept as long as there is memory: it often comes back.

A lorebook entry comes in, old messages fall out for it, and two turns later they are back. The
pieces are nobody's prompt. They lie in memory beside the pool: attention walks over all cells that
are used, so in the pool each of them would slow every token down, and copying one back takes a
thousandth of the time that reading it does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from innkeeper.engine.reuse import MIN_CHUNK, REPAIR, Chunk, ReusePlan, common_chunks
from innkeeper.engine.runner import Runner, State
from innkeeper.engine.tiers import Tiers

MIN_FRAGMENT = MIN_CHUNK + REPAIR
"""Shorter pieces would not be worth a chunk."""
_MAX_FRAGMENTS = 64
_MAX_ROUNDS = 3


@dataclass(frozen=True, eq=False)
class Fragment:
    """Tokens that stood at positions from ``start`` on."""

    start: int
    tokens: list[int]
    speaker: str
    """Of the prompt it was cut from (``Base.speaker``)."""
    state: State


class Fill(NamedTuple):
    """``chunk`` of a fragment serves a prompt; its source is a position that the fragment had."""

    fragment: Fragment
    chunk: Chunk


class Attic:
    """The fragments, oldest first, which goes first. Their bytes are part of the tiers' memory."""

    def __init__(self, runner: Runner, carrier_id: int, tiers: Tiers | None) -> None:
        """carrier_id: a sequence id, else empty, by which they leave the pool and come back."""
        self.fragments: list[Fragment] = []
        self._runner = runner
        self._carrier_id = carrier_id
        self._tiers = tiers

    def put(self, sequence_id: int, start: int, tokens: list[int], speaker: str) -> None:
        """Saves what a sequence holds from ``start`` on, if it is long enough and has room. The
        pool should have one cell free."""
        if self._tiers is None or self._tiers.ram_bytes == 0 or len(tokens) < MIN_FRAGMENT:
            return
        self._runner.copy(sequence_id, self._carrier_id, start, start + len(tokens))
        state = self._tiers.save(self._carrier_id)
        self._runner.remove(self._carrier_id, 0)
        if state is not None:
            self._keep([*self.fragments, Fragment(start, tokens, speaker, state)])

    def bring(self, fill: Fill, target_id: int) -> bool:
        """Puts the chunk of a fragment where it serves, on a sequence that holds nothing there;
        the fragment is used up then. False if that cannot be: a state lacks what sliding windows
        have left behind. The pool has cells for the whole fragment."""
        fragment, (source, target, length) = fill
        if not self._runner.load(self._carrier_id, fragment.state):
            return False
        is_whole = self._runner.first(self._carrier_id) <= source
        if is_whole:
            self._runner.remove(self._carrier_id, 0, source)
            self._runner.remove(self._carrier_id, source + length)
            if fill.chunk.shift:
                self._runner.shift(self._carrier_id, source, source + length, fill.chunk.shift)
            self._runner.copy(self._carrier_id, target_id, target, target + length)
            self._keep([each for each in self.fragments if each is not fragment])
        self._runner.remove(self._carrier_id, 0)
        return is_whole

    def clear(self) -> None:
        self._keep([])

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

    def _keep(self, fragments: list[Fragment]) -> None:
        """Keeps the newest of ``fragments`` that there is room for."""
        num_bytes = sum(len(each.state) for each in fragments)
        if self._tiers is not None:
            while num_bytes > self._tiers.most_reserved or len(fragments) > _MAX_FRAGMENTS:
                num_bytes -= len(fragments.pop(0).state)
            self._tiers.reserve(num_bytes)
        self.fragments = fragments


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
