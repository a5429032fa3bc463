"""Log probabilities before any sampling step, as clients ask for them."""

import numpy as np
from numpy.typing import NDArray

from innkeeper.core import TokenLogprob
from innkeeper.engine.runner import Logits, Ranked, Tokenizer


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


def likeliest(logits: Logits, count: int) -> Ranked:
    """The ``count`` likeliest tokens."""
    probabilities = np.exp(log_softmax(logits))
    ids = np.asarray(largest(probabilities, count), np.int32)
    return ids, probabilities[ids]


def keep_only(logits: Logits, ids: NDArray[np.int64]) -> None:
    """Bans all tokens but ``ids`` in ``logits`` (num_vocab,)."""
    kept = logits[ids]
    logits.fill(-np.inf)
    logits[ids] = kept


def spread(ranked: Ranked, token_id: int | None, num_vocab: int) -> Logits:
    """Log probabilities (num_vocab,) of what ``token_id`` was drawn from; -inf for all others. One
    that was forced has 0."""
    logprobs = np.full(num_vocab, -np.inf, np.float32)
    ids, probabilities = ranked
    with np.errstate(divide="ignore"):
        logprobs[ids] = np.log(probabilities)
    if token_id is not None and logprobs[token_id] == -np.inf:
        logprobs[:], logprobs[token_id] = -np.inf, 0.0
    return logprobs


def token_logprob(
    token_id: int, logprobs: Logits, num_top: int, tokenizer: Tokenizer
) -> TokenLogprob:
    """A token's entry with the ``num_top`` likeliest alternatives, none of them impossible."""

    def piece(token: int) -> bytes:
        return tokenizer.piece(token, special=True)

    best = [t for t in largest(logprobs, num_top) if logprobs[t] > -np.inf]
    top = tuple((t, piece(t), float(logprobs[t])) for t in best)
    return TokenLogprob(token_id, piece(token_id), float(logprobs[token_id]), top)
