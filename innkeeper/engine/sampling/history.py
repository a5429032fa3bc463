"""The tokens that came before: the prompt, then the reply."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_FIRST_ROOM = 256


class History:
    """A growing array of token ids, shared by the steps of one sampler."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self.num_prompt = len(prompt)
        self._buffer = np.zeros(len(prompt) + _FIRST_ROOM, np.int32)
        self._buffer[: len(prompt)] = prompt
        self._size = len(prompt)

    def __len__(self) -> int:
        return self._size

    @property
    def num_reply(self) -> int:
        return self._size - self.num_prompt

    @property
    def tokens(self) -> NDArray[np.int32]:
        """View (len,) of all tokens, oldest first."""
        return self._buffer[: self._size]

    def last(self, count: int) -> NDArray[np.int32]:
        """View of the ``count`` newest tokens, or of all where there are fewer."""
        return self._buffer[max(0, self._size - count) : self._size]

    def append(self, token_id: int) -> None:
        if self._size == self._buffer.size:
            self._buffer = np.concatenate([self._buffer, np.zeros_like(self._buffer)])
        self._buffer[self._size] = token_id
        self._size += 1

    def rewind(self, count: int) -> None:
        """Drops the ``count`` newest tokens, which must be the reply's."""
        assert count <= self.num_reply, "the prompt cannot be taken back"
        self._size -= count
