"""Checkpoints: moments that models can return to which cannot take a token back.

Recurrent states, and sliding windows that keep nothing else, only go forward. So while a prompt is
read, what they hold is copied at a few borders; the keys of other layers stay in the pool and are
cut there, as with any model. A prompt that leaves a cached one goes on from the last checkpoint
before that.

Borders are where prompts often part: before the last token (another reply to the same prompt, and
replies that ended with tokens of a stop string); where this prompt itself parts from an earlier
one or goes on behind it, since the next will most likely part from it there as well (behind the
card, once old messages fall out; behind the last reply); and the starts of lines, ever farther from
the end (edits of late messages, notes that move along).
"""

import sys
from collections.abc import Callable, Iterator, Sequence

from innkeeper.engine.bases import Base, Checkpoint
from innkeeper.engine.reuse import common_prefix
from innkeeper.engine.runner import Runner
from innkeeper.engine.tiers import Tiers
from innkeeper.errors import EngineError

MIN_GAP = 16
"""Tokens between two checkpoints: fewer are read again quickly enough."""
MAX_KEPT = 8
"""Of one sequence."""
_FIRST_DISTANCE = 32
_GROWTH = 4
_LONGEST_LINE = 256
_READING_SHARE = 8
"""Copying may take an eighth of the time that reading took since the checkpoint before."""


class Checkpoints:
    """Those of ``bases``, by sequence id. Their bytes are part of the tiers' memory."""

    def __init__(self, runner: Runner, bases: Sequence[Base], tiers: Tiers | None) -> None:
        self._runner = runner
        self._bases = bases
        self._tiers = tiers
        # windows that keep all tokens, for edits, can be cut as well
        is_needed = not (runner.can_cut or runner.can_edit)
        self.is_on = is_needed and tiers is not None and tiers.ram_bytes > 0
        self._num_bytes = 0
        """Of the newest one."""

    def parting(self, tokens: Sequence[int]) -> int:
        """Where ``tokens`` leave what was read before."""
        if not self.is_on:
            return 0
        return max(common_prefix(base.tokens, tokens) for base in self._bases)

    def plan(self, sequence_id: int, tokens: Sequence[int], parting: int) -> None:
        """Chooses where reading ``tokens`` on from the end of a sequence stops for a checkpoint."""
        if self._tiers is None or not self.is_on or self._num_bytes > self._tiers.most_reserved:
            return
        base = self._bases[sequence_id]
        start = len(base.tokens)
        gap = max(MIN_GAP, _READING_SHARE * self._tiers.tokens_worth(self._num_bytes))
        chosen = [0, *(checkpoint.length for checkpoint in base.checkpoints)]
        num_held = len(chosen)
        for place in (len(tokens) - 1, parting, *_lines(tokens, self._ends_line)):
            if start <= place < len(tokens) and all(abs(place - other) >= gap for other in chosen):
                chosen.append(place)
        base.borders = sorted(chosen[num_held:])
        self.reach(sequence_id)

    def reach(self, sequence_id: int) -> None:
        """Takes a checkpoint if the sequence ends at one of its borders."""
        base = self._bases[sequence_id]
        if not base.borders:
            return
        length = len(base.tokens)
        is_border = length in base.borders
        base.borders = [border for border in base.borders if border > length]
        if not is_border or not self.is_on:
            return
        try:
            state = self._runner.checkpoint(sequence_id)
        except (EngineError, MemoryError) as error:
            print(f"no checkpoints of chats are kept: {error}", file=sys.stderr)
            self.is_on = False
            return
        self._num_bytes = len(state)
        base.checkpoints.append(Checkpoint(length, state))
        if len(base.checkpoints) > MAX_KEPT:
            _drop_one(base)
        self.bound()

    def bound(self) -> None:
        """Drops checkpoints of the bases that were not used for longest until all have room."""
        if self._tiers is None or not self.is_on:
            return
        for base in sorted(self._bases, key=lambda each: each.last_used):
            while base.checkpoints and self._total_bytes() > self._tiers.most_reserved:
                _drop_one(base)
        self._tiers.reserve(self._total_bytes())

    def _total_bytes(self) -> int:
        """Sequences that were one share their checkpoints."""
        states = [each.state for base in self._bases for each in base.checkpoints]
        return sum(len(state) for state in {id(state): state for state in states}.values())

    def _ends_line(self, token_id: int) -> bool:
        """Also where a control token ends a turn of a chat template."""
        piece = self._runner.tokenizer.piece(token_id, special=False)
        return piece.endswith(b"\n") or not piece


def _drop_one(base: Base) -> None:
    """Drops the checkpoint whose neighbours are closest to each other, as seen from the end; the
    newest goes last."""
    places = [0, *(checkpoint.length for checkpoint in base.checkpoints)]
    end = len(base.tokens) + 1
    gaps = [
        (after - before) / (end - before) for before, after in zip(places, places[2:], strict=False)
    ]
    del base.checkpoints[gaps.index(min(gaps)) if gaps else 0]


def _lines(tokens: Sequence[int], ends_line: Callable[[int], bool]) -> Iterator[int]:
    """Starts of lines at growing distances from the end; where there is none, the place itself."""
    distance = _FIRST_DISTANCE
    while distance < len(tokens):
        place = len(tokens) - distance
        before = range(place, max(0, place - min(distance, _LONGEST_LINE)), -1)
        yield next((at for at in before if ends_line(tokens[at - 1])), place)
        distance *= _GROWTH
