"""Every sampler again, straight from its definition: plain Python, 64 bits, nothing clever.

A distribution is a dict token id -> logit (or probability). Each function returns a new one.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property

Logits = dict[int, float]


class Shared(dict[int, float]):
    """Logits that many tests look at and none changes: their softmax and order are found once."""

    @cached_property
    def softmax(self) -> "Shared":
        return Shared(_softmax(self))

    @cached_property
    def ranked(self) -> list[int]:
        return _ranked(self)


def softmax(logits: Logits) -> Logits:
    return logits.softmax if isinstance(logits, Shared) else _softmax(logits)


def ranked(values: Logits) -> list[int]:
    return values.ranked if isinstance(values, Shared) else _ranked(values)


def _softmax(logits: Logits) -> Logits:
    best = max(logits.values())
    weights = {i: math.exp(z - best) for i, z in logits.items()}
    total = math.fsum(weights.values())
    return {i: w / total for i, w in weights.items()}


def _ranked(values: Logits) -> list[int]:
    """Best first; of equals the lower id, which a stable sort keeps in front."""
    return sorted(sorted(values), key=values.__getitem__, reverse=True)


def entropy(logits: Logits) -> float:
    return -math.fsum(p * math.log(p) for p in softmax(logits).values() if p > 0)


def at_least(logits: Logits, kept: Sequence[int], min_keep: int) -> Logits:
    """``kept``, or the ``min_keep`` likeliest where those are more."""
    if len(kept) < max(1, min_keep):
        kept = ranked(logits)[: max(1, min_keep)]
    return {i: logits[i] for i in kept}


def top_k(logits: Logits, k: int, min_keep: int = 0) -> Logits:
    return at_least(logits, ranked(logits)[:k], min_keep)


def top_p(logits: Logits, limit: float, min_keep: int = 0) -> Logits:
    p, kept, total = softmax(logits), [], 0.0
    for token in ranked(logits):
        kept.append(token)
        total += p[token]
        if total >= limit:
            break
    return at_least(logits, kept, min_keep)


def min_p(logits: Logits, ratio: float, min_keep: int = 0) -> Logits:
    p = softmax(logits)
    best = max(p.values())
    return at_least(logits, [i for i in logits if p[i] >= ratio * best], min_keep)


def top_a(logits: Logits, a: float, min_keep: int = 0) -> Logits:
    p = softmax(logits)
    best = max(p.values())
    kept = [i for i in logits if p[i] >= a * best**2]
    return at_least(logits, kept, min_keep)


def epsilon_cutoff(logits: Logits, epsilon: float, min_keep: int = 0) -> Logits:
    p = softmax(logits)
    return at_least(logits, [i for i in logits if p[i] >= epsilon], min_keep)


def eta_cutoff(logits: Logits, epsilon: float, min_keep: int = 0) -> Logits:
    threshold = min(epsilon, math.sqrt(epsilon) * math.exp(-entropy(logits)))
    return epsilon_cutoff(logits, threshold, min_keep)


def typical_p(logits: Logits, limit: float, min_keep: int = 0) -> Logits:
    p, middle = softmax(logits), entropy(logits)
    order = sorted(p, key=lambda i: abs(-math.log(max(p[i], 1e-300)) - middle))
    kept, total = [], 0.0
    for token in order:
        kept.append(token)
        total += p[token]
        if total > limit and len(kept) >= min_keep:
            break
    return {i: logits[i] for i in kept}


def tail_free(logits: Logits, z: float, min_keep: int = 0) -> Logits:
    if len(logits) < 3:
        return logits
    order, p = ranked(logits), softmax(logits)
    first = [p[b] - p[a] for a, b in itertools.pairwise(order)]
    second = [abs(b - a) for a, b in itertools.pairwise(first)]
    whole = math.fsum(second)
    kept, total = [order[0]], 0.0
    for token, part in zip(order[1:-1], second, strict=True):
        total += part
        if total > z * whole:
            break
        kept.append(token)
    return at_least(logits, kept, min_keep)


def top_n_sigma(logits: Logits, n: float, min_keep: int = 0) -> Logits:
    mean = math.fsum(logits.values()) / len(logits)
    sigma = math.sqrt(math.fsum((z - mean) ** 2 for z in logits.values()) / len(logits))
    floor = max(logits.values()) - n * sigma
    return at_least(logits, [i for i, z in logits.items() if z >= floor], min_keep)


def xtc(logits: Logits, threshold: float, protected: Sequence[int] = ()) -> Logits:
    p = softmax(logits)
    above = [i for i in ranked(p) if p[i] >= threshold]
    dropped = set(above[:-1])
    if dropped & set(protected):
        return logits
    return {i: z for i, z in logits.items() if i not in dropped}


def temperature(logits: Logits, value: float) -> Logits:
    return {i: z / value for i, z in logits.items()}


def dynamic_temperature(logits: Logits, value: float, spread: float, exponent: float) -> Logits:
    low, high = max(0.0, value - spread), max(0.0, value + spread)
    share = entropy(logits) / math.log(len(logits))
    return temperature(logits, low + (high - low) * share**exponent)


def quadratic(logits: Logits, factor: float, curve: float) -> Logits:
    best = max(logits.values())
    k, s = (3 - curve) / 2, (curve - 1) / 2
    return {
        i: best - k * factor * (z - best) ** 2 + s * factor * (z - best) ** 3
        for i, z in logits.items()
    }


def skew(logits: Logits, amount: float) -> Logits:
    """Probabilities' logarithms: the cumulative sums C become C ** (e ** amount)."""
    p, total, before, changed = softmax(logits), 0.0, 0.0, {}
    for token in ranked(logits):
        total += p[token]
        after = min(1.0, total) ** math.exp(amount)
        changed[token] = math.log(after - before) if after > before else -math.inf
        before = after
    return changed


