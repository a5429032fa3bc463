"""One choice of one request on its way through the engine."""

import time
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from innkeeper.core import GenerateRequest, Timings
from innkeeper.core.frames import Probe
from innkeeper.engine.guesses import Guesses
from innkeeper.engine.reasoning import Reasoning
from innkeeper.engine.reply import ReplyText
from innkeeper.engine.reuse import Policy
from innkeeper.engine.runner import Sampler

if TYPE_CHECKING:
    from innkeeper.engine.grammar import Grammar


class Status(Enum):
    WAITING = auto()
    PREFILL = auto()
    DECODE = auto()
    DONE = auto()


@dataclass(eq=False)
class Sequence:
    """``tokens`` is the prompt and what was generated; the last ones may not be evaluated yet."""

    request_id: int
    index: int
    request: GenerateRequest
    tokens: list[int]
    num_prompt: int
    max_length: int
    """Tokens at which the reply ends with ``length``."""
    sampler: Sampler
    reply: ReplyText
    grammar: "Grammar | None" = None
    reasoning: Reasoning | None = None
    heals: bytes = b""
    """What the reply's first token begins with; the prompt's text has it already."""
    shown_ids: frozenset[int] = frozenset()
    """Special tokens that appear in the text."""
    policy: Policy = Policy.EXACT
    speaker: str = ""
    """Whose turn it is, if the prompt says so (``prompt.next_speaker``)."""
    shadow: "Sequence | None" = None
    """What guidance moves away from: the negative prompt with the same reply, evaluated beside."""
    shadow_of: "Sequence | None" = None
    leader: "Sequence | None" = None
    """The choice whose prompt this one shares; it waits until that prompt is read."""
    truncated_n: int = 0
    is_idle_work: bool = False
    """Whether nobody waits for it (``idle``)."""
    probe: Probe | None = None
    """Set where the next-token distribution is asked for, not a reply."""

    guesses: Guesses | None = None
    draft: list[int] = field(default_factory=list)
    """Guesses behind ``tokens`` that the current batch checks."""
    num_drafted: int = 0
    num_accepted: int = 0
    bans: dict[int, set[int]] = field(default_factory=dict)
    """Position -> tokens that may not come there, since a banned phrase began with them."""

    status: Status = Status.WAITING
    sequence_id: int = -1
    num_cached: int = 0
    """Tokens of ``tokens`` that are in the KV cache."""
    num_reused: int = 0
    """Prompt tokens whose cache was reused exactly."""
    num_reused_approx: int = 0
    """Prompt tokens whose cache was reused over an edit."""
    num_restored: int = 0
    """Those of the two that came from memory or disk."""
    num_evaluated: int = 0
    """Prompt tokens evaluated for this choice, those read again after a preemption included."""
    arrived: float = field(default_factory=time.perf_counter)
    started: float = 0.0
    prefilled: float = 0.0

    @property
    def num_readable(self) -> int:
        """Tokens of the prompt that may be read now. With a shadow, the last token of the two is
        read in one batch, once nothing else is unread."""
        return self.num_to_read - (self._pair is not None)

    @property
    def is_decoding(self) -> bool:
        """Whether its last token, and its shadow's, is all there is to read."""
        if self._pair is None:
            return self.status is Status.DECODE
        return self.num_to_read == 1 and self._pair.num_to_read == 1

    @property
    def _pair(self) -> "Sequence | None":
        return self.shadow or self.shadow_of

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - self.num_prompt

    @property
    def num_to_read(self) -> int:
        """Tokens still to be evaluated before the next one can be sampled."""
        return len(self.tokens) - self.num_cached

    @property
    def is_complete(self) -> bool:
        """Whether a stop string or the constraint has ended the reply."""
        if self.reply.stop_text is not None:
            return True
        return self.active_grammar is not None and self.active_grammar.is_finished

    @property
    def active_grammar(self) -> "Grammar | None":
        """The constraint, unless the reply is still reasoning."""
        return None if self.reasoning is not None and self.reasoning.is_inside else self.grammar

    def accept(self, token_id: int, piece: bytes) -> None:
        """Follows the reply by its newest token, but for its text."""
        self.sampler.accept(token_id)
        if self.active_grammar is not None:
            self.active_grammar.accept(token_id)
        if self.reasoning is not None:
            self.reasoning.accept(piece, was_forced=self.reasoning.forced() == token_id)

    def take_back(self, count: int) -> None:
        """Undoes the last ``count`` tokens, of which the first may not come there again."""
        length = len(self.tokens) - count
        self.bans = {at: tokens for at, tokens in self.bans.items() if at <= length}
        self.bans.setdefault(length, set()).add(self.tokens[length])
        del self.tokens[length:]
        if self.shadow is not None:
            del self.shadow.tokens[len(self.shadow.tokens) - count :]
        self.sampler.rewind(count)
        if self.reasoning is not None:
            self.reasoning.rewind(count)
        if self.grammar is not None:
            self.grammar.rewind(count)
        if self.guesses is not None:
            self.guesses.forget(length)

    def timings(self) -> Timings:
        now = time.perf_counter()
        started = self.started or now
        prefilled = self.prefilled or now
        return Timings(
            prompt_n=self.num_evaluated,
            cache_n=self.num_reused,
            cache_approx_n=self.num_reused_approx,
            restored_n=self.num_restored,
            prompt_ms=(prefilled - started) * 1000,
            predicted_n=self.num_generated,
            predicted_ms=(now - prefilled) * 1000 if self.prefilled else 0.0,
            draft_n=self.num_drafted,
            draft_n_accepted=self.num_accepted,
            reasoning_n=self.reasoning.num_tokens if self.reasoning is not None else 0,
            queue_ms=(started - self.arrived) * 1000,
        )
