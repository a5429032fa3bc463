"""The tokens that are still in the running."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from innkeeper.engine.runner import Logits

Indices = NDArray[np.int64]


@lru_cache(4)
def _every_id(num_vocab: int) -> NDArray[np.int32]:
    ids = np.arange(num_vocab, dtype=np.int32)
    ids.flags.writeable = False  # every sampler shares it
    return ids


class Candidates:
    """Token ids and their logits, two arrays (size,) of equal length.

    ``is_sorted`` says that they stand in order of falling logit. ``selected`` is the index of the
    chosen one once a step (mirostat, adaptive-p) has chosen, else -1. Steps change ``logits`` in
    place, or narrow both arrays with ``take``.
    """

    def __init__(self, num_vocab: int) -> None:
        self._every_id = _every_id(num_vocab)
        self.ids = self._every_id[:0]
        self.logits: Logits = np.zeros(0, np.float32)
        self.is_sorted = False
        self.selected = -1

    def begin(self, logits: Logits) -> None:
        """Starts again with every token. Takes over ``logits`` (num_vocab,) and will change it."""
        self.ids = self._every_id
        self.logits = logits
        self.is_sorted = False
        self.selected = -1

    @property
    def size(self) -> int:
        return int(self.ids.size)

    def drop_banned(self) -> None:
        """Drops the candidates whose logit is -inf, if there are any."""
        if self.logits.min(initial=0.0) == -np.inf:
            self.take(np.flatnonzero(self.logits > -np.inf), is_sorted=self.is_sorted)

    def take(self, indices: Indices, *, is_sorted: bool) -> None:
        """Goes on with the candidates at ``indices``, in that order."""
        self.ids = self.ids[indices]
        self.logits = self.logits[indices]
        self.is_sorted = is_sorted

    def cut(self, count: int) -> None:
        """Keeps the first ``count`` candidates."""
        self.ids = self.ids[:count]
        self.logits = self.logits[:count]

    def sort(self) -> None:
        """Orders by falling logit; equal logits stay as they stand."""
        if not self.is_sorted:
            self.take(np.argsort(-self.logits, kind="stable"), is_sorted=True)

    def locate(self, ids: Indices) -> tuple[Indices, Indices]:
        """Where tokens stand: (positions among the candidates, indices into ``ids``), for those of
        the distinct ``ids`` that are still candidates."""
        if self.ids is self._every_id:
            return ids, np.arange(ids.size)
        places = np.full(self._every_id.size, -1, np.int32)
        places[self.ids] = np.arange(self.size, dtype=np.int32)
        found = places[ids]
        present = np.flatnonzero(found >= 0)
        return found[present].astype(np.int64), present

    def weights(self) -> NDArray[np.float32]:
        """Probabilities (size,) relative to the likeliest, which has 1."""
        weights: NDArray[np.float32] = np.exp(self.logits - self.logits.max())
        return weights

    def probabilities(self) -> NDArray[np.float64]:
        """Softmax of the logits (size,)."""
        weights = self.weights()
        total = weights.sum(dtype=np.float64)
        result: NDArray[np.float64] = weights / total
        return result
