"""Which token comes next, of those that may."""

import numpy as np

from innkeeper.engine.logprobs import keep_only
from innkeeper.engine.runner import Logits
from innkeeper.engine.sequence import Sequence
from innkeeper.engine.vocabulary import Vocabulary


class Chooser:
    """What holds for a sequence whatever its samplers say: end tokens, healing, the constraint,
    and the tokens that banned phrases begin with."""

    def __init__(self, vocabulary: Vocabulary, end_ids: frozenset[int]) -> None:
        self._vocabulary = vocabulary
        self._end_ids = list(end_ids)

    def choose(self, sequence: Sequence, logits: Logits) -> int | None:
        """The next token; None where the constraint allows none, so that the reply is complete.
        Changes ``logits`` (num_vocab,)."""
        forced = sequence.reasoning.forced() if sequence.reasoning is not None else None
        if forced is not None and forced not in sequence.bans.get(len(sequence.tokens), ()):
            return forced
        if not self.restrict(sequence, logits):
            return None
        return sequence.sampler.sample(logits)

    def restrict(self, sequence: Sequence, logits: Logits) -> bool:
        """Bans in ``logits`` what may not come next. False if nothing may."""
        sampling = sequence.request.sampling
        if sampling.ban_eos or sequence.num_generated < sampling.min_tokens:
            logits[self._end_ids] = -np.inf
        if sequence.heals and not sequence.num_generated:
            keep_only(logits, self._vocabulary.beginning_with(sequence.heals))
        grammar = sequence.active_grammar
        if grammar is not None and not grammar.restrict(logits):
            return False
        logits[list(sequence.bans.get(len(sequence.tokens), ()))] = -np.inf
        return True
