"""Classifier-free guidance: away from what the model would say behind a negative prompt."""

from innkeeper.engine.logprobs import log_softmax
from innkeeper.engine.runner import Logits


def guide(logits: Logits, against: Logits, scale: float) -> None:
    """Replaces ``logits`` (num_vocab,) by guided log probabilities. ``against``: the logits behind
    the negative prompt. 1 = unchanged, 0 = the negative prompt's.

    Source: Sanchez et al. 2023, "Stay on topic with Classifier-Free Guidance", arXiv:2306.17806.
    """
    away = log_softmax(against)
    logits[:] = away + scale * (log_softmax(logits) - away)
