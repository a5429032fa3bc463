"""Random logits, a vocabulary without a model, and comparison with the reference."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any

import numpy as np

from innkeeper.core import SamplingParams
from innkeeper.engine.sampling import TokenSampler, build_sampler
from innkeeper.engine.vocabulary import Vocabulary
from tests.unit.engine.sampling import reference

NEWLINE, END = 10, 3


class LetterTokenizer:
    """Token ids below 256 are letters, the others words in angle brackets."""

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens))

    def piece(self, token_id: int, *, special: bool) -> bytes:
        return chr(token_id).encode() if token_id < 256 else b"<%d>" % token_id


def random_logits(num_vocab: int, seed: int, spread: float = 3.0) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(seed)
    return (spread * random.standard_normal(num_vocab)).astype(np.float32)


def as_dict(logits: np.ndarray[Any, Any]) -> reference.Logits:
    return _as_dict(logits.tobytes())


@lru_cache(maxsize=6)
def _as_dict(raw: bytes) -> reference.Logits:
    """Of 32-bit numbers. Tests that follow each other ask for the same few large ones."""
    return reference.Shared(enumerate(np.frombuffer(raw, np.float32).tolist()))


def sampler(
    num_vocab: int, prompt: Sequence[int] = (), seed: int = 1, **fields: Any
) -> TokenSampler:
    vocabulary = Vocabulary(LetterTokenizer(), num_vocab, (END,))
    return build_sampler(SamplingParams(**fields), seed, prompt, vocabulary)


def distribution(made: TokenSampler, logits: np.ndarray[Any, Any]) -> dict[int, float]:
    ids, p = made.distribution(logits.copy())
    assert np.all(np.diff(p) <= 0), "not best first"
    return dict(zip(ids.tolist(), p.tolist(), strict=True))


def assert_same(found: dict[int, float], logits: reference.Logits) -> None:
    """``found`` (probabilities) is the softmax of ``logits``, but for the rounding of 32 bits,
    which may move the edge of a truncation by a token in a thousand."""
    wanted = reference.softmax(logits)
    ids = found.keys() | wanted.keys()
    ours, theirs = (np.fromiter(map(each.get, ids, repeat(0.0)), float) for each in (found, wanted))
    assert np.abs(ours - theirs).sum() / 2 < 1e-4
    extra = [i for i in found.keys() ^ wanted.keys() if found.get(i, 0) + wanted.get(i, 0) > 1e-12]
    assert len(extra) <= len(ids) // 1000
