"""Where a reply reasons: followed token by token, and ended when its budget is spent."""

from typing import NamedTuple

from innkeeper.core import ReplyForm
from innkeeper.engine.runner import Tokenizer


class _State(NamedTuple):
    phase: str
    """``before`` (it may still begin), ``inside`` or ``after``."""
    tail: bytes
    num_tokens: int
    num_forced: int


class Reasoning:
    """One reply's. A constraint of the reply holds from its end on.

    budget: most tokens of it; then its end mark is written, token by token.
    """

    def __init__(self, form: ReplyForm, budget: int | None, tokenizer: Tokenizer) -> None:
        self._opened, self._closed = (mark.encode() for mark in form.reasoning)
        self._budget = budget
        self._end_tokens = tokenizer.encode(
            form.reasoning_end or f"\n{form.reasoning[1]}\n\n",
            add_special=False,
            parse_special=True,
        )
        first = "inside" if form.in_reasoning else "before"
        self._states = [_State(first, b"", 0, 0)]

    @property
    def num_tokens(self) -> int:
        return self._states[-1].num_tokens

    @property
    def is_inside(self) -> bool:
        """Whether the next token belongs to it, or to its end."""
        state = self._states[-1]
        return state.phase == "inside" or state.num_forced > 0

    def forced(self) -> int | None:
        """The token that must come next."""
        state = self._states[-1]
        is_spent = self._budget is not None and state.num_tokens >= self._budget
        if state.num_forced or (is_spent and state.phase == "inside"):
            return self._end_tokens[state.num_forced]
        return None

    def accept(self, piece: bytes, *, was_forced: bool) -> None:
        """Follows the reply by one token."""
        state = self._states[-1]
        if state.phase == "after" and not state.num_forced:
            self._states.append(state)
            return
        tail, phase = state.tail + piece, state.phase
        if phase == "before":
            bare = tail.lstrip()
            if bare.startswith(self._opened):
                phase, tail = "inside", bare[len(self._opened) :]
            elif not self._opened.startswith(bare):
                phase = "after"
        if phase == "inside" and self._closed in tail:
            phase = "after"
        num_forced = state.num_forced + 1 if was_forced else 0
        if num_forced >= len(self._end_tokens):
            num_forced = 0
        tail = tail if phase == "before" else tail[-len(self._closed) :]
        num_tokens = state.num_tokens + (state.phase == "inside")
        self._states.append(_State(phase, tail, num_tokens, num_forced))

    def rewind(self, count: int) -> None:
        """Takes the last ``count`` tokens back."""
        del self._states[len(self._states) - count :]
