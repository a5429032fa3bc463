"""Reads headers of GGUF files from bytes: the walk, and every check on the way.

Source: ggml's docs/gguf.md and the checks of its gguf.cpp, which refuses what we refuse.
"""

import math
import struct

from innkeeper.errors import CorruptModelError, ModelFileError, UnsupportedModelError
from innkeeper.formats.ggml_types import GGML_TYPES, REMOVED_TYPES, GgmlType
from innkeeper.formats.gguf_header import (
    GgufHeader,
    NeedMore,
    Scalar,
    SkippedArray,
    TensorInfo,
    Value,
)
from innkeeper.formats.magic import GGUF_MAGIC, NUM_MAGIC_BYTES, describe_non_gguf
from innkeeper.units import MIB, format_bytes

MAX_HEADER_BYTES = 128 * MIB
"""Eight times the largest vocabulary seen (16 MiB)."""
MAX_TENSORS = 65_536
MAX_METADATA = 65_536
MAX_KEY_BYTES = 65_535
MAX_RAW_BYTES = 65_536
"""Longer values are not kept as they lie in the file."""
MAX_EAGER_ITEMS = 2_048
"""Longer arrays (vocabularies, merges) are skipped: only their place is kept."""

_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING, _ARRAY = 8, 9
_UINT64 = _SCALARS[10]
_MIN_STRING_BYTES = 8
_MIN_METADATA_BYTES = 8 + 1 + 4 + 1
_MIN_TENSOR_BYTES = 8 + 4 + 4 + 8
_MAX_DIMS = 4
_MAX_WEIGHTS = 2**63 - 1
_MAX_TENSOR_NAME = 63
_AGAIN = "download it again"


def parse(data: bytes | bytearray | memoryview, file_bytes: int) -> GgufHeader | NeedMore:
    """Reads a header from ``data``, the first bytes of a file of ``file_bytes``.

    Returns: the header, or how many bytes are needed at least (never more than the file has).
    Raises: NotAModelError, UnsupportedModelError, CorruptModelError.
    """
    try:
        return _Parser(data, file_bytes).header()
    except _NeedMoreError as need:
        return NeedMore(need.num_bytes)


class _NeedMoreError(Exception):
    def __init__(self, num_bytes: int) -> None:
        super().__init__(num_bytes)
        self.num_bytes = num_bytes


