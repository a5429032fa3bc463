"""What a backend must provide. ``engine`` decides; a runner executes."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from innkeeper.core import EngineConfig, ModelFacts

Logits = NDArray[np.float32]
State = NDArray[np.uint8]
"""What the cache of one sequence holds, as the backend writes it."""
Ranked = tuple[NDArray[np.int32], NDArray[np.float32]]
"""(token ids, probabilities), best first."""
ProgressCallback = Callable[[float], None]


class Row(NamedTuple):
    """One token to evaluate."""

    token_id: int
    position: int
    sequence_id: int
    wants_logits: bool


class Tokenizer(Protocol):
    """Text to tokens and back. Thread-safe: called beside the generation loop."""

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids; ``add_special`` adds what the vocabulary asks for (BOS, EOS), but never a
        second BOS in front of a text that already begins with one."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of ``tokens``, special ones included; broken UTF-8 becomes U+FFFD."""

    def piece(self, token_id: int, *, special: bool) -> bytes:
        """Bytes that one token adds to a text; a control token has none unless ``special``."""


class Sampler(Protocol):
    """Chooses tokens for one choice of one request. Owned by the loop's thread."""

    def accept(self, token_id: int) -> None:
        """Adds a token of the reply to the history that penalties look at."""

    def rewind(self, count: int) -> None:
        """Takes the ``count`` newest tokens of the reply back."""

    def sample(self, logits: Logits) -> int:
        """The next token. May change ``logits`` (num_vocab,) in place."""

    def drawn_from(self) -> Ranked:
        """What the last ``sample`` chose among: (ids, probabilities), best first."""

    def trace(self, logits: Logits) -> Iterator[tuple[str, int, Ranked]]:
        """Runs the steps one by one: (name, candidates left, ids and probabilities, best first)
        behind each. May change ``logits``."""

    def distribution(self, logits: Logits) -> Ranked:
        """What ``sample`` would draw from: (ids, probabilities), best first."""

    def close(self) -> None:
        """Frees native memory. Idempotent."""


class Runner(Protocol):
    """One loaded model with one pool of KV cells shared by ``num_sequence_ids`` sequences.

    Sequence ids are 0 .. num_sequence_ids-1. Positions of a sequence that is evaluated are
    0 .. length-1 without gaps. The caller checks every precondition named here: a broken one may
    end the process.
    """

    facts: ModelFacts
    tokenizer: Tokenizer
    num_sequence_ids: int
    has_state: bool
    """Whether the cache is one state, as in recurrent models, that no token can be taken out of."""
    can_cut: bool
    """Whether a sequence can be cut to any length, once saved too: no states, no windows."""
    can_edit: bool
    """Whether ``shift`` works: positions can be rotated without evaluating the tokens again."""
    state_key: str
    """Names all that a saved state depends on: the model's file, adapters, number types, the
    library's build. Empty if states cannot be saved."""
    max_rows: int
    """Most rows of one ``forward``."""
    max_outputs: int
    """Most rows of one ``forward`` that want logits."""
    num_threads: int
    """Threads that ``forward`` uses at the moment."""
    draft: "Runner | None"
    """A small model of the same vocabulary that guesses for this one; it is closed with it."""

    def forward(self, rows: Sequence[Row]) -> list[Logits]:
        """Evaluates ``rows`` in order and adds them to their sequences.

        Rows of one sequence are contiguous in position and start at its length. Returns one
        array (num_vocab,) per row that wants logits, in row order, valid until the next call.
        Raises: EngineError if the pool has no place; the sequences are then as before.
        """

    def copy(self, source_id: int, target_id: int, start: int, end: int) -> None:
        """Makes ``target_id``, which holds nothing there, share positions ``start`` to ``end``."""

    def shift(self, sequence_id: int, start: int, end: int, delta: int) -> None:
        """Moves positions ``start`` to ``end`` by ``delta``. Only where ``can_edit``, only cells
        that no other sequence shares, and only to places that the sequence does not hold."""

    def remove(self, sequence_id: int, start: int, end: int = -1) -> None:
        """Drops the tokens of ``sequence_id`` from position ``start`` to ``end``, -1 = the last
        one. Another end only where ``can_edit``."""

    def save(self, sequence_id: int) -> State:
        """The cache of a sequence that holds something. Shifts that are pending are settled first,
        for which the pool should have one cell free.

        Raises: EngineError if the library refuses.
        """

    def load(self, sequence_id: int, state: State) -> bool:
        """Gives ``sequence_id``, which holds nothing, what ``save`` returned in any process with
        this ``state_key``. False, and nothing done, if the library refuses. The caller has made
        sure that the pool has cells for it."""

    def first(self, sequence_id: int) -> int:
        """The first position of a sequence that every layer holds: behind 0 where sliding windows
        have left something behind; -1 if there is none."""

    def checkpoint(self, sequence_id: int) -> State:
        """What of a sequence that holds something could not be cut back later: its state, and
        sliding windows as they are at its end; nothing of what stays.

        Raises: EngineError if the library refuses.
        """

    def rewind(self, sequence_id: int, length: int, checkpoint: State) -> bool:
        """Cuts a sequence to the ``length`` tokens that it, or one that it was copied from, had
        when ``checkpoint`` was taken. False if the library refuses; it then holds nothing."""

    def can_resume(self, sequence_id: int, length: int, cached: int) -> bool:
        """Whether ``sequence_id``, of ``cached`` tokens, may be cut to its first ``length`` (and
        copied there). Sliding windows and recurrent states cannot always go back."""

    def close(self) -> None:
        """Frees the model. Idempotent."""


class Embedder(Protocol):
    """One loaded embedding model or reranker, used by one thread."""

    facts: ModelFacts
    tokenizer: Tokenizer
    num_sequence_ids: int
    """Most texts of one ``embed``."""
    max_rows: int
    """Most tokens of one ``embed``, and of one text."""

    def embed(self, texts: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """A vector (width,) of each text; of a reranker (1,), the score. Keeps nothing."""

    def pair(self, query: str, document: str) -> list[int]:
        """The tokens by which a reranker reads a query and a document."""


LoadBackend = Callable[[EngineConfig, ProgressCallback], Runner | Embedder]
"""Each module under ``innkeeper.backends`` has ``load`` of this type."""
