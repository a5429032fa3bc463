"""The steps that narrow the candidates, in numpy, as their papers define them.

Each takes the candidates and its parameters, and narrows them in place. At least ``min_keep`` (and
at least one) candidates remain, the likeliest ones. No step sorts more of them than it must: at a
vocabulary of 152k a full sort takes ten times as long as all the rest. p is softmax(logits).
"""

import numpy as np
from numpy.typing import NDArray

from innkeeper.engine.sampling.candidates import Candidates, Indices

_FIRST_CUTOFF = 2.0**-6
_CUTOFF_STEP = 2.0**-6
_LAST_CUTOFF = 2.0**-100
_FLAT = 2.0**-16
_NO_MASS = np.float32(-1000.0)


def top_k(candidates: Candidates, k: int, min_keep: int = 0) -> None:
    """Keeps the ``k`` largest logits. Source: Fan et al. 2018, arXiv:1805.04833."""
    k = max(k, min_keep, 1)
    if k >= candidates.size:
        return
    if candidates.is_sorted:
        candidates.cut(k)
        return
    logits = candidates.logits
    floor, reach = logits.max(), np.float32(4)
    while True:
        head = np.flatnonzero(logits >= floor - reach)
        if head.size >= k:
            break
        reach *= 2
    order = np.argsort(-logits[head], kind="stable")[:k]
    candidates.take(head[order], is_sorted=True)


def top_p(candidates: Candidates, p: float, min_keep: int = 0, floor: float = 0.0) -> None:
    """Keeps the smallest set of the likeliest tokens whose probabilities reach ``p``.

    ``floor`` > 0 also drops what is less than ``floor`` times as likely as the likeliest: top-p
    and then min-p in one, which sorts much less. Source: Holtzman et al. 2019, arXiv:1904.09751.
    """
    weights = candidates.weights()
    mass = p * float(weights.sum(dtype=np.float64))
    head, reached = _head(weights, mass, floor)
    if reached < mass:
        candidates.take(head, is_sorted=candidates.is_sorted)
        return
    head = head[np.argsort(-weights[head], kind="stable")]
    total = np.cumsum(weights[head], dtype=np.float64)
    count = min(int(np.searchsorted(total, mass, side="left")) + 1, head.size)
    if count < min_keep:
        top_k(candidates, min_keep)
    else:
        candidates.take(head[:count], is_sorted=True)


def _head(weights: NDArray[np.float32], mass: float, floor: float) -> tuple[Indices, float]:
    """Indices of the largest ``weights``, unsorted, and their sum: ``mass`` or more, unless
    everything that is at least ``floor`` has less."""
    cutoff = _FIRST_CUTOFF
    while True:
        lowest = max(cutoff if cutoff >= _LAST_CUTOFF else 0.0, floor)
        head = np.flatnonzero(weights >= np.float32(lowest))
        reached = float(weights[head].sum(dtype=np.float64))
        if reached >= mass or lowest != cutoff:
            return head, reached
        cutoff *= _CUTOFF_STEP


def min_p(candidates: Candidates, ratio: float, min_keep: int = 0) -> None:
    """Keeps tokens at least ``ratio`` times as likely as the likeliest.

    Source: Nguyen et al. 2024, arXiv:2407.01082.
    """
    keep_above(candidates, float(np.log(ratio)), min_keep)


def keep_above(candidates: Candidates, distance: float, min_keep: int = 0) -> None:
    """Keeps logits of at least the largest plus ``distance`` (<= 0)."""
    logits = candidates.logits
    head = np.flatnonzero(logits >= logits.max() + np.float32(min(0.0, distance)))
    if head.size < min_keep:
        top_k(candidates, min_keep)
    elif head.size < candidates.size:
        candidates.take(head, is_sorted=candidates.is_sorted)


def top_a(candidates: Candidates, a: float, min_keep: int = 0) -> None:
    """Keeps p >= ``a`` * p_max**2, so p / p_max >= a * p_max.

    Source: BlinkDL, RWKV-LM (README, "top-a").
    """
    best = 1.0 / float(candidates.weights().sum(dtype=np.float64))
    keep_above(candidates, float(np.log(a * best)), min_keep)


def epsilon_cutoff(candidates: Candidates, epsilon: float, min_keep: int = 0) -> None:
    """Drops p < ``epsilon``. Source: Hewitt et al. 2022, arXiv:2210.15191, section 5."""
    total = float(candidates.weights().sum(dtype=np.float64))
    keep_above(candidates, float(np.log(epsilon * total)), min_keep)


