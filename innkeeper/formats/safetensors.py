"""Reads headers of safetensors files and the index of a sharded set; never tensor data.

Source: the format's README (an eight-byte length, a JSON header, then the data without gaps).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from innkeeper.errors import CorruptModelError, UnsupportedModelError
from innkeeper.formats.gguf_header import NeedMore
from innkeeper.units import MIB, format_bytes

MAX_HEADER_BYTES = 100 * MIB
"""The format's own limit."""
_LENGTH_BYTES = 8
_AGAIN = "download it again"

DTYPE_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "F64": 64,
    "I64": 64,
    "U64": 64,
    "C64": 64,
}


class SafeTensor(NamedTuple):
    """One tensor, its shape as in PyTorch."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int

    @property
    def num_items(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class SafetensorsHeader:
    """A validated header; ``merge`` makes one for a set of shards."""

    file_bytes: int
    metadata: dict[str, str]
    tensors: tuple[SafeTensor, ...]

    @property
    def tensor_bytes(self) -> int:
        return sum(tensor.num_bytes for tensor in self.tensors)


def parse(data: bytes, file_bytes: int) -> SafetensorsHeader | NeedMore:
    """Reads a header from ``data``, the first bytes of a file of ``file_bytes``.

    Raises: CorruptModelError, UnsupportedModelError (a type that is newer than this program).
    """
    if file_bytes < _LENGTH_BYTES + 2:
        raise CorruptModelError(f"the file has only {file_bytes} bytes", hint=_AGAIN)
    if len(data) < _LENGTH_BYTES:
        return NeedMore(_LENGTH_BYTES)
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    end = _LENGTH_BYTES + length
    if length > MAX_HEADER_BYTES or end > file_bytes:
        raise CorruptModelError(
            f"the header claims {length:,} bytes; the file has {file_bytes:,}", hint=_AGAIN
        )
    if len(data) < end:
        return NeedMore(end)
    return _checked(_json(data[_LENGTH_BYTES:end]), end, file_bytes)


def _json(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CorruptModelError("the header is not the JSON it should be", hint=_AGAIN)
    return found


def _checked(entries: dict[str, Any], start: int, file_bytes: int) -> SafetensorsHeader:
    metadata = entries.pop("__metadata__", None)
    metadata = metadata if isinstance(metadata, dict) else {}
    placed = sorted(
        (_tensor(name, entry) for name, entry in entries.items()), key=lambda pair: pair[0]
    )
    expected = 0
    for offset, tensor in placed:
        if offset != expected:
            raise CorruptModelError(
                f"tensor {tensor.name!r:.100} is at offset {offset:,}; the one before it ends at "
                f"{expected:,}",
                hint=_AGAIN,
            )
        expected += tensor.num_bytes
    if start + expected != file_bytes:
        missing = start + expected - file_bytes
        what = f"{format_bytes(missing)} are missing" if missing > 0 else "there is more behind it"
        raise CorruptModelError(
            f"the header describes {start + expected:,} bytes, the file has {file_bytes:,}: {what}",
            hint=_AGAIN,
        )
    texts = {str(key): str(value) for key, value in metadata.items()}
    return SafetensorsHeader(file_bytes, texts, tuple(tensor for _, tensor in placed))


def _tensor(name: str, entry: object) -> tuple[int, SafeTensor]:
    """(offset, tensor). Everything in ``entry`` is somebody's claim."""
    fault = CorruptModelError(f"tensor {name!r:.100} is described badly", hint=_AGAIN)
    if not isinstance(entry, dict):
        raise fault
    dtype = entry.get("dtype")
    shape, place = _sizes(entry.get("shape")), _sizes(entry.get("data_offsets"))
    if not isinstance(dtype, str) or shape is None or place is None or len(place) != 2:
        raise fault
    if len(shape) > 16 or math.prod(shape) >= 1 << 60:
        raise fault
    if dtype not in DTYPE_BITS:
        raise UnsupportedModelError(
            f"tensor {name!r:.100} has the unknown type {dtype!r:.40}", hint="update Innkeeper"
        )
    tensor = SafeTensor(name, dtype, shape, place[1] - place[0])
    if tensor.num_items * DTYPE_BITS[dtype] != 8 * tensor.num_bytes:
        raise CorruptModelError(
            f"tensor {name!r:.100} of {dtype} {list(shape)} cannot take {tensor.num_bytes:,} bytes",
            hint=_AGAIN,
        )
    return place[0], tensor


def _sizes(found: object) -> tuple[int, ...] | None:
    """A list of sizes as a tuple, None if it is something else."""
    if not isinstance(found, list):
        return None
    for item in found:
        if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < 1 << 60:
            return None
    return tuple(found)


def shard_names(index: Mapping[str, Any]) -> tuple[str, ...]:
    """The files that a ``model.safetensors.index.json`` names.

    Raises: CorruptModelError if it is no such index, or names a file outside its folder.
    """
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CorruptModelError("the index names no tensors", hint=_AGAIN)
    names = sorted({str(name) for name in places.values()})
    for name in names:
        if "/" in name or "\\" in name or name.startswith("."):
            raise CorruptModelError(f"the index names a file elsewhere: {name!r:.100}")
    return tuple(names)


def merge(shards: list[SafetensorsHeader], index: Mapping[str, Any]) -> SafetensorsHeader:
    """One header for a set. Raises: CorruptModelError if its tensors are not the index's."""
    tensors = tuple(tensor for shard in shards for tensor in shard.tensors)
    named, there = set(index.get("weight_map", {})), {tensor.name for tensor in tensors}
    if missing := sorted(named - there):
        raise CorruptModelError(
            f"{len(missing)} tensors of the index are in no shard, such as {missing[0]!r:.100}",
            hint=_AGAIN,
        )
    metadata = shards[0].metadata if shards else {}
    return SafetensorsHeader(sum(shard.file_bytes for shard in shards), metadata, tensors)
