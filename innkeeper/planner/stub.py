"""Writes a GGUF that has a model's header and a hole in place of its weights.

llama.cpp's no-allocation load reads nothing else, so a dry run needs neither the model's data nor
its vocabulary (the slow part of loading).
"""

import struct
from pathlib import Path

from innkeeper.errors import ModelFileError
from innkeeper.formats.gguf_header import GgufHeader

_UINT32, _STRING = 4, 8
_DROPPED = ("tokenizer.", "split.")


def write_stub(header: GgufHeader, num_vocab: int, path: Path) -> None:
    """Writes the stub of ``header`` (all parts of a set in one) to ``path``.

    The file looks as large as the model and takes some 100 kB on disk.
    Raises: ModelFileError if the file system cannot hold a file with such a hole.
    """
    size_key = f"{header.architecture}.vocab_size"
    metadata = {
        key: raw
        for key, raw in header.raw_metadata.items()
        if not key.startswith(_DROPPED) and key != size_key
    }
    metadata["tokenizer.ggml.model"] = struct.pack("<I", _STRING) + _text("no_vocab")
    metadata[size_key] = struct.pack("<II", _UINT32, num_vocab)
    infos, data_bytes = _tensor_infos(header)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(header.tensors), len(metadata))
    head += b"".join(_text(key) + raw for key, raw in metadata.items()) + infos
    total = _padded(len(head), header.alignment) + data_bytes
    try:
        with path.open("wb") as file:
            file.write(head)
            file.truncate(total)
    except OSError as error:
        raise ModelFileError(
            f"a stub of {total:,} bytes cannot be made in {path.parent}: {error.strerror}",
            hint="set TMPDIR to a disk that supports sparse files",
        ) from None


def _tensor_infos(header: GgufHeader) -> tuple[bytes, int]:
    """The encoded infos with new offsets, and the size of the data they describe."""
    parts: list[bytes] = []
    offset = 0
    for tensor in header.tensors:
        parts.append(_text(tensor.name))
        parts.append(struct.pack("<I", len(tensor.shape)))
        parts.append(struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape))
        parts.append(struct.pack("<IQ", tensor.type.id, offset))
        offset = _padded(offset + tensor.num_bytes, header.alignment)
    return b"".join(parts), offset


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _padded(size: int, step: int) -> int:
    return (size + step - 1) // step * step