def eta_cutoff(candidates: Candidates, epsilon: float, min_keep: int = 0) -> None:
    """Drops p < min(``epsilon``, sqrt(``epsilon``) * exp(-entropy)).

    Source: Hewitt et al. 2022, arXiv:2210.15191, algorithm 1.
    """
    threshold = min(epsilon, float(np.sqrt(epsilon) * np.exp(-entropy(candidates))))
    epsilon_cutoff(candidates, threshold, min_keep)


def entropy(candidates: Candidates) -> float:
    """-sum p ln p, in nats."""
    logits = np.maximum(candidates.logits - candidates.logits.max(), _NO_MASS)
    weights = np.exp(logits)
    total = float(weights.sum(dtype=np.float64))
    mean = float(np.multiply(weights, logits, out=logits).sum(dtype=np.float64)) / total
    return float(np.log(total)) - mean


def typical_p(candidates: Candidates, p: float, min_keep: int = 0) -> None:
    """Keeps the tokens whose surprise -ln p is nearest to the entropy, up to mass > ``p``.

    Source: Meister et al. 2022, arXiv:2202.00666.
    """
    middle = entropy(candidates)
    probabilities = candidates.weights()
    probabilities /= np.float32(probabilities.sum(dtype=np.float64))
    surprise = -np.log(np.maximum(probabilities, np.float32(1e-37)))
    distance = np.abs(surprise - np.float32(middle))
    reach = np.float32(0.5)
    while True:
        near = np.flatnonzero(distance <= reach)
        mass = float(probabilities[near].sum(dtype=np.float64))
        if near.size == candidates.size or (mass > p and near.size >= min_keep):
            break
        reach *= 2
    near = near[np.argsort(distance[near], kind="stable")]
    total = np.cumsum(probabilities[near], dtype=np.float64)
    count = int(np.searchsorted(total, p, side="right")) + 1
    kept = np.sort(near[: max(count, min_keep, 1)])
    candidates.take(kept, is_sorted=candidates.is_sorted)


def tail_free(candidates: Candidates, z: float, min_keep: int = 0) -> None:
    """Cuts the tail where the curve of sorted probabilities has become flat.

    The absolute second differences of the sorted p, normalised to 1, are added up: what comes
    after the sum exceeds ``z`` is dropped, and always the last. Source: trentbrick 2019, "Tail
    Free Sampling"; centred as text-generation-webui and KoboldAI do.
    """
    if candidates.size < 3:
        return
    weights = candidates.weights()
    count = _num_curved(np.sort(weights[weights >= np.float32(_FLAT)])[::-1], z)
    if count is None:
        candidates.sort()
        curvature = np.cumsum(np.abs(np.diff(candidates.weights().astype(np.float64), n=2)))
        count = 1 + int(np.searchsorted(curvature, z * curvature[-1], side="right"))
    top_k(candidates, count, min_keep)


def _num_curved(head: NDArray[np.float32], z: float) -> int | None:
    """How many tokens tail-free keeps, from the likeliest ones' sorted weights; None where the
    others might change that. Their second differences add up to twice their first weight at most,
    since |b - 2c + d| <= (b - c) + (c - d).
    """
    if head.size < 3:
        return None
    curvature = np.cumsum(np.abs(np.diff(head.astype(np.float64), n=2)))
    least, most = curvature[-1], curvature[-1] + 2 * float(head[-2])
    low, high = np.searchsorted(curvature, [z * least, z * most], side="right")
    return 1 + int(low) if low == high < curvature.size else None


def top_n_sigma(candidates: Candidates, n: float, min_keep: int = 0) -> None:
    """Keeps logits within ``n`` population standard deviations of the largest.

    Source: Tang et al. 2024, arXiv:2411.07641.
    """
    candidates.drop_banned()
    deviation = float(candidates.logits.std(dtype=np.float64))
    keep_above(candidates, -n * deviation, min_keep)


def xtc(
    candidates: Candidates,
    threshold: float,
    min_keep: int = 0,
    protected: NDArray[np.int32] | None = None,
) -> None:
    """Drops all but the least likely of the tokens with p >= ``threshold``; the caller rolls the
    dice. Nothing happens where one of the ``protected`` ids would be dropped.

    Source: text-generation-webui pull request 6335 (definition).
    """
    probabilities = candidates.probabilities()
    above = np.flatnonzero(probabilities >= threshold)
    if above.size < 2 or candidates.size - above.size + 1 < min_keep:
        return
    above = above[np.argsort(-probabilities[above], kind="stable")]
    dropped = above[:-1]
    if protected is not None and np.isin(candidates.ids[dropped], protected).any():
        return
    keep = np.ones(candidates.size, np.bool_)
    keep[dropped] = False
    candidates.take(np.flatnonzero(keep), is_sorted=candidates.is_sorted)
