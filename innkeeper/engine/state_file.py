"""One file of the disk cache: the tokens of a chat, and the KV state that reading them gave.

    magic (8 bytes) | length of the header (u32, little-endian) | SHA-256 of the header
    header: msgpack ``Header``
    state, and what the checkpoints hold, to the end of the file

A file is read only if every byte is what was written: the header is checked when the folder is
looked through, the state (gigabytes, maybe) when it is wanted.
"""

import contextlib
import hashlib
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from innkeeper.engine.bases import Checkpoint, SavedBase
from innkeeper.engine.runner import State

SUFFIX = ".kv"
PART_SUFFIX = ".part"
_MAGIC = b"INNKEEP1"
_FIXED = struct.Struct("<8sI32s")


class StateFileError(Exception):
    """The file is not one of ours, is not whole, or was changed."""


class Header(Struct, frozen=True):
    """What a state is the state of."""

    key: str
    """``Runner.state_key`` of the runner that made it."""
    tokens: bytes
    """Token ids as little-endian int32."""
    num_exact: int
    speaker: str
    """As ``Base.speaker``."""
    num_bytes: int
    """Length of the state and the checkpoints."""
    sha256: bytes
    """Of the same."""
    checkpoints: tuple[tuple[int, int], ...] = ()
    """(tokens, bytes) of each."""

    def token_list(self) -> list[int]:
        return [int(token) for token in np.frombuffer(self.tokens, "<i4")]

    def base(self, whole: State) -> SavedBase:
        """The base, of views of what lies behind the header."""
        at = self.num_bytes - sum(size for _, size in self.checkpoints)
        state, checkpoints = whole[:at], []
        for length, size in self.checkpoints:
            checkpoints.append(Checkpoint(length, whole[at : at + size]))
            at += size
        return SavedBase(self.token_list(), self.num_exact, self.speaker, state, checkpoints)


_decoder = msgspec.msgpack.Decoder(Header)


def make_header(key: str, base: SavedBase) -> Header:
    """Hashes the state, which takes about a second a gigabyte."""
    packed = np.asarray(base.tokens, "<i4").tobytes()
    digest = hashlib.sha256()
    for piece in _pieces(base):
        digest.update(piece.data)
    sizes = tuple((each.length, len(each.state)) for each in base.checkpoints)
    return Header(key, packed, base.num_exact, base.speaker, base.num_bytes, digest.digest(), sizes)


def _pieces(base: SavedBase) -> Iterator[State]:
    yield base.state
    for checkpoint in base.checkpoints:
        yield checkpoint.state


def write(path: Path, header: Header, base: SavedBase) -> None:
    """Writes all of it or nothing: another name first, then to the disk, then the move.

    Raises: OSError.
    """
    body = msgspec.msgpack.encode(header)
    part = path.with_name(f"{path.name}.{os.getpid()}{PART_SUFFIX}")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(_FIXED.pack(_MAGIC, len(body), hashlib.sha256(body).digest()))
            file.write(body)
            for piece in _pieces(base):
                file.write(piece.data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def read_header(path: Path) -> Header:
    """Raises: StateFileError for anything but a whole file of ours; OSError."""
    with path.open("rb") as file:
        fixed = file.read(_FIXED.size)
        size = os.fstat(file.fileno()).st_size
        if len(fixed) < _FIXED.size:
            raise StateFileError(f"{path.name} has {len(fixed)} bytes")
        magic, length, digest = _FIXED.unpack(fixed)
        if magic != _MAGIC or length > size:
            raise StateFileError(f"{path.name} does not begin as a cache file does")
        body = file.read(length)
    if hashlib.sha256(body).digest() != digest:
        raise StateFileError(f"the header of {path.name} was changed")
    try:
        header = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateFileError(f"the header of {path.name}: {error}") from None
    if size != _FIXED.size + length + header.num_bytes or len(header.tokens) % 4:
        raise StateFileError(f"{path.name} has {size} bytes, which is not what it says")
    return header


def read_base(path: Path, header: Header) -> SavedBase:
    """The base, mapped from the file, after every byte of it was checked.

    Raises: StateFileError if the file is not the one that ``header`` was read from; OSError.
    """
    if read_header(path) != header:
        raise StateFileError(f"{path.name} is another file by now")
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    whole: State = np.frombuffer(mapped, np.uint8)[len(mapped) - header.num_bytes :]
    if hashlib.sha256(whole.data).digest() != header.sha256:
        raise StateFileError(f"the state in {path.name} was changed")
    return header.base(whole)
