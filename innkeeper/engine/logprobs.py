"""Log probabilities before any sampling step, as clients ask for them."""

import numpy as np

from innkeeper.core import TokenLogprob
from innkeeper.engine.runner import Logits, Tokenizer


def log_softmax(logits: Logits) -> Logits:
    """Natural-log probabilities of ``logits`` (num_vocab,)."""
    shifted = logits - logits.max()
    result: Logits = shifted - np.log(np.exp(shifted, dtype=np.float64).sum()).astype(np.float32)
    return result


def largest(values: Logits, count: int) -> list[int]:
    """Indices of the ``count`` largest values, best first."""
    count = min(count, values.size)
    if count == 0:
        return []
    found = np.argpartition(values, -count)[-count:]
    return [int(i) for i in found[np.argsort(-values[found], kind="stable")]]


def token_logprob(
    token_id: int, logprobs: Logits, num_top: int, tokenizer: Tokenizer
) -> TokenLogprob:
    """A token's entry with the ``num_top`` likeliest alternatives."""

    def piece(token: int) -> bytes:
        return tokenizer.piece(token, special=True)

    top = tuple((t, piece(t), float(logprobs[t])) for t in largest(logprobs, num_top))
    return TokenLogprob(token_id, piece(token_id), float(logprobs[token_id]), top)