class _Parser:
    """Walks over ``data``. Every step is preceded by ``_require``, which knows the file's size."""

    def __init__(self, data: bytes | bytearray | memoryview, file_bytes: int) -> None:
        self.data = memoryview(data)[:file_bytes]
        self.file_bytes = file_bytes
        self.position = 0
        self.raw_metadata: dict[str, bytes] = {}

    def header(self) -> GgufHeader:
        version, num_tensors, num_metadata = self._counts()
        metadata = self._metadata(num_metadata)
        alignment = self._alignment(metadata)
        infos = self._tensor_infos(num_tensors)
        header_bytes = self.position
        data_start = _padded(header_bytes, alignment)
        self._check_layout(infos, data_start, alignment)
        return GgufHeader(
            version=version,
            file_bytes=self.file_bytes,
            header_bytes=header_bytes,
            alignment=alignment,
            data_start=data_start,
            metadata=metadata,
            tensors=tuple(infos),
            raw_metadata=self.raw_metadata,
        )

    def _require(self, num_bytes: int, what: str) -> None:
        """Makes sure that ``num_bytes`` lie ahead, in the file and in ``data``."""
        end = self.position + num_bytes
        if end > self.file_bytes:
            raise CorruptModelError(
                f"the file ends at byte {self.file_bytes:,}, but {what} at byte "
                f"{self.position:,} needs {num_bytes:,} bytes",
                hint=_AGAIN,
            )
        if end > MAX_HEADER_BYTES:
            raise CorruptModelError(
                f"{what} would end at byte {end:,}; no header is larger than "
                f"{format_bytes(MAX_HEADER_BYTES)}",
                hint=_AGAIN,
            )
        if end > len(self.data):
            raise _NeedMoreError(end)

    def _scalar(self, kind: int, what: str) -> int | float | bool:
        layout = _SCALARS[kind]
        self._require(layout.size, what)
        value: int | float | bool = layout.unpack_from(self.data, self.position)[0]
        self.position += layout.size
        return value

    def _int(self, kind: int, what: str) -> int:
        return int(self._scalar(kind, what))

    def _string(self, what: str, longest: int = MAX_HEADER_BYTES) -> str:
        length = self._int(10, f"the length of {what}")
        if length > longest:
            raise CorruptModelError(
                f"{what} at byte {self.position:,} claims {length:,} bytes; at most {longest:,} "
                "are possible",
                hint=_AGAIN,
            )
        self._require(length, what)
        raw = bytes(self.data[self.position : self.position + length])
        self.position += length
        return raw.decode("utf-8", "replace")

    def _counts(self) -> tuple[int, int, int]:
        if self.file_bytes < NUM_MAGIC_BYTES or len(self.data) >= NUM_MAGIC_BYTES:
            start = bytes(self.data[:NUM_MAGIC_BYTES])
            if not start.startswith(GGUF_MAGIC):
                raise describe_non_gguf(start)
        self._require(NUM_MAGIC_BYTES, "the header")
        self.position = len(GGUF_MAGIC)
        version = self._int(4, "the version")
        if version in (0, 1) or version > 3:
            raise _unreadable_version(version)
        num_tensors = self._int(10, "the number of tensors")
        num_metadata = self._int(10, "the number of metadata entries")
        self._check_count(num_metadata, MAX_METADATA, _MIN_METADATA_BYTES, "metadata entries")
        self._check_count(num_tensors, MAX_TENSORS, _MIN_TENSOR_BYTES, "tensors")
        return version, num_tensors, num_metadata

    def _check_count(self, count: int, most: int, min_bytes: int, what: str) -> None:
        if count > most:
            raise CorruptModelError(
                f"the header claims {count:,} {what}; at most {most:,} are possible", hint=_AGAIN
            )
        self._require_in_file(count * min_bytes, f"a list of {count:,} {what}")

    def _require_in_file(self, num_bytes: int, what: str) -> None:
        left = self.file_bytes - self.position
        if num_bytes > left:
            raise CorruptModelError(
                f"{what} needs at least {num_bytes:,} bytes; the file has {left:,} left",
                hint=_AGAIN,
            )

    def _metadata(self, count: int) -> dict[str, Value]:
        metadata: dict[str, Value] = {}
        for index in range(count):
            key = self._string(f"metadata key {index}", MAX_KEY_BYTES)
            if not key or key in metadata:
                fault = "appears twice" if key else "is empty"
                raise CorruptModelError(f"metadata key {index} {key!r:.100} {fault}", hint=_AGAIN)
            start = self.position
            metadata[key] = self._value(f"metadata {key!r:.100}")
            if self.position - start <= MAX_RAW_BYTES:
                self.raw_metadata[key] = bytes(self.data[start : self.position])
        return metadata

    def _value(self, what: str) -> Value:
        kind = self._int(4, f"the type of {what}")
        if kind == _STRING:
            return self._string(what)
        if kind == _ARRAY:
            return self._array(what)
        if kind not in _SCALARS:
            raise CorruptModelError(f"{what} has the unknown type {kind}", hint=_AGAIN)
        return self._scalar(kind, what)

    def _array(self, what: str) -> tuple[Scalar, ...] | SkippedArray:
        kind = self._int(4, f"the item type of {what}")
        length = self._int(10, f"the length of {what}")
        if kind == _ARRAY:
            raise UnsupportedModelError(f"{what} is an array of arrays, which nothing reads")
        if kind != _STRING and kind not in _SCALARS:
            raise CorruptModelError(f"{what} has items of the unknown type {kind}", hint=_AGAIN)
        item_bytes = _MIN_STRING_BYTES if kind == _STRING else _SCALARS[kind].size
        self._require(length * item_bytes, f"{what} of {length:,} items")
        if length > MAX_EAGER_ITEMS:
            return self._skip_array(kind, length, what)
        if kind == _STRING:
            return tuple(self._string(what) for _ in range(length))
        layout = _SCALARS[kind]
        raw = self.data[self.position : self.position + length * layout.size]
        self.position += len(raw)
        return tuple(item[0] for item in layout.iter_unpack(raw))

    def _skip_array(self, kind: int, length: int, what: str) -> SkippedArray:
        start = self.position
        if kind == _STRING:
            self._skip_strings(length, what)
        else:
            self.position += length * _SCALARS[kind].size
        return SkippedArray(kind, length, start, self.position - start)

    def _skip_strings(self, length: int, what: str) -> None:
        """The one hot loop: a vocabulary has half a million strings."""
        unpack, data, position, index = _UINT64.unpack_from, self.data, self.position, 0
        try:
            for index in range(length):  # noqa: B007 - an error names it
                position += _MIN_STRING_BYTES + unpack(data, position)[0]
        except (struct.error, OverflowError):  # it lies beyond the end
            self.position = position
            self._require((length - index) * _MIN_STRING_BYTES, f"item {index:,} of {what}")
        self.position = position
        self._require(0, f"the last item of {what}")

    def _alignment(self, metadata: dict[str, Value]) -> int:
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise CorruptModelError(
                f"general.alignment is {alignment!r:.100}, not a power of two", hint=_AGAIN
            )
        return alignment

    def _tensor_infos(self, count: int) -> list[TensorInfo]:
        infos: list[TensorInfo] = []
        names: set[str] = set()
        self._require_in_file(count * _MIN_TENSOR_BYTES, f"a list of {count:,} tensors")
        for index in range(count):
            info = self._tensor_info(index)
            if info.name in names:
                raise CorruptModelError(f"tensor {info.name!r} appears twice", hint=_AGAIN)
            names.add(info.name)
            infos.append(info)
        return infos

    def _tensor_info(self, index: int) -> TensorInfo:
        name = self._string(f"the name of tensor {index}", _MAX_TENSOR_NAME)
        what = f"tensor {name!r}"
        num_dims = self._int(4, f"the number of dimensions of {what}")
        if num_dims > _MAX_DIMS:
            raise CorruptModelError(
                f"{what} claims {num_dims:,} dimensions; at most {_MAX_DIMS} are possible",
                hint=_AGAIN,
            )
        shape = tuple(self._int(10, f"the shape of {what}") for _ in range(num_dims))
        kind = self._tensor_type(self._int(4, f"the type of {what}"), what)
        offset = self._int(10, f"the offset of {what}")
        num_weights = math.prod(shape)
        if num_weights > _MAX_WEIGHTS:
            raise CorruptModelError(f"{what} claims the shape {shape}", hint=_AGAIN)
        row = shape[0] if shape else 1
        if row % kind.block_size:
            raise CorruptModelError(
                f"{what} has rows of {row:,} weights, no multiple of the {kind.block_size} that a "
                f"{kind.name} block holds",
                hint=_AGAIN,
            )
        return TensorInfo(name, shape, kind, offset, kind.row_bytes(num_weights))

    def _tensor_type(self, type_id: int, what: str) -> GgmlType:
        if type_id in GGML_TYPES:
            return GGML_TYPES[type_id]
        if type_id in REMOVED_TYPES:
            raise UnsupportedModelError(
                f"{what} is {REMOVED_TYPES[type_id]}, a type that llama.cpp no longer reads",
                hint="get a Q4_0 or Q4_K_M file of the model",
            )
        if type_id < 256:
            raise UnsupportedModelError(
                f"{what} is of type {type_id}, which is newer than this version of Innkeeper",
                hint="update Innkeeper, or get another quantization",
            )
        raise CorruptModelError(f"{what} has the unknown type {type_id}", hint=_AGAIN)

    def _check_layout(self, infos: list[TensorInfo], data_start: int, alignment: int) -> None:
        """Tensors must follow each other without gap or overlap, as llama.cpp demands."""
        expected = end = 0
        for info in infos:
            if info.offset != expected:
                raise CorruptModelError(
                    f"tensor {info.name!r} is at offset {info.offset:,}; the one before it ends at "
                    f"{expected:,}",
                    hint=_AGAIN,
                )
            end = expected + info.num_bytes
            expected = _padded(end, alignment)
        if infos and data_start + end > self.file_bytes:
            total = data_start + end
            raise CorruptModelError(
                f"the file is truncated: {self.file_bytes:,} of {total:,} bytes are there, "
                f"{format_bytes(total - self.file_bytes)} are missing",
                hint=_AGAIN,
            )


def _unreadable_version(version: int) -> ModelFileError:
    if version == 0:
        return CorruptModelError("the header claims GGUF version 0", hint=_AGAIN)
    if version == 1:
        return UnsupportedModelError(
            "this is GGUF version 1 (August 2023), which llama.cpp no longer reads",
            hint="get a newer file of the model",
        )
    if version & 0xFFFF == 0:
        return UnsupportedModelError(
            "this GGUF file was written for a big-endian machine",
            hint="get the usual (little-endian) file",
        )
    return UnsupportedModelError(
        f"this is GGUF version {version:,}; this version of Innkeeper reads 2 and 3",
        hint="update Innkeeper",
    )


def _padded(size: int, alignment: int) -> int:
    return (size + alignment - 1) // alignment * alignment
