"""What the engine must know of a model's tokens beside encoding and decoding, found once."""

from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from innkeeper.engine.banned import fold
from innkeeper.engine.runner import Tokenizer

_MAX_BREAKER_CHARS = 40
_MAX_TAIL_TOKENS = 20
_NUM_BREAKER_SETS = 16
_NUM_PHRASE_SETS = 16


class Breakers:
    """Sequences of tokens where a repetition ends."""

    def __init__(self, sequences: Iterable[tuple[int, ...]]) -> None:
        self.single: set[int] = set()
        self._by_last: dict[int, list[tuple[int, ...]]] = {}
        for sequence in sequences:
            self._by_last.setdefault(sequence[-1], []).append(sequence)
            if len(sequence) == 1:
                self.single.add(sequence[0])

    def ending_at(self, tokens: Sequence[int] | NDArray[np.int32], end: int) -> int:
        """Length of the shortest breaker that ``tokens[:end]`` ends with; 0 = none."""
        lengths = [
            len(sequence)
            for sequence in self._by_last.get(int(tokens[end - 1]), ())
            if len(sequence) <= end and tuple(tokens[end - len(sequence) : end]) == sequence
        ]
        return min(lengths, default=0)


class Vocabulary:
    """One model's tokens. What takes long (a second at 152k) is made when it is first needed."""

    def __init__(self, tokenizer: Tokenizer, num_vocab: int, end_ids: Sequence[int]) -> None:
        self.tokenizer = tokenizer
        self.num_vocab = num_vocab
        self.end_ids = tuple(end_ids)
        self.tokens_with = lru_cache(_NUM_PHRASE_SETS)(self._find_tokens_with)
        self.beginning_with = lru_cache(_NUM_PHRASE_SETS)(self._find_beginning_with)
        self.breakers = lru_cache(_NUM_BREAKER_SETS)(self._find_breakers)

    @cached_property
    def pieces(self) -> tuple[bytes, ...]:
        """The bytes of every token; control tokens have their name, such as ``</s>``."""
        piece = self.tokenizer.piece
        return tuple(piece(token_id, special=True) for token_id in range(self.num_vocab))

    def ids_of(self, names: Iterable[str]) -> frozenset[int]:
        """The tokens that are these texts as a whole, such as ``<|im_end|>``."""
        found = (self.tokenizer.encode(n, add_special=False, parse_special=True) for n in names)
        return frozenset(ids[0] for ids in found if len(ids) == 1)

    def _find_beginning_with(self, head: bytes) -> NDArray[np.int64]:
        """The text tokens whose bytes begin with ``head``, which is at least one's."""
        every = (i for i, piece in enumerate(self.pieces) if piece.startswith(head))
        return np.fromiter((i for i in every if i not in self.control_ids), np.int64)

    def _find_tokens_with(self, phrases: tuple[str, ...]) -> frozenset[int]:
        """The text tokens that have one of ``phrases`` inside, in any case of letters."""
        wanted = [fold(phrase) for phrase in phrases]
        if not wanted:
            return frozenset()
        return frozenset(
            token_id
            for token_id, text in enumerate(self._folded)
            if any(phrase in text for phrase in wanted) and token_id not in self.control_ids
        )

    @cached_property
    def _folded(self) -> tuple[str, ...]:
        return tuple(fold(piece.decode("utf-8", "replace")) for piece in self.pieces)

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Tokens that add no text to a reply but have a name, such as ``</s>``."""
        piece = self.tokenizer.piece
        return frozenset(
            token_id
            for token_id, data in enumerate(self.pieces)
            if data and not piece(token_id, special=False)
        )

    @cached_property
    def digit_first(self) -> NDArray[np.bool_]:
        """Which tokens begin with a digit (num_vocab,)."""
        return np.fromiter((piece[:1].isdigit() for piece in self.pieces), np.bool_)

    @cached_property
    def newline_id(self) -> int:
        """The token that ends a line."""
        return self.tokenizer.encode("\n", add_special=False, parse_special=False)[-1]

    def _find_breakers(self, texts: tuple[str, ...]) -> Breakers:
        """The token sequences with which ``texts`` can occur: every token that has the whole text
        inside, and every token that ends with its beginning, with the tokens of the rest.

        Source: llama.cpp pull request 9702 (definition).
        """
        sequences: dict[tuple[int, ...], None] = {}
        for text in texts:
            data = text.encode()[:_MAX_BREAKER_CHARS]
            if data:
                sequences.update(dict.fromkeys(self._sequences_of(data)))
        return Breakers(sequences)

    def _sequences_of(self, data: bytes) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = [
            (i,) for i, piece in enumerate(self.pieces) if data in piece
        ]
        inside = {sequence[0] for sequence in found}
        for length in range(1, len(data)):
            rest = data[length:].decode("utf-8", "ignore")
            tail = self.tokenizer.encode(rest, add_special=False, parse_special=False)
            head = data[:length]
            found += [
                (i, *tail[:_MAX_TAIL_TOKENS])
                for i, piece in enumerate(self.pieces)
                if piece.endswith(head) and i not in inside
            ]
        return found
