"""Hostile headers: whatever a file says, the reader ends with a header or a typed error."""

import random
import struct
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from innkeeper.errors import ModelFileError
from innkeeper.formats import gguf

WriteGguf = Callable[..., Path]
NUM_MUTATIONS = 5000
HUGE = [2**64 - 1, 2**63, 2**63 - 1, 2**62, 2**48, 2**40, 2**32, 2**31, 10**6, 65536, 4096, 0]


def fields(data: bytes, header_bytes: int) -> list[int]:
    """Offsets in the header where eight bytes look like a count, a length or an offset."""
    return [
        at
        for at in range(8, header_bytes - 8)
        if 0 < struct.unpack_from("<Q", data, at)[0] < 1 << 20
    ]


def mutations(data: bytes, header_bytes: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Endless mutated copies of ``data``: flips, huge fields, cuts, shifts, and mixes of them."""
    rng = random.Random(seed)
    places = fields(data, header_bytes)

    def flip(bad: bytearray) -> None:
        for _ in range(rng.choice((1, 1, 2, 8))):
            bad[rng.randrange(min(header_bytes, len(bad)))] = rng.randrange(256)

    def enlarge(bad: bytearray) -> None:
        bad[(at := rng.choice(places)) : at + 8] = struct.pack("<Q", rng.choice(HUGE))

    def enlarge_word(bad: bytearray) -> None:
        bad[(at := rng.choice(places)) : at + 4] = struct.pack("<I", rng.choice(HUGE) % 2**32)

    def cut(bad: bytearray) -> None:
        del bad[rng.randrange(len(bad)) if rng.random() < 0.2 else rng.randrange(header_bytes) :]

    def remove(bad: bytearray) -> None:
        at = rng.randrange(min(header_bytes, len(bad)))
        del bad[at : at + rng.choice((1, 4, 8, 12))]

    def repeat(bad: bytearray) -> None:
        at = rng.randrange(min(header_bytes, len(bad)))
        bad[at:at] = bad[at : at + rng.choice((1, 4, 8, 30, 60))]

    def splice(bad: bytearray) -> None:
        source, target = rng.randrange(header_bytes - 16), rng.randrange(header_bytes - 16)
        bad[target : target + 16] = data[source : source + 16]

    kinds = (flip, enlarge, enlarge_word, cut, remove, repeat, splice)
    while True:
        bad = bytearray(data)
        first = rng.choice(kinds)
        first(bad)
        if rng.random() < 0.2 and len(bad) > 64:
            flip(bad)
        yield first.__name__, bytes(bad)


def outcome(data: bytes) -> str:
    """Reads ``data`` as a file that comes in pieces. Anything but a typed error escapes."""
    have = min(64, len(data))
    try:
        while isinstance(found := gguf.parse(data[:have], len(data)), gguf.NeedMore):
            assert have < found.num_bytes <= len(data), "asked for bytes past the end"
            have = min(len(data), max(found.num_bytes, 4 * have))
    except ModelFileError as error:
        assert error.message
        assert len(error.message) < 500
        return type(error).__name__
    assert found.data_start <= len(data) or not found.tensors
    for tensor in found.tensors:
        assert found.data_start + tensor.offset + tensor.num_bytes <= len(data)
    return "read"


def test_mutated_headers_give_only_typed_errors(write_gguf: WriteGguf) -> None:
    data = write_gguf(num_tokens=12).read_bytes()
    header = gguf.parse(data, len(data))
    assert isinstance(header, gguf.GgufHeader)
    seen: Counter[tuple[str, str]] = Counter()
    source = mutations(data, header.header_bytes, seed=20)
    for _ in range(NUM_MUTATIONS):
        kind, bad = next(source)
        seen[kind, outcome(bad)] += 1
    assert seen["cut", "read"] == 0
    for kind in ("flip", "enlarge", "enlarge_word", "cut", "remove", "repeat", "splice"):
        assert seen[kind, "CorruptModelError"] > 50
    assert sum(count for (_, result), count in seen.items() if result == "read") > 50


def test_huge_claims_allocate_next_to_nothing(write_gguf: WriteGguf) -> None:
    data = write_gguf(num_tokens=12).read_bytes()
    header = gguf.parse(data, len(data))
    assert isinstance(header, gguf.GgufHeader)
    places = fields(data, header.header_bytes)
    tracemalloc.start()
    try:
        for at in places[:: max(1, len(places) // 60)]:
            for value in HUGE:
                outcome(data[:at] + struct.pack("<Q", value) + data[at + 8 :])
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1_000_000


def test_huge_claims_in_a_huge_file_allocate_little(tmp_path: Path, write_gguf: WriteGguf) -> None:
    """A sparse 1 TB file makes every claim fit in the file; the reader still gives up early."""
    data = write_gguf(num_tokens=12).read_bytes()
    at = data.index(b"tokenizer.ggml.tokens") + len("tokenizer.ggml.tokens") + 8
    path = tmp_path / "huge.gguf"
    path.write_bytes(data[:at] + struct.pack("<Q", 2**36) + data[at + 8 :])
    with path.open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(ModelFileError, match="no header is larger"):
        gguf.read(path)


def test_a_million_tensors_is_refused_at_once(write_gguf: WriteGguf) -> None:
    data = bytearray(write_gguf().read_bytes())
    data[8:16] = struct.pack("<Q", 10**6)
    with pytest.raises(ModelFileError, match="1,000,000 tensors"):
        gguf.parse(bytes(data), 10**12)
