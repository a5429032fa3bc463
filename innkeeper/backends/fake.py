"""A deterministic backend without a model: for tests, for clients' authors, and for benchmarks.

Tokens are bytes. Replies are letters and spaces that the last three tokens and the length decide,
or a given text. Options (``EngineConfig.options``):

    tokens_per_second   decode speed, 0 = as fast as possible
    prefill_per_second  prompt speed, 0 = as fast as possible
    reply               this text, then EOS, instead of letters
    chat_template       the model's own, instead of none
    crash_after         end the process with SIGKILL after this many generated tokens
    hang_after          stop answering after this many generated tokens
    fail_load           refuse to load with this message
    state               anything: no token can be taken out of the cache, as in recurrent models
    fill                fill gaps: the bytes 1, 2 and 3 are the tokens for it
    draft_reply         what the draft model (``EngineConfig.draft_path``, any name) would reply,
                        instead of what this one does
"""

import os
import signal
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from innkeeper.core import EngineConfig, LoraAdapter, ModelFacts, num_outputs
from innkeeper.engine.runner import Logits, ProgressCallback, Row, State
from innkeeper.errors import EngineError, EngineLoadError

NUM_BYTES = 256
BOS, EOS = 256, 257
NUM_VOCAB = 258
_KNOWN_OPTIONS = {
    "tokens_per_second",
    "prefill_per_second",
    "reply",
    "chat_template",
    "crash_after",
    "hang_after",
    "fail_load",
    "state",
    "fill",
    "draft_reply",
}


class ByteTokenizer:
    """One token per UTF-8 byte, and ``<s>`` and ``</s>``."""

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        tokens = list(text.encode("utf-8", "replace"))
        return [BOS, *tokens] if add_special else tokens

    def decode(self, tokens: Sequence[int]) -> str:
        return b"".join(self.piece(t, special=True) for t in tokens).decode("utf-8", "replace")

    def piece(self, token_id: int, *, special: bool) -> bytes:
        if token_id < NUM_BYTES:
            return bytes([token_id])
        return {BOS: b"<s>", EOS: b"</s>"}[token_id] if special else b""


class Cell:
    """One token at one position, held by some sequences, as in llama.cpp's unified pool."""

    __slots__ = ("holders", "position", "token_id")

    def __init__(self, token_id: int, position: int, holder: int) -> None:
        self.token_id = token_id
        self.position = position
        self.holders = {holder}


