"""``engine.runner.Runner`` over one llama.cpp context with one unified KV pool."""

import ctypes
import time
from collections.abc import Sequence

import llama_cpp.llama_cpp as lib
import numpy as np

from innkeeper.backends.llama_cpp.memory import TO_THE_END, Memory
from innkeeper.backends.llama_cpp.threads import ThreadTuner
from innkeeper.backends.llama_cpp.tokenizer import LlamaTokenizer
from innkeeper.core import ModelFacts, num_outputs
from innkeeper.engine.runner import Logits, Row, State
from innkeeper.errors import EngineError

_NO_PLACE = 1


class RowBatch:
    """A ``llama_batch`` over numpy arrays that are filled anew for each call."""

    def __init__(self, capacity: int) -> None:
        self._tokens = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._sequences = np.zeros(capacity, np.int32)
        self._outputs = np.zeros(capacity, np.int8)
        self._ones = np.ones(capacity, np.int32)
        start = self._sequences.ctypes.data
        self._pointers = (ctypes.c_void_p * capacity)(*(start + 4 * i for i in range(capacity)))
        fields = dict(lib.llama_batch._fields_)
        self.batch = lib.llama_batch()
        for name, array in (
            ("token", self._tokens),
            ("pos", self._positions),
            ("n_seq_id", self._ones),
            ("logits", self._outputs),
        ):
            setattr(self.batch, name, ctypes.cast(array.ctypes.data, fields[name]))
        self.batch.seq_id = ctypes.cast(self._pointers, fields["seq_id"])

    def fill(self, rows: Sequence[Row]) -> None:
        count = len(rows)
        table = np.array(rows, np.int32)
        self._tokens[:count] = table[:, 0]
        self._positions[:count] = table[:, 1]
        self._sequences[:count] = table[:, 2]
        self._outputs[:count] = table[:, 3]
        self.batch.n_tokens = count


