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
    source = _array(cached[prefix:])
    target = _array(prompt[prefix:limit])
    runs = [
        Chunk(run.source + prefix, run.target + prefix, run.length)
        for run in _best_chain(_common_runs(source, target))
    ]
    kept = _allowed_runs(runs, prefix, ALLOWED[policy], speakers)
    return ReusePlan(prefix, tuple(_repair(kept)[:MAX_CHUNKS]))


def common_chunks(
    cached: Sequence[int], prompt: Sequence[int], start: int, end: int
) -> list[Chunk]:
    """What of ``cached``, wherever it lies, serves ``prompt[start:end]``."""
    source = _array(cached)
    target = _array(prompt[start:end])
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
    runs: Sequence[Chunk], prefix: int, allowed: frozenset[EditKind], speakers: tuple[str, str]
) -> list[Chunk]:
    """The runs before the first edit that may not be reused over.

    A card is looked for in the first edit, a change of a few tokens such as the name above a card
    aside; in all of them where another one speaks, since lore may lie between that name and the
    card.
    """
    is_another = all(speakers) and speakers[0] != speakers[1]
    least_card, is_first = _least_card(*speakers), True
    kept: list[Chunk] = []
    source = target = prefix
    for run in runs:
        removed, inserted = run.source - source, run.target - target
        kind = edit_kind(removed, inserted, is_first=is_first, least_card=least_card)
        if kind not in allowed:
            break
        kept.append(run)
        is_first = is_another or (is_first and max(removed, inserted) < SMALL)
        source, target = run.source + run.length, run.target + run.length
    return kept


def _repair(runs: Sequence[Chunk]) -> list[Chunk]:
    return [
        Chunk(run.source + REPAIR, run.target + REPAIR, run.length - REPAIR)
        for run in runs
        if run.length >= MIN_CHUNK
    ]


def _array(tokens: Sequence[int]) -> Tokens:
    """In half the time of ``asarray``, which looks at every item twice."""
    return np.fromiter(tokens, np.int32, len(tokens))


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


def _anchors(source: Tokens, target: Tokens) -> NDArray[np.int64]:
    """(source, target) starts (n, 2) of the windows that are unique in both, by target.

    One sort finds them: a key is a window's hash, then which of the two it is from, then where.
    """
    num_bits = max(len(source), len(target)).bit_length()
    keys = np.concatenate([_keys(source, 0, num_bits), _keys(target, 1, num_bits)], dtype=np.uint64)
    keys.sort()
    values = keys >> np.uint64(num_bits + 1)
    is_same = values[1:] == values[:-1]
    is_pair = is_same.copy()
    is_pair[1:] &= ~is_same[:-1]
    is_pair[:-1] &= ~is_same[1:]
    firsts = np.flatnonzero(is_pair)
    left, right = keys[firsts], keys[firsts + 1]
    is_across = ((left ^ right) >> np.uint64(num_bits)) & np.uint64(1) == 1
    where = np.uint64((1 << num_bits) - 1)
    partners = np.full(len(target), -1)
    partners[right[is_across] & where] = left[is_across] & where
    targets = np.flatnonzero(partners >= 0)
    return np.stack((partners[targets], targets), axis=1)


def _keys(tokens: Tokens, side: int, num_bits: int) -> NDArray[np.uint64]:
    hashes = _window_hashes(tokens)
    low = np.arange(len(hashes), dtype=np.uint64) | np.uint64(side << num_bits)
    return (hashes >> np.uint64(num_bits + 1) << np.uint64(num_bits + 1)) | low


def _lies_in(run: Chunk, other: Chunk) -> bool:
    same_diagonal = run.shift == other.shift
    return same_diagonal and run.target + run.length <= other.target + other.length


def _grow(run: Chunk, source: Tokens, target: Tokens) -> Chunk:
    """``run`` with every equal token on either side; empty if the hashes lied."""
    start_s, start_t, length = run
    num_ahead = _num_equal(source[start_s:], target[start_t:], length)
    if num_ahead < length:
        return Chunk(start_s, start_t, 0)
    back = min(start_s, start_t)
    num_before = _num_equal(
        source[start_s - back : start_s][::-1], target[start_t - back : start_t][::-1]
    )
    return Chunk(start_s - num_before, start_t - num_before, num_before + num_ahead)


def _num_equal(left: Tokens, right: Tokens, width: int = MIN_CHUNK) -> int:
    """Length of the common start. Compares ever longer pieces, the first of ``width`` tokens, so
    that it takes time by what it finds, not by what is there."""
    limit, start = min(len(left), len(right)), 0
    while start < limit:
        end = min(start + width, limit)
        is_equal = left[start:end] == right[start:end]
        first = int(is_equal.argmin())
        if not is_equal[first]:
            return start + first
        start, width = end, 2 * width
    return limit


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
    if not runs:
        return []
    gains = _gains(runs)
    totals = np.asarray([run.length for run in runs])
    before = [-1] * len(runs)
    for index in range(1, len(runs)):
        sums = totals[:index] + gains[index, :index]
        best = int(sums.argmax())
        if sums[best] > totals[index]:
            before[index], totals[index] = best, sums[best]
    chain: list[Chunk] = []
    index = int(totals.argmax())
    while index >= 0:
        source, target, length = runs[index]
        num_kept = int(gains[index, before[index]]) if before[index] >= 0 else length
        cut = length - num_kept
        chain.append(Chunk(source + cut, target + cut, num_kept))
        index = before[index]
    return chain[::-1]


def _gains(runs: Sequence[Chunk]) -> NDArray[np.int64]:
    """What each run (n, n) adds behind each other one: what is left of it where it overlaps the
    other in neither text, or far below zero if that is too short."""
    sources, targets, lengths = np.asarray(runs).T
    overlaps = np.maximum(
        sources + lengths - sources[:, None], targets + lengths - targets[:, None]
    )
    left = lengths[:, None] - np.maximum(overlaps, 0)
    gains: NDArray[np.int64] = np.where(left >= MIN_CHUNK, left, -lengths.sum())
    return gains