class FakeRunner:
    """Models the pool cell by cell and refuses every broken precondition of the protocol."""

    max_rows = 512
    state_key = "fake"

    def __init__(self, config: EngineConfig, draft: "FakeRunner | None" = None) -> None:
        self.draft = draft
        self.tokenizer = ByteTokenizer()
        self.has_state = "state" in config.options
        self.can_cut = self.can_edit = not self.has_state
        self.num_sequence_ids = config.num_sequence_ids(can_edit=self.can_edit)
        self.max_outputs = num_outputs(self.num_sequence_ids, self.max_rows)
        self.num_threads = 1
        self.num_evaluated = 0
        """Rows that ``forward`` was given, ever."""
        self._cells: list[dict[int, Cell]] = [{} for _ in range(self.num_sequence_ids)]
        self._states = [(0, 0)] * self.num_sequence_ids
        """Of each sequence, how many tokens its state is of, and their checksum."""
        self._num_used = 0
        self._options = config.options
        self._reply = self.tokenizer.encode(
            config.options.get("reply", ""), add_special=False, parse_special=False
        )
        self._num_pool = config.num_pool
        self._num_generated = 0
        self.facts = _facts(config)

    def tokens(self, sequence_id: int) -> list[int]:
        """What the sequence holds, by position."""
        return [cell.token_id for cell in self.cells(sequence_id)]

    def cells(self, sequence_id: int) -> list[Cell]:
        """What holds them, by position; sequences that share a cell get the same one."""
        cells = self._cells[sequence_id]
        return [cells[position] for position in sorted(cells)]

    def num_cells_used(self) -> int:
        return self._num_used

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        if len(rows) > self.max_rows:
            raise EngineError(f"{len(rows)} rows in one batch (limit {self.max_rows})")
        outputs = []
        for sequence_id in {row.sequence_id for row in rows} if self.has_state else ():
            if self._states[sequence_id] != _state(self.tokens(sequence_id)):
                raise EngineError(f"sequence {sequence_id} has a state of other tokens")
        for row in rows:
            cells = self._cells[row.sequence_id]
            if row.position != len(cells) or (cells and row.position - 1 not in cells):
                raise EngineError(f"position {row.position} after {sorted(cells)[-1:]}")
            cells[row.position] = Cell(row.token_id, row.position, row.sequence_id)
            if row.wants_logits:
                outputs.append(self._logits_after(row))
        for sequence_id in {row.sequence_id for row in rows}:
            self._read_state(sequence_id)
        self._num_used += len(rows)
        if self._num_used > self._num_pool:
            raise EngineError("the pool is full")
        self.num_evaluated += len(rows)
        self._pace(len(rows), len(outputs))
        return outputs

    def copy(self, source_id: int, target_id: int, start: int, end: int) -> None:
        if self.has_state:
            start, end = 0, self._num_pool
            self._states[target_id] = self._states[source_id]
        for position, cell in self._cells[source_id].items():
            if start <= position < end:
                if position in self._cells[target_id]:
                    raise EngineError(f"sequence {target_id} holds position {position} already")
                self._cells[target_id][position] = cell
                cell.holders.add(target_id)

    def shift(self, sequence_id: int, start: int, end: int, delta: int) -> None:
        cells = self._cells[sequence_id]
        moving = [cells.pop(position) for position in sorted(cells) if start <= position < end]
        for cell in moving:
            cell.position += delta
            if cell.holders != {sequence_id} or cell.position in cells or cell.position < 0:
                raise EngineError(f"a shift to position {cell.position} is not possible")
            cells[cell.position] = cell

    def remove(self, sequence_id: int, start: int, end: int = -1) -> None:
        cells = self._cells[sequence_id]
        if self.has_state and 0 < start < self._states[sequence_id][0]:
            raise EngineError(f"a state cannot be cut at {start}")
        stop = end if end >= 0 else max(cells, default=-1) + 1
        for position in [position for position in cells if start <= position < stop]:
            holders = cells.pop(position).holders
            holders.discard(sequence_id)
            self._num_used -= not holders
        self._read_state(sequence_id)

    def save(self, sequence_id: int) -> State:
        """Its first position, and its token ids."""
        contents = [self.first(sequence_id), *self.tokens(sequence_id)]
        return np.asarray(contents, "<i4").view(np.uint8)

    def load(self, sequence_id: int, state: State) -> bool:
        first, *tokens = state.view("<i4").tolist()
        if self._cells[sequence_id] or self._num_used + len(tokens) > self._num_pool:
            raise EngineError(f"a state of {len(tokens)} tokens has no place")
        cells = (Cell(token, position, sequence_id) for position, token in enumerate(tokens, first))
        self._cells[sequence_id] = {cell.position: cell for cell in cells}
        self._num_used += len(tokens)
        self._read_state(sequence_id)
        return True

    def first(self, sequence_id: int) -> int:
        return min(self._cells[sequence_id], default=-1)

    def checkpoint(self, sequence_id: int) -> State:
        """How many tokens the state is of, and their checksum."""
        return np.asarray(self._states[sequence_id], "<i8").view(np.uint8)

    def rewind(self, sequence_id: int, length: int, checkpoint: State) -> bool:
        count, checksum = checkpoint.view("<i8").tolist()
        self._states[sequence_id] = (count, checksum)
        self.remove(sequence_id, length)
        if self._states[sequence_id] != (count, checksum):
            raise EngineError(f"sequence {sequence_id} was rewound to other tokens")
        return True

    def can_resume(self, sequence_id: int, length: int, cached: int) -> bool:
        return length == cached or not self.has_state

    def close(self) -> None:
        pass

    def _read_state(self, sequence_id: int) -> None:
        """Makes the state that of the tokens that the sequence holds."""
        if self.has_state:
            self._states[sequence_id] = _state(self.tokens(sequence_id))

    def _logits_after(self, row: Row) -> Logits:
        """Reads no more of a long sequence than decides."""
        cells, length = self._cells[row.sequence_id], row.position + 1
        start = max(0, length - max(3, len(self._reply)))
        last = [cells[position].token_id for position in range(start, length)]
        return self._logits(last, length)

    def _logits(self, tokens: Sequence[int], length: int | None = None) -> Logits:
        """Letters and spaces in an order that the last tokens decide; the likeliest is clear.
        length: of the sequence, where ``tokens`` are only its end."""
        logits = np.full(NUM_VOCAB, -20.0, np.float32)
        if self._reply:
            done = self._num_replied(tokens)
            logits[self._reply[done] if done < len(self._reply) else EOS] = 20.0
            return logits
        state = sum((i + 1) * t for i, t in enumerate(tokens[-3:]))
        state += len(tokens) if length is None else length
        letters = b"abcdefghijklmnopqrstuvwxyz "
        for rank in range(len(letters)):
            logits[letters[(state * 5 + rank * 7) % len(letters)]] = 5.0 - 0.7 * rank
        return logits

    def _num_replied(self, tokens: Sequence[int]) -> int:
        """How many tokens of the reply text the sequence ends with."""
        for length in range(min(len(self._reply), len(tokens)), 0, -1):
            if tokens[-length:] == self._reply[:length]:
                return length
        return 0

    def _pace(self, num_rows: int, num_outputs: int) -> None:
        decode = float(self._options.get("tokens_per_second", "0"))
        prefill = float(self._options.get("prefill_per_second", "0"))
        seconds = 1 / decode if decode and num_outputs else 0.0
        if prefill and num_rows > num_outputs:
            seconds += (num_rows - num_outputs) / prefill
        if seconds:
            time.sleep(seconds)
        self._num_generated += num_outputs
        if 0 < int(self._options.get("crash_after", "0")) <= self._num_generated:
            os.kill(os.getpid(), signal.SIGKILL)
        if 0 < int(self._options.get("hang_after", "0")) <= self._num_generated:
            time.sleep(3600)


