"""Where a model's files are read from: a folder here, or a repository behind HTTP ranges."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from innkeeper.errors import CorruptModelError, ModelFileError, NotFoundError
from innkeeper.formats.gguf_header import GgufHeader
from innkeeper.formats.gguf_parser import parse
from innkeeper.units import MIB

FIRST_READ_BYTES = 1 * MIB
"""What to ask for at first; small vocabularies are done with it."""
MAX_FILES = 20_000
MAX_DEPTH = 3


class Source(Protocol):
    """Files of one model or repository, by name relative to it (``/`` between folders)."""

    @property
    def files(self) -> Mapping[str, int]:
        """Name -> size in bytes."""

    def read(self, name: str, num_bytes: int) -> bytes:
        """The first ``num_bytes`` of a file, or all of it.

        Raises: NotFoundError, ModelFileError.
        """


class LocalSource:
    """A folder on this machine. Links are followed; files deeper than ``depth`` are not seen."""

    def __init__(self, folder: Path, depth: int = MAX_DEPTH) -> None:
        self._folder = folder
        self.files: Mapping[str, int] = _list(folder, depth)

    def read(self, name: str, num_bytes: int) -> bytes:
        path = self._folder / name
        try:
            with path.open("rb") as file:
                return file.read(num_bytes)
        except FileNotFoundError:
            raise NotFoundError(f"there is no file {path}", hint="check the path") from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ModelFileError(
                f"{path} cannot be read: {reason}", hint="check who may read it"
            ) from None


def read_gguf_header(source: Source, name: str) -> GgufHeader:
    """The header of the GGUF file ``name``; of a large file only its first MiBs are read.

    Raises: what ``parse`` and ``source.read`` raise, naming the file.
    """
    file_bytes = source.files[name]
    try:
        wanted = min(FIRST_READ_BYTES, file_bytes)
        while True:
            data = source.read(name, wanted)
            found = parse(data, file_bytes)
            if isinstance(found, GgufHeader):
                return found
            wanted = min(max(found.num_bytes, 2 * len(data)), file_bytes)
            if len(data) >= wanted:
                raise CorruptModelError("the file changed while it was read")
    except ModelFileError as error:
        short = name.rpartition("/")[2]
        if error.message.startswith(short):
            raise
        message = f"{short}: {error.message}"
        raise type(error)(message, field=error.field, hint=error.hint) from None


def _list(folder: Path, deepest: int) -> dict[str, int]:
    found: dict[str, int] = {}
    todo = [(folder, 1)]
    while todo and len(found) < MAX_FILES:
        here, depth = todo.pop()
        try:
            entries = sorted(here.iterdir())
        except OSError:
            continue
        for entry in entries:
            try:
                if entry.is_dir():
                    if depth < deepest and not entry.name.startswith("."):
                        todo.append((entry, depth + 1))
                elif entry.is_file():
                    found[entry.relative_to(folder).as_posix()] = entry.stat().st_size
            except OSError:
                continue
    return found
