"""What of a cached sequence serves a new prompt: the exact prefix, and chunks moved into place.

SillyTavern edits its prompt in the middle each turn: old messages fall out, the author's note
moves up, lorebook entries come and go. The tokens after an edit are the same as before, only
elsewhere, so their keys can be rotated to the new position and their values kept. What they knew
of the text that changed stays in them: such tokens are approximate, and so is all that is read
after them.

Everything here is a pure function of two token sequences. ``kv_cache`` applies the plan.
"""

import sys
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MIN_CHUNK = 32
"""Shorter runs are not worth a piece of their own; power of two, for the hash."""
REPAIR = 16
"""Tokens at the start of a kept chunk that are read again: they depend most on what changed."""
MIN_CARD = 64
"""Where nobody says who speaks, a replaced text shorter than this is lore, not a card."""
MAX_CHUNKS = 16
SMALL = 8
"""An edit that removes (or inserts) fewer tokens than this counts as the other kind alone."""
_COMPARE_CHUNK = 256
_MAX_RUNS = 200
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

Tokens = NDArray[np.int32]


class EditKind(Enum):
    """What happened between two kept pieces."""

    DELETION = "deletion"
    INSERTION = "insertion"
    REPLACEMENT = "replacement"
    CARD = "card"
    """A long text replaced by another behind the prompt's common start: most likely the card."""


class Policy(Enum):
    """Which edits may be reused over."""

    EXACT = "exact"
    AUTO = "auto"
    FAST = "fast"
    TURBO = "turbo"
    """``fast``, and across another card as well."""


ALLOWED: dict[Policy, frozenset[EditKind]] = {
    Policy.EXACT: frozenset(),
    Policy.AUTO: frozenset({EditKind.DELETION, EditKind.INSERTION, EditKind.REPLACEMENT}),
    Policy.FAST: frozenset({EditKind.DELETION, EditKind.INSERTION, EditKind.REPLACEMENT}),
    Policy.TURBO: frozenset(EditKind),
}
"""``auto`` holds the kinds that pass the quality table of benchmarks/reuse_quality.py, so that it
may fall behind ``fast`` again when a model is found where one of them does not."""


class Chunk(NamedTuple):
    """``length`` cached tokens from ``source`` on that serve from position ``target`` on."""

    source: int
    target: int
    length: int

    @property
    def shift(self) -> int:
        return self.target - self.source


class ReusePlan(NamedTuple):
    """``prefix`` tokens as they are, then chunks in rising order of both positions; the tokens
    between them are evaluated."""

    prefix: int
    chunks: tuple[Chunk, ...] = ()

    def num_reused(self) -> int:
        return self.prefix + sum(chunk.length for chunk in self.chunks)


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


def plan_reuse(
    cached: Sequence[int],
    prompt: Sequence[int],
    policy: Policy,
    *,
    num_exact: int | None = None,
    speakers: tuple[str, str] = ("", ""),
) -> ReusePlan:
    """How ``cached`` serves ``prompt``. The last token of ``prompt`` is never reused.

    num_exact: how many tokens of ``cached`` are exact; beyond it even an equal token is
    approximate, so ``exact`` stops there.
    speakers: of both, where they are known: another one has another card.
    """
    limit = len(prompt) - 1
    prefix = min(common_prefix(cached, prompt), limit)
    if policy is Policy.EXACT:
        return ReusePlan(min(prefix, len(cached) if num_exact is None else num_exact))
    if limit - prefix < MIN_CHUNK or len(cached) - prefix < MIN_CHUNK:
        return ReusePlan(prefix)
    source = np.asarray(cached[prefix:], np.int32)
    target = np.asarray(prompt[prefix:limit], np.int32)
    runs = [
        Chunk(run.source + prefix, run.target + prefix, run.length)
        for run in _best_chain(_common_runs(source, target))
    ]
    kept = _allowed_runs(runs, prefix, ALLOWED[policy], least_card=_least_card(*speakers))
    return ReusePlan(prefix, tuple(_repair(kept)[:MAX_CHUNKS]))


def common_chunks(
    cached: Sequence[int], prompt: Sequence[int], start: int, end: int
) -> list[Chunk]:
    """What of ``cached``, wherever it lies, serves ``prompt[start:end]``."""
    source = np.asarray(cached, np.int32)
    target = np.asarray(prompt[start:end], np.int32)
    runs = _best_chain(_common_runs(source, target))
    return _repair([run._replace(target=run.target + start) for run in runs])


def edit_kind(
    num_removed: int, num_inserted: int, *, is_first: bool, least_card: int = MIN_CHUNK
) -> EditKind:
    """Names the edit between two kept pieces. ``least_card``: shorter texts are no cards."""
    if num_inserted < SMALL:
        return EditKind.DELETION
    if num_removed < SMALL:
        return EditKind.INSERTION
    is_card = is_first and min(num_removed, num_inserted) >= least_card
    return EditKind.CARD if is_card else EditKind.REPLACEMENT


def _least_card(before: str, now: str) -> int:
    """How long a replaced text must be to count as another card: one who speaks on has the same."""
    if before and now:
        return sys.maxsize if before == now else MIN_CHUNK
    return MIN_CARD