class LlamaRunner:
    """Owns the model and its context; used by the loop's thread, but for ``tokenizer``."""

    def __init__(
        self,
        model: "lib.llama_model_p",
        context: "lib.llama_context_p",
        facts: ModelFacts,
        tokenizer: LlamaTokenizer,
        tuner: ThreadTuner,
        *,
        is_editable: bool = True,
        keeps_windows: bool = False,
        state_key: str = "",
        draft: "LlamaRunner | None" = None,
    ) -> None:
        self.facts = facts
        self.tokenizer = tokenizer
        self._memory = Memory(context, keeps_windows=keeps_windows)
        self.num_sequence_ids = self._memory.num_sequence_ids
        self.max_rows = int(lib.llama_n_batch(context))
        self.max_outputs = num_outputs(int(lib.llama_n_seq_max(context)), self.max_rows)
        self.num_threads = 0
        self._model = model
        self._context: lib.llama_context_p | None = context
        self._tuner = tuner
        self._batch = RowBatch(self.max_rows)
        self._num_swa = int(lib.llama_model_n_swa(model))
        self._keeps_windows = keeps_windows
        self.has_state = bool(
            lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model)
        )
        self.can_cut = not self.has_state and self._num_swa == 0
        self.can_edit = is_editable
        self.state_key = state_key
        self.draft = draft
        self._is_shift_pending = False

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        wanted = [index for index, row in enumerate(rows) if row.wants_logits]
        if len(rows) > self.max_rows or len(wanted) > self.max_outputs:
            raise EngineError(
                f"a batch of {len(rows)} rows, {len(wanted)} with logits (limits"
                f" {self.max_rows} and {self.max_outputs})"
            )
        self._set_threads()
        self._batch.fill(rows)
        started = time.perf_counter()
        code = lib.llama_decode(self._context, self._batch.batch)
        self._is_shift_pending = False
        if code != 0:
            self._roll_back(rows)
            raise EngineError(
                "the KV pool has no place left"
                if code == _NO_PLACE
                else f"llama_decode failed with code {code}; the engine's log says why"
            )
        if self._keeps_windows:
            for sequence_id, start, end in _spans(rows):
                self._memory.added(sequence_id, start, end)
        outputs = [self._logits(index) for index in wanted]
        self._tuner.observe(len(rows), time.perf_counter() - started)
        return outputs

    def copy(self, source_id: int, target_id: int, start: int, end: int) -> None:
        if self.has_state:
            start, end = 0, TO_THE_END
        self._memory.copy(source_id, target_id, start, end)
        if self._num_swa and not self._keeps_windows:
            # else it goes on from a checkpoint, which brings the windows
            if self.can_resume(source_id, end, self._memory.last(source_id) + 1):
                self._memory.separate(target_id)

    def shift(self, sequence_id: int, start: int, end: int, delta: int) -> None:
        self._memory.shift(sequence_id, start, end, delta)
        self._is_shift_pending = True

    def remove(self, sequence_id: int, start: int, end: int = TO_THE_END) -> None:
        if not self._memory.remove(sequence_id, start, end):
            raise EngineError(f"the cache of sequence {sequence_id} cannot be cut at {start}")

    def save(self, sequence_id: int) -> State:
        if self._is_shift_pending:
            self._settle(sequence_id)
        return self._memory.save(sequence_id)

    def load(self, sequence_id: int, state: State) -> bool:
        return self._memory.load(sequence_id, state)

    def first(self, sequence_id: int) -> int:
        return self._memory.first(sequence_id)

    def checkpoint(self, sequence_id: int) -> State:
        return self._memory.save(sequence_id, is_partial=True)

    def rewind(self, sequence_id: int, length: int, checkpoint: State) -> bool:
        # first what cannot be cut, since llama.cpp refuses to cut the rest before
        is_loaded = self._memory.load(sequence_id, checkpoint, is_partial=True)
        if is_loaded and self._memory.remove(sequence_id, length):
            return True
        self._memory.remove(sequence_id, 0)
        return False

    def can_resume(self, sequence_id: int, length: int, cached: int) -> bool:
        if length == cached:
            return True
        if self.has_state:
            return False
        if self._num_swa == 0:
            return True
        # llama.cpp keeps every position from pos_min on; the window before `length` must be there.
        return self._memory.first(sequence_id) <= max(0, length - self._num_swa)

    def close(self) -> None:
        if self.draft is not None:
            self.draft.close()
        if self._context is not None:
            lib.llama_free(self._context)
            lib.llama_model_free(self._model)
            self._context = None

    def _logits(self, index: int) -> Logits:
        pointer = lib.llama_get_logits_ith(self._context, index)
        logits: Logits = np.ctypeslib.as_array(pointer, (self.facts.num_vocab,))
        return logits

    def _set_threads(self) -> None:
        wanted = self._tuner.num_threads
        if wanted != self.num_threads:
            lib.llama_set_n_threads(self._context, wanted, wanted)
            self.num_threads = wanted

    def _settle(self, sequence_id: int) -> None:
        """Rotates the keys that were shifted: llama.cpp does so at the next ``llama_decode`` only,
        and a state saved before has new positions and old keys.

        Raises: EngineError if the pool has no cell for that.
        """
        end = self._memory.last(sequence_id) + 1
        self._batch.fill([Row(0, end, sequence_id, False)])
        code = lib.llama_decode(self._context, self._batch.batch)
        self._memory.remove(sequence_id, end)
        if code != 0:
            raise EngineError("the pool has no cell free to settle what was moved")
        self._is_shift_pending = False

    def _roll_back(self, rows: Sequence[Row]) -> None:
        """Slices before the failing one stay applied; the caller expects nothing to be."""
        for sequence_id, start, _ in _spans(rows):
            self._memory.remove(sequence_id, start)


def _spans(rows: Sequence[Row]) -> list[tuple[int, int, int]]:
    """(sequence id, first position, end) of each sequence."""
    spans: dict[int, tuple[int, int]] = {}
    for row in rows:
        start, _ = spans.get(row.sequence_id, (row.position, 0))
        spans[row.sequence_id] = start, row.position + 1
    return [(sequence_id, start, end) for sequence_id, (start, end) in spans.items()]
