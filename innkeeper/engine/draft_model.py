"""A small model that guesses what the large one will say.

One ``forward`` of the large model checks all guesses. Each is compared with the token that the
sampler draws at its place, with the same random numbers as without guesses, so the reply is the
same; wrong guesses only cost time. Source: Leviathan et al. 2023, "Fast Inference from Transformers
via Speculative Decoding", arXiv:2211.17192, with exact matches in place of their acceptance rule.
"""

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from innkeeper.engine.payoff import Payoff
from innkeeper.engine.reuse import common_prefix
from innkeeper.engine.runner import Logits, Row, Runner
from innkeeper.errors import EngineError

logger = logging.getLogger(__name__)

MOST_GUESSES = 16
_WINDOW = 256
"""Tokens that it reads of a text that is new to it; the rest would cost more than it helps."""
_FIRST_LENGTH = 3
_SEQUENCE_ID = 0


class DraftModel:
    """Guesses for whichever sequence is running alone; its cache follows the text that it is asked
    about. Used by the loop's thread.

    num_vocab: of the large model; ids from there on are never guessed.
    """

    def __init__(
        self, runner: Runner, num_vocab: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._runner = runner
        self._num_vocab = min(num_vocab, runner.facts.num_vocab)
        self._window = min(_WINDOW, runner.facts.num_ctx - MOST_GUESSES)
        self._clock = clock
        self._payoff = Payoff()
        self._start = 0
        """Where in the text the cache begins."""
        self._cached: list[int] = []
        self._length = _FIRST_LENGTH
        """Most guesses at once: more while they are right."""
        self._is_broken = False
        self._chances: list[float] = []
        """Of each of the last guesses, that it and those before it are right."""
        self._seconds = 0.0
        """What the last guesses took."""

    def draft(self, tokens: Sequence[int], room: int) -> list[int]:
        """Up to ``room`` tokens that may follow ``tokens``; none where they would not pay."""
        self._chances, self._seconds = [], 0.0
        if self._is_broken or not self._payoff.has_credit:
            return []
        started = self._clock()
        found = self._draft(tokens, room)
        self._seconds = self._clock() - started
        return found

    def _draft(self, tokens: Sequence[int], room: int) -> list[int]:
        start, view, num_read = self._aim(tokens)
        if not self._payoff.can_afford(len(view) - num_read):
            return []
        try:
            self._cut(start, num_read)
            return self._guess(view[num_read:], min(room, self._length))
        except EngineError as error:
            logger.warning("the draft model is not asked any more: %s", error)
            self._is_broken = True
            return []

    def observe(self, num_drafted: int, num_right: int, seconds: float) -> None:
        """Learns how many of the last guesses were right, and what the large model's step took."""
        if num_drafted:
            if num_right == num_drafted:
                self._length = min(MOST_GUESSES, 2 * self._length)
            elif 2 * num_right < num_drafted:
                self._length = max(1, self._length // 2)
            self._payoff.guessed(num_right, self._chances, seconds, self._seconds)
        else:
            self._payoff.plain(seconds, self._seconds)

    def earn(self, seconds: float) -> None:
        """Follows time in which prompts were read."""
        self._payoff.earn(seconds)

    def _guess(self, unread: list[int], most: int) -> list[int]:
        found: list[int] = []
        chance = 1.0
        while True:
            started = self._clock()
            token_id, share = self._best(self._read(unread))
            self._payoff.learn(len(unread), self._clock() - started)
            chance *= share
            if not self._payoff.is_worth_checking(chance):
                return found
            found.append(token_id)
            self._chances.append(chance)
            if len(found) == most or not self._payoff.is_worth_guessing(chance):
                return found
            unread = [token_id]

    def _aim(self, tokens: Sequence[int]) -> tuple[int, list[int], int]:
        """Where in the text the model begins to see, what it sees, and how much of that it has read
        already: what it has, or the text's end where that is too far behind."""
        view = self._view(tokens, self._start)
        num_read = min(common_prefix(self._cached, view), len(view) - 1)
        if num_read > 0 and self._can_go_on(num_read, len(view)):
            return self._start, view, num_read
        start = max(0, len(tokens) - self._window)
        return start, self._view(tokens, start), 0

    def _can_go_on(self, num_read: int, length: int) -> bool:
        return (
            length - num_read <= 2 * self._window
            and length + MOST_GUESSES <= self._runner.facts.num_ctx
            and self._runner.can_resume(_SEQUENCE_ID, num_read, len(self._cached))
        )

    def _view(self, tokens: Sequence[int], start: int) -> list[int]:
        """``tokens`` from ``start`` on, with BOS, which many models need, in the first one's
        place."""
        view, bos_id = list(tokens[start:]), self._runner.facts.bos_id
        if start and view and bos_id is not None and self._runner.facts.add_bos:
            view[0] = bos_id
        return view

    def _cut(self, start: int, length: int) -> None:
        if length < len(self._cached):
            self._runner.remove(_SEQUENCE_ID, length)
            del self._cached[length:]
        self._start = start

    def _read(self, tokens: list[int]) -> Logits:
        """The logits behind ``tokens``, which go on from what is cached."""
        first, last = len(self._cached), len(self._cached) + len(tokens) - 1
        rows = [Row(t, p, _SEQUENCE_ID, p == last) for p, t in enumerate(tokens, first)]
        outputs: list[Logits] = []
        for at in range(0, len(rows), self._runner.max_rows):
            outputs = self._runner.forward(rows[at : at + self._runner.max_rows])
        self._cached += tokens
        return outputs[-1]

    def _best(self, logits: Logits) -> tuple[int, float]:
        """The likeliest token and its probability."""
        logits = logits[: self._num_vocab]
        token_id = int(logits.argmax())
        return token_id, 1.0 / float(np.exp(logits - logits[token_id]).sum())
