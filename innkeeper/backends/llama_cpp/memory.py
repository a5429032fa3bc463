"""llama.cpp's memory of one context, by sequence."""

import ctypes

import llama_cpp.llama_cpp as lib
import numpy as np

from innkeeper.engine.runner import State
from innkeeper.errors import EngineError

TO_THE_END = -1
_BYTES = ctypes.POINTER(ctypes.c_uint8)
_PARTS = (lib.LLAMA_STATE_SEQ_FLAGS_NONE, lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)


class Memory:
    """Copies, moves, removes and saves what sequences hold.

    A full-size sliding-window cache (``keeps_windows``) still takes cells again that have left the
    window of their sequence, though others are free, unless a second sequence shares them. So each
    sequence has a twin that shares all of its cells; only the first half of the ids is handed out.
    """

    def __init__(self, context: "lib.llama_context_p", *, keeps_windows: bool = False) -> None:
        self._context = context
        self._memory = lib.llama_get_memory(context)
        num_ids = int(lib.llama_n_seq_max(context))
        self.num_sequence_ids = num_ids // 2 if keeps_windows else num_ids
        self._keeps_windows = keeps_windows

    def copy(self, source_id: int, target_id: int, start: int, end: int) -> None:
        lib.llama_memory_seq_cp(self._memory, source_id, target_id, start, end)
        if self._keeps_windows:
            lib.llama_memory_seq_cp(self._memory, source_id, self._twin(target_id), start, end)

    def shift(self, sequence_id: int, start: int, end: int, delta: int) -> None:
        """Moves the cells, and so those of the twin."""
        lib.llama_memory_seq_add(self._memory, sequence_id, start, end, delta)

    def remove(self, sequence_id: int, start: int, end: int = TO_THE_END) -> bool:
        if self._keeps_windows:
            lib.llama_memory_seq_rm(self._memory, self._twin(sequence_id), start, end)
        return bool(lib.llama_memory_seq_rm(self._memory, sequence_id, start, end))

    def added(self, sequence_id: int, start: int, end: int) -> None:
        """Follows an evaluation of positions ``start`` to ``end``."""
        if self._keeps_windows:
            twin = self._twin(sequence_id)
            lib.llama_memory_seq_cp(self._memory, sequence_id, twin, start, end)

    def first(self, sequence_id: int) -> int:
        """The first position whose cell is there in every layer; -1 if the sequence is empty."""
        return int(lib.llama_memory_seq_pos_min(self._memory, sequence_id))

    def last(self, sequence_id: int) -> int:
        return int(lib.llama_memory_seq_pos_max(self._memory, sequence_id))

    def separate(self, sequence_id: int) -> None:
        """Gives a sequence sliding windows of its own. llama.cpp takes cells that have left their
        window for new tokens, but not while two sequences share them, until no place is left.

        Raises: EngineError if llama.cpp refuses.
        """
        windows = self.save(sequence_id, is_partial=True)
        if not self.load(sequence_id, windows, is_partial=True):
            raise EngineError("llama.cpp could not copy the sliding windows")

    def save(self, sequence_id: int, *, is_partial: bool = False) -> State:
        """``is_partial``: only recurrent states and sliding windows.

        Raises: EngineError if llama.cpp refuses.
        """
        flags = _PARTS[is_partial]
        size = int(lib.llama_state_seq_get_size_ext(self._context, sequence_id, flags))
        state = np.empty(size, np.uint8)
        pointer = state.ctypes.data_as(_BYTES)
        count = lib.llama_state_seq_get_data_ext(self._context, pointer, size, sequence_id, flags)
        if count != size:
            raise EngineError("llama.cpp could not copy the state; the engine's log says why")
        return state

    def load(self, sequence_id: int, state: State, *, is_partial: bool = False) -> bool:
        """False, and the sequence empty, if llama.cpp refuses."""
        pointer = state.ctypes.data_as(_BYTES)
        count = lib.llama_state_seq_set_data_ext(
            self._context, pointer, len(state), sequence_id, _PARTS[is_partial]
        )
        if count != len(state):
            self.remove(sequence_id, 0)
            return False
        self.added(sequence_id, 0, TO_THE_END)
        return True

    def _twin(self, sequence_id: int) -> int:
        return self.num_sequence_ids + sequence_id