def adaptive_p(logits: Logits, target: float, decay: float, drawn: Sequence[float]) -> Logits:
    """``drawn``: the probabilities of the tokens drawn so far, before the change."""
    total, weight = target / (1 - decay), 1 / (1 - decay)
    for p in drawn:
        total, weight = p + decay * total, 1 + decay * weight
    aim = min(1.0, max(0.0, 2 * target - total / weight))
    changed = {}
    for token, p in softmax(logits).items():
        x = abs(p - aim) / 0.3
        changed[token] = 5 - 10 * x**2 / (1 + x)
    return changed


def mirostat_v1(logits: Logits, mu: float, num_vocab: int) -> Logits:
    p = softmax(logits)
    head = ranked(p)[:100]
    pairs = list(itertools.pairwise(head))
    t = [math.log((i + 2) / (i + 1)) for i in range(len(pairs))]
    b = [math.log(p[first] / p[second]) for first, second in pairs]
    s = sum(x * y for x, y in zip(t, b, strict=True)) / sum(x * x for x in t)
    e = s - 1
    k = ((e * 2**mu) / (1 - num_vocab**-e)) ** (1 / s)
    return top_k(logits, max(1, int(k)))


def mirostat_v2(logits: Logits, mu: float) -> Logits:
    p = softmax(logits)
    return at_least(logits, [i for i in p if -math.log2(max(p[i], 1e-300)) <= mu], 1)


def penalties(
    logits: Logits,
    history: Sequence[int],
    *,
    repetition: float = 1.0,
    presence: float = 0.0,
    frequency: float = 0.0,
    strength: Callable[[int, int], float] = lambda index, size: 1.0,
) -> Logits:
    """``history`` is the window; ``strength`` of its token ``index`` of ``size``, oldest first."""
    changed = dict(logits)
    for token in set(history):
        places = [i for i, each in enumerate(history) if each == token]
        strengths = [strength(i, len(history)) for i in places]
        penalty = 1 + (repetition - 1) * strengths[-1]
        z = changed[token]
        z = z / penalty if z > 0 else z * penalty
        changed[token] = z - presence * strengths[-1] - frequency * sum(strengths)
    return changed


def no_repeat_ngram(logits: Logits, history: Sequence[int], size: int) -> Logits:
    seen = Counter(tuple(history[i : i + size]) for i in range(len(history) - size + 1))
    last = tuple(history[len(history) - size + 1 :])
    return {i: z for i, z in logits.items() if (*last, i) not in seen}


def dry(
    logits: Logits,
    history: Sequence[int],
    multiplier: float,
    base: float,
    allowed: int,
    breakers: Sequence[tuple[int, ...]] = (),
) -> Logits:
    """By trying every length at every place."""
    size = len(history)
    starts = [
        (start, start + len(each))
        for each in breakers
        for start in range(size - len(each) + 1)
        if tuple(history[start : start + len(each)]) == each
    ]
    limit = size - max(starts)[1] if starts else size
    longest: dict[int, int] = {}
    for end in range(size - 1):
        length = 0
        while (
            length < limit and length <= end and history[end - length] == history[size - 1 - length]
        ):
            length += 1
        following = history[end + 1]
        if length >= allowed and (following,) not in breakers:
            longest[following] = max(longest.get(following, 0), length)
    changed = dict(logits)
    for token, length in longest.items():
        changed[token] -= multiplier * base ** (length - allowed)
    return changed
