"""The model's own tokenizer."""

import ctypes
from collections.abc import Sequence

import llama_cpp.llama_cpp as lib

from innkeeper.errors import EngineError

_MOST_UNUSED = 256
"""Families pad their vocabularies to round numbers, which differ between sizes."""


class LlamaTokenizer:
    """Reads the vocabulary only, which never changes: safe beside ``llama_decode``."""

    def __init__(self, vocab: lib.llama_vocab_p) -> None:
        self._vocab = vocab
        self.num_vocab = int(lib.llama_vocab_n_tokens(vocab))
        self.bos_id = int(lib.llama_vocab_bos(vocab))
        self.eos_id = int(lib.llama_vocab_eos(vocab))
        self.adds_bos = bool(lib.llama_vocab_get_add_bos(vocab))
        self._pieces: dict[tuple[int, bool], bytes] = {}

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        tokens = (lib.llama_token * room)()
        count = lib.llama_tokenize(
            self._vocab, data, len(data), tokens, room, add_special, parse_special
        )
        if count < 0:
            room = -count
            tokens = (lib.llama_token * room)()
            count = lib.llama_tokenize(
                self._vocab, data, len(data), tokens, room, add_special, parse_special
            )
        if count < 0:
            raise EngineError(f"a text of {len(data)} bytes could not be tokenized")
        ids = list(tokens[:count])
        if add_special and self.adds_bos and ids[:2] == [self.bos_id, self.bos_id]:
            del ids[0]  # the text brought its own BOS, as chat templates do
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        array = (lib.llama_token * len(tokens))(*tokens)
        room = max(64, 8 * len(tokens))
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = lib.llama_detokenize(self._vocab, array, len(tokens), buffer, room, False, True)
            if count >= 0:
                return buffer.raw[:count].decode("utf-8", "replace")
            room = -count

    def piece(self, token_id: int, *, special: bool) -> bytes:
        key = (token_id, special)
        found = self._pieces.get(key)
        if found is None:
            found = self._pieces[key] = self._read_piece(token_id, special)
        return found

    def text(self, token_id: int) -> str:
        """The token's text as the vocabulary has it; empty for -1 (no such token)."""
        if token_id < 0:
            return ""
        return (lib.llama_vocab_get_text(self._vocab, token_id) or b"").decode("utf-8", "replace")

    def end_ids(self) -> tuple[int, ...]:
        """Every token that ends a reply, by the vocabulary's own list."""
        ids = range(self.num_vocab)
        return tuple(i for i in ids if lib.llama_vocab_is_eog(self._vocab, i))

    def fill_ids(self) -> tuple[int, int, int] | None:
        """The tokens of a fill-in-the-middle prompt, if the vocabulary has them."""
        reads = (lib.llama_vocab_fim_pre, lib.llama_vocab_fim_suf, lib.llama_vocab_fim_mid)
        before, behind, gap = (int(read(self._vocab)) for read in reads)
        return (before, behind, gap) if min(before, behind, gap) >= 0 else None

    def max_token_bytes(self) -> int:
        """An upper bound for the bytes of one token."""
        get_text, vocab = lib.llama_vocab_get_text, self._vocab
        return max(1, *(len(get_text(vocab, i) or b"") for i in range(self.num_vocab)))

    def _read_piece(self, token_id: int, special: bool) -> bytes:
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = lib.llama_token_to_piece(self._vocab, token_id, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count


def first_difference(one: LlamaTokenizer, other: LlamaTokenizer) -> str | None:
    """What tells two vocabularies apart, in words; None if a token id means the same in both."""
    if abs(one.num_vocab - other.num_vocab) > _MOST_UNUSED:
        return f"it has {other.num_vocab} tokens, and the model {one.num_vocab}"
    for token_id in range(min(one.num_vocab, other.num_vocab)):
        here, there = one.text(token_id), other.text(token_id)
        if here != there:
            return f"token {token_id} is {there!r}, and the model's {here!r}"
    return None
