"""The steps that change how likely the candidates are, in place, and drop none.

z are logits, p is softmax(z), H its entropy.
"""

import numpy as np

from innkeeper.engine.sampling.candidates import Candidates
from innkeeper.engine.sampling.truncation import entropy

_LEAST_TEMPERATURE = 1e-5


def temperature(candidates: Candidates, value: float) -> None:
    """Divides the logits by ``value`` > 0."""
    candidates.logits /= np.float32(max(value, _LEAST_TEMPERATURE))


def dynamic_temperature(
    candidates: Candidates, value: float, spread: float, exponent: float
) -> None:
    """Temperature from ``value - spread`` to ``value + spread``: low + (high - low) *
    (H / ln(number of candidates)) ** ``exponent``. A negative ``spread`` turns it round.

    Source: llama.cpp pull request 4972.
    """
    if candidates.size <= 1:
        return
    low, high = max(0.0, value - spread), max(0.0, value + spread)
    share = max(0.0, entropy(candidates) / float(np.log(candidates.size)))
    temperature(candidates, low + (high - low) * share**exponent)


def quadratic(candidates: Candidates, factor: float, curve: float) -> None:
    """z' = z_max - k * f * d**2 + s * f * d**3 with d = z - z_max, k = (3 - c) / 2 and
    s = (c - 1) / 2, for ``factor`` f and ``curve`` c.

    Source: text-generation-webui pull requests 5403 and 5551 (definition).
    """
    best = candidates.logits.max()
    distance = candidates.logits - best
    square = np.float32(-factor * (3 - curve) / 2)
    cube = np.float32(factor * (curve - 1) / 2)
    with np.errstate(over="ignore", invalid="ignore"):  # far below the best one, -inf is meant
        changed = best + distance * distance * (square + cube * distance)
    candidates.logits[:] = np.where(np.isfinite(distance), changed, -np.inf)
    candidates.is_sorted = candidates.is_sorted and 1 <= curve <= 3


def skew(candidates: Candidates, amount: float) -> None:
    """Raises the cumulative probability, the likeliest token first, to the power e ** ``amount``:
    above 0 mass moves to the tail, below 0 to the head.

    The same as drawing with u ** (e ** -amount) in place of u. Source: exllamav2, commit 1de4cdd
    (definition).
    """
    candidates.sort()
    total = np.cumsum(candidates.probabilities())
    total[-1] = 1.0
    warped = np.diff(np.minimum(total, 1.0) ** np.exp(amount), prepend=0.0)
    with np.errstate(divide="ignore"):  # a token without mass has the logit -inf
        candidates.logits[:] = np.log(warped)
    candidates.is_sorted = False
