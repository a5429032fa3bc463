"""The sampling steps in numpy, one function each, as their papers define them.

Each takes the candidates and its parameters, and narrows or reweights them in place. At least
``min_keep`` (and at least one) candidates remain. Backends that have a native form of a step may
give it instead (``chain.NativeSteps``); tests hold the two against each other.
"""

import numpy as np

from innkeeper.engine.sampling.candidates import Candidates


def temperature(candidates: Candidates, value: float) -> None:
    """Divides the logits by ``value`` > 0."""
    candidates.logits[:] /= value


def dynamic_temperature(
    candidates: Candidates, value: float, spread: float, exponent: float
) -> None:
    """Temperature between ``value - spread`` and ``value + spread`` by the normalised entropy.

    Source: llama.cpp pull request 4972.
    """
    low, high = max(0.0, value - spread), value + spread
    if candidates.size <= 1:
        return
    p = candidates.probabilities()
    entropy = -float(np.sum(p * np.log(np.maximum(p, 1e-45))))
    scale = low + (high - low) * (entropy / np.log(candidates.size)) ** exponent
    temperature(candidates, max(scale, 1e-5))


def top_k(candidates: Candidates, k: int, min_keep: int = 0) -> None:
    """Keeps the ``k`` largest logits. Source: Fan et al. 2018, arXiv:1805.04833."""
    k = max(k, min_keep, 1)
    if k < candidates.size:
        candidates.sort()
        candidates.size = k


def top_p(candidates: Candidates, p: float, min_keep: int = 0) -> None:
    """Keeps the smallest set of the likeliest tokens whose probabilities reach ``p``.

    Source: Holtzman et al. 2019, arXiv:1904.09751.
    """
    candidates.sort()
    total = np.cumsum(candidates.probabilities())
    candidates.size = min(
        candidates.size, max(int(np.searchsorted(total, p, side="left")) + 1, min_keep)
    )


def min_p(candidates: Candidates, ratio: float, min_keep: int = 0) -> None:
    """Keeps tokens at least ``ratio`` times as likely as the likeliest.

    Source: Nguyen et al. 2024, arXiv:2407.01082.
    """
    logits = candidates.logits
    mask = logits >= logits.max() + np.float32(np.log(ratio))
    if int(mask.sum()) >= min_keep:
        candidates.keep(mask)
    else:
        candidates.sort()
        candidates.size = min(candidates.size, min_keep)


def typical_p(candidates: Candidates, p: float, min_keep: int = 0) -> None:
    """Keeps the tokens whose surprise is nearest to the entropy, up to mass ``p``.

    Source: Meister et al. 2022, arXiv:2202.00666.
    """
    probabilities = candidates.probabilities()
    surprise = -np.log(np.maximum(probabilities, 1e-45))
    distance = np.abs(surprise - np.sum(probabilities * surprise))
    order = np.argsort(distance, kind="stable")
    total = np.cumsum(probabilities[order])
    count = int(np.searchsorted(total, p, side="right")) + 1
    count = min(candidates.size, max(count, min_keep, 1))
    mask = np.zeros(candidates.size, np.bool_)
    mask[order[:count]] = True
    candidates.keep(mask)


def top_n_sigma(candidates: Candidates, n: float) -> None:
    """Keeps logits within ``n`` population standard deviations of the largest.

    Source: Tang et al. 2024, arXiv:2411.07641.
    """
    logits = candidates.logits
    candidates.keep(logits >= logits.max() - n * logits.std(dtype=np.float64))


def xtc(candidates: Candidates, threshold: float, min_keep: int = 0) -> None:
    """Drops all but the least likely of the tokens with probability >= ``threshold``.

    The caller rolls the dice. Source: text-generation-webui pull request 6335 (definition).
    """
    candidates.sort()
    num_above = int(np.sum(candidates.probabilities() >= threshold))
    if num_above >= 2 and candidates.size - (num_above - 1) >= min_keep:
        rest = candidates.data[num_above - 1 :].copy()
        candidates.buffer[: rest.size] = rest
        candidates.size = rest.size
