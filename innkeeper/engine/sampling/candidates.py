"""The tokens that are still in the running."""

import numpy as np
from numpy.typing import NDArray

from innkeeper.engine.runner import Logits

CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""The memory layout of llama.cpp's ``llama_token_data``, so that its samplers work on it in
place."""


class Candidates:
    """A buffer of ``CANDIDATE`` records of which the first ``size`` count.

    ``is_sorted`` says that they stand in order of falling logit. ``selected`` is the index of the
    chosen one once a step (mirostat, adaptive-p) has chosen, else -1.
    """

    def __init__(self, num_vocab: int) -> None:
        self.buffer = np.zeros(num_vocab, CANDIDATE)
        self._ids = np.arange(num_vocab, dtype=np.int32)
        self.size = 0
        self.is_sorted = False
        self.selected = -1

    def fill(self, logits: Logits) -> None:
        """Starts again with every token of ``logits`` (num_vocab,) that is not banned."""
        banned = np.isneginf(logits)
        if banned.any():
            keep = np.flatnonzero(~banned)
            self.buffer["id"][: keep.size] = keep
            self.buffer["logit"][: keep.size] = logits[keep]
            self.size = keep.size
        else:
            self.buffer["id"] = self._ids
            self.buffer["logit"] = logits
            self.size = logits.size
        self.is_sorted = False
        self.selected = -1

    @property
    def data(self) -> NDArray[np.void]:
        """View of the records that count."""
        return self.buffer[: self.size]

    @property
    def logits(self) -> Logits:
        """View (size,) of the logits; writing to it changes the candidates."""
        view: Logits = self.data["logit"]
        return view

    def sort(self) -> None:
        """Orders by falling logit; equal logits by rising id."""
        if not self.is_sorted:
            data = self.data
            order = np.lexsort((data["id"], -data["logit"]))
            data[:] = data[order]
            self.is_sorted = True

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Drops the candidates whose ``mask`` (size,) is False; order stays."""
        kept = self.data[mask]
        self.buffer[: kept.size] = kept
        self.size = kept.size

    def probabilities(self) -> NDArray[np.float64]:
        """Softmax of the logits (size,)."""
        logits = self.logits.astype(np.float64)
        weights = np.exp(logits - logits.max())
        result: NDArray[np.float64] = weights / weights.sum()
        return result