def _state(tokens: Sequence[int]) -> tuple[int, int]:
    return len(tokens), zlib.crc32(np.asarray(tokens, "<i4").tobytes())


class FakeEmbedder:
    """Vectors of how often each letter occurs; a document's score is what it shares with the
    query."""

    num_sequence_ids = 4
    max_rows = 512

    def __init__(self, config: EngineConfig) -> None:
        self.tokenizer = ByteTokenizer()
        self.facts = _facts(config)

    def embed(self, texts: Sequence[Sequence[int]]) -> list[Logits]:
        counts = [np.bincount(text, minlength=NUM_VOCAB)[:NUM_BYTES] for text in texts]
        if self.facts.pooling == "rank":
            halves = [_halves(text) for text in texts]
            return [np.array([len(one & two)], np.float32) for one, two in halves]
        return [count.astype(np.float32) for count in counts]

    def pair(self, query: str, document: str) -> list[int]:
        return self.tokenizer.encode(f"{query}\0{document}", add_special=False, parse_special=True)


def _halves(text: Sequence[int]) -> tuple[set[int], set[int]]:
    at = list(text).index(0)
    return set(text[:at]), set(text[at + 1 :])


def load(config: EngineConfig, progress: ProgressCallback) -> FakeRunner | FakeEmbedder:
    """Loads at once. Raises: EngineLoadError if told to, or for an unknown option."""
    unknown = set(config.options) - _KNOWN_OPTIONS
    if unknown:
        raise EngineLoadError(f"the fake backend has no option {sorted(unknown)[0]!r}")
    if "fail_load" in config.options:
        raise EngineLoadError(config.options["fail_load"])
    for step in range(1, 5):
        progress(step / 4)
    return FakeEmbedder(config) if config.pooling else FakeRunner(config, _draft(config))


def _draft(config: EngineConfig) -> FakeRunner | None:
    small = config.draft_config()
    if small is None:
        return None
    reply = config.options.get("draft_reply", config.options.get("reply", ""))
    return FakeRunner(msgspec.structs.replace(small, options={"reply": reply}))


def _facts(config: EngineConfig) -> ModelFacts:
    return ModelFacts(
        name=config.name,
        path=config.path,
        backend="fake",
        architecture="fake",
        description="deterministic letters, no model",
        num_params=0,
        size_bytes=0,
        num_vocab=NUM_VOCAB,
        num_ctx=config.num_ctx,
        num_ctx_train=1 << 20,
        num_pool=config.num_pool,
        max_sequences=config.max_sequences,
        bos_text="<s>",
        eos_text="</s>",
        add_bos=True,
        bos_id=BOS,
        end_ids=(EOS,),
        max_token_bytes=1,
        chat_template=config.options.get("chat_template"),
        pooling=config.pooling,
        loras=tuple(LoraAdapter(Path(e.path).name, e.scale) for e in config.loras),
        fill_ids=(1, 2, 3) if "fill" in config.options else None,
        draft=config.draft_path,
    )