def _allowed_runs(
    runs: Sequence[Chunk], prefix: int, allowed: frozenset[EditKind], *, least_card: int
) -> list[Chunk]:
    """The runs before the first edit that may not be reused over."""
    kept: list[Chunk] = []
    source = target = prefix
    for run in runs:
        kind = edit_kind(
            run.source - source,
            run.target - target,
            is_first=not kept,
            least_card=least_card,
        )
        if kind not in allowed:
            break
        kept.append(run)
        source, target = run.source + run.length, run.target + run.length
    return kept


def _repair(runs: Sequence[Chunk]) -> list[Chunk]:
    return [
        Chunk(run.source + REPAIR, run.target + REPAIR, run.length - REPAIR)
        for run in runs
        if run.length >= MIN_CHUNK
    ]


def _common_runs(source: Tokens, target: Tokens) -> list[Chunk]:
    """Maximal runs of at least ``MIN_CHUNK`` equal tokens, by the target's order.

    Windows of ``MIN_CHUNK`` tokens that occur once in both are the anchors (as in patience diff),
    so text that repeats itself cannot lead astray; each anchor is grown to both sides.
    """
    if len(source) < MIN_CHUNK or len(target) < MIN_CHUNK:
        return []
    anchors = _anchors(source, target)
    if anchors.size == 0:
        return []
    diagonal = anchors[:, 1] - anchors[:, 0]
    breaks = np.flatnonzero((np.diff(anchors[:, 1]) != 1) | (np.diff(diagonal) != 0)) + 1
    firsts = np.concatenate(([0], breaks))
    lengths = np.diff(np.concatenate((firsts, [len(anchors)]))) + MIN_CHUNK - 1
    runs: list[Chunk] = []
    for first, length in zip(firsts.tolist(), lengths.tolist(), strict=True):
        run = Chunk(int(anchors[first, 0]), int(anchors[first, 1]), length)
        if not (runs and _lies_in(run, runs[-1])):
            runs.append(_grow(run, source, target))
    longest = sorted(runs, key=lambda run: -run.length)[:_MAX_RUNS]
    return sorted(longest, key=lambda run: run.target)


def _anchors(source: Tokens, target: Tokens) -> NDArray[np.intp]:
    """(source, target) starts (n, 2) of the windows that are unique in both, by target."""
    found = []
    for hashes in (_window_hashes(source), _window_hashes(target)):
        values, starts, counts = np.unique(hashes, return_index=True, return_counts=True)
        found.append((values[counts == 1], starts[counts == 1]))
    (left, left_starts), (right, right_starts) = found
    _, i, j = np.intersect1d(left, right, assume_unique=True, return_indices=True)
    pairs = np.stack((left_starts[i], right_starts[j]), axis=1)
    return pairs[np.argsort(pairs[:, 1], kind="stable")]


def _lies_in(run: Chunk, other: Chunk) -> bool:
    same_diagonal = run.shift == other.shift
    return same_diagonal and run.target + run.length <= other.target + other.length


def _grow(run: Chunk, source: Tokens, target: Tokens) -> Chunk:
    """``run`` with every equal token on either side; empty if the hashes lied."""
    start_s, start_t, length = run
    if not np.array_equal(source[start_s : start_s + length], target[start_t : start_t + length]):
        return Chunk(start_s, start_t, 0)
    back = min(start_s, start_t)
    before = source[start_s - back : start_s] == target[start_t - back : start_t]
    num_before = _num_true(before[::-1])
    end_s, end_t = start_s + length, start_t + length
    ahead = min(len(source) - end_s, len(target) - end_t)
    num_after = _num_true(source[end_s : end_s + ahead] == target[end_t : end_t + ahead])
    return Chunk(start_s - num_before, start_t - num_before, num_before + length + num_after)


def _num_true(flags: NDArray[np.bool_]) -> int:
    """Length of the run of True at the start."""
    return int(flags.argmin()) if not flags.all() else len(flags)


def _window_hashes(tokens: Tokens) -> NDArray[np.uint64]:
    """A hash (len - MIN_CHUNK + 1,) of every window, by doubling its length."""
    hashes = (tokens.astype(np.uint64) + np.uint64(1)) * _MULTIPLIER
    width = 1
    while width < MIN_CHUNK:
        factor = np.uint64(pow(int(_MULTIPLIER), width, 1 << 64))
        hashes = hashes[:-width] * factor + hashes[width:]
        hashes ^= hashes >> np.uint64(29)
        width *= 2
    return hashes


def _best_chain(runs: Sequence[Chunk]) -> list[Chunk]:
    """The runs, cut where they overlap, that rise in both positions and keep the most tokens."""
    best: list[tuple[int, list[Chunk]]] = []
    for run in runs:
        choice: tuple[int, list[Chunk]] = (run.length, [run])
        for total, chain in best:
            cut = _cut_after(run, chain[-1])
            if cut is not None and total + cut.length > choice[0]:
                choice = (total + cut.length, [*chain, cut])
        best.append(choice)
    return max(best, key=lambda item: item[0])[1] if best else []


def _cut_after(run: Chunk, before: Chunk) -> Chunk | None:
    """What of ``run`` lies behind ``before`` in both sequences, if that is still long enough."""
    overlap = max(
        before.source + before.length - run.source, before.target + before.length - run.target, 0
    )
    length = run.length - overlap
    if length < MIN_CHUNK:
        return None
    return Chunk(run.source + overlap, run.target + overlap, length)
