"""What the header of a GGUF file says: metadata and tensors."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from innkeeper.formats.ggml_types import GgmlType


class NeedMore(NamedTuple):
    """The bytes given end inside the header; at least ``num_bytes`` from the start are needed."""

    num_bytes: int


class SkippedArray(NamedTuple):
    """An array too long to keep: its item type (as in the file), length and place."""

    item_type: int
    length: int
    start: int
    """Offset of the first item in the file."""
    num_bytes: int


Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...] | SkippedArray


class TensorInfo(NamedTuple):
    """One tensor. ``shape`` is in GGML's order: row length first."""

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    offset: int
    """From the start of the data section."""
    num_bytes: int

    @property
    def num_weights(self) -> int:
        return math.prod(self.shape)


_POOLING_TYPES = ("", "mean", "cls", "last", "rank")
_ENCODERS = frozenset(
    "bert nomic-bert nomic-bert-moe jina-bert-v2 jina-bert-v3 modern-bert neo-bert eurobert".split()
)
"""Architectures that read a text at once, in both directions, and write none."""


@dataclass(frozen=True)
class GgufHeader:
    """A validated header. Of a split set, ``gguf_split.read_model`` makes one for all parts."""

    version: int
    file_bytes: int
    header_bytes: int
    """Where the tensor infos end, before alignment."""
    alignment: int
    data_start: int
    metadata: dict[str, Value]
    tensors: tuple[TensorInfo, ...]
    raw_metadata: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)
    """Type and value as they lie in the file, for writing a copy; without long arrays."""

    @property
    def architecture(self) -> str:
        """``general.architecture``, or an empty string."""
        return self.text("general.architecture") or ""

    @property
    def num_weights(self) -> int:
        return sum(tensor.num_weights for tensor in self.tensors)

    @property
    def tensor_bytes(self) -> int:
        return sum(tensor.num_bytes for tensor in self.tensors)

    @cached_property
    def tensors_by_name(self) -> dict[str, TensorInfo]:
        return {tensor.name: tensor for tensor in self.tensors}

    def text(self, key: str) -> str | None:
        """The string ``key``, None if it is missing or no string."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def integer(self, key: str) -> int | None:
        """The integer ``key``, None if it is missing or no integer."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def hparam(self, name: str) -> Value | None:
        """``ARCHITECTURE.name``, whatever its type."""
        return self.metadata.get(f"{self.architecture}.{name}")

    @property
    def pooling(self) -> str:
        """How an embedding model or reranker makes vectors: ``mean``, ``cls``, ``last``, ``rank``;
        empty for a model that writes text. Source: llama.cpp's ``LLAMA_POOLING_TYPE``."""
        kind = self.hparam("pooling_type")
        if isinstance(kind, int) and 0 < kind < len(_POOLING_TYPES):
            return _POOLING_TYPES[kind]
        return "mean" if self.architecture in _ENCODERS else ""

    def array_length(self, key: str) -> int | None:
        """Number of items of the array ``key``, kept or skipped."""
        value = self.metadata.get(key)
        if isinstance(value, SkippedArray):
            return value.length
        return len(value) if isinstance(value, tuple) else None
