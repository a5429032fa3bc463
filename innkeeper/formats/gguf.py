"""GGUF files: headers of single files and of split sets, from disk or from byte ranges.

Tensor data is never read. The bytes may be a whole file or its first part (an HTTP range):
``parse`` says how many more it needs. Every count, length, product and offset is checked against
the size of the file before anything is allocated for it.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from innkeeper.errors import CorruptModelError, ModelFileError, NotFoundError
from innkeeper.formats.gguf_header import GgufHeader, NeedMore, SkippedArray, TensorInfo, Value
from innkeeper.formats.gguf_parser import parse
from innkeeper.units import MIB

__all__ = [
    "FIRST_READ_BYTES",
    "GgufHeader",
    "GgufModel",
    "NeedMore",
    "SkippedArray",
    "TensorInfo",
    "Value",
    "merge",
    "parse",
    "read",
    "read_model",
    "split_names",
]

FIRST_READ_BYTES = 1 * MIB
"""What to ask for at first; small vocabularies are done with it."""

_SPLIT_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
_AGAIN = "download it again"


class GgufModel(NamedTuple):
    """A model on disk: one header for all its parts, and the parts in order."""

    header: GgufHeader
    paths: tuple[Path, ...]


def read(path: Path) -> GgufHeader:
    """Reads the header of one file; of a large one only its first MiBs.

    Raises: NotFoundError, ModelFileError (no permission), and what ``parse`` raises, each naming
    the file.
    """
    try:
        return _read(path)
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path}", hint="check the path") from None
    except IsADirectoryError:
        raise ModelFileError(f"{path} is a folder, not a GGUF file") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelFileError(
            f"{path} cannot be read: {reason}", hint="check who may read it"
        ) from None
    except ModelFileError as error:
        message = f"{path.name}: {error.message}"
        raise type(error)(message, field=error.field, hint=error.hint) from None


def _read(path: Path) -> GgufHeader:
    with path.open("rb") as file:
        file_bytes = file.seek(0, 2)
        file.seek(0)
        data = bytearray(file.read(min(FIRST_READ_BYTES, file_bytes)))
        while isinstance(found := parse(data, file_bytes), NeedMore):
            wanted = min(max(found.num_bytes, 2 * len(data)), file_bytes)
            more = file.read(wanted - len(data))
            if not more:
                raise CorruptModelError("the file shrank while it was read", hint=_AGAIN)
            data += more
    return found


def split_names(name: str) -> tuple[str, ...]:
    """The file names of the set that ``name`` (``x-00002-of-00003.gguf``) belongs to.

    A name without such an ending stands alone. Raises: CorruptModelError if the numbers make no
    sense (part 4 of 3).
    """
    match = _SPLIT_NAME.fullmatch(name)
    if match is None:
        return (name,)
    number, count = int(match[2]), int(match[3])
    if not 1 <= number <= count:
        raise CorruptModelError(f"{name} claims to be part {number} of {count}")
    extension = name[-5:]
    return tuple(f"{match[1]}-{part:05d}-of-{count:05d}{extension}" for part in range(1, count + 1))


def read_model(path: Path) -> GgufModel:
    """Reads the model that ``path`` is, or is one part of.

    Raises: what ``read`` raises, and CorruptModelError if parts are missing or do not belong
    together.
    """
    paths = tuple(path.with_name(name) for name in split_names(path.name))
    missing = [part.name for part in paths if not part.exists()]
    if missing and len(paths) > 1 and path.exists():
        raise CorruptModelError(
            f"{len(missing)} of {len(paths)} parts of the model are missing: "
            + ", ".join(missing[:3])
            + (", ..." if len(missing) > 3 else ""),
            hint="download them into the same folder",
        )
    return GgufModel(merge([read(part) for part in paths]), paths)


def merge(parts: list[GgufHeader]) -> GgufHeader:
    """One header for a whole set: the first part's metadata, everyone's tensors.

    Sizes are sums; ``offset`` of a tensor stays what it is in its own part.
    Raises: CorruptModelError if the parts do not belong together.
    """
    first = parts[0]
    count = first.integer("split.count") or 1
    if count != len(parts):
        raise CorruptModelError(
            f"the header says that the model has {count} parts, but its name gives {len(parts)}",
            hint="download all parts under their own names",
        )
    for number, part in enumerate(parts):
        if count > 1 and (part.integer("split.no"), part.integer("split.count")) != (number, count):
            raise CorruptModelError(
                f"part {number + 1} of {count} says that it is part "
                f"{(part.integer('split.no') or 0) + 1} of {part.integer('split.count')}",
                hint=_AGAIN,
            )
    tensors = tuple(tensor for part in parts for tensor in part.tensors)
    _check_set(first, tensors)
    return replace(
        first,
        file_bytes=sum(part.file_bytes for part in parts),
        header_bytes=sum(part.header_bytes for part in parts),
        tensors=tensors,
    )


def _check_set(first: GgufHeader, tensors: tuple[TensorInfo, ...]) -> None:
    expected = first.integer("split.tensors.count")
    if expected is not None and expected != len(tensors):
        raise CorruptModelError(
            f"the parts have {len(tensors):,} tensors; the first one promises {expected:,}",
            hint=_AGAIN,
        )
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise CorruptModelError("a tensor appears in two parts", hint=_AGAIN)
