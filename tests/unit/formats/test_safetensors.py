import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from innkeeper.errors import CorruptModelError, ModelFileError, UnsupportedModelError
from innkeeper.formats.gguf_header import NeedMore
from innkeeper.formats.safetensors import SafetensorsHeader, merge, parse, shard_names
from tests.unit.formats.made_models import PLAIN, safetensors


def with_header(header: Any, data_bytes: int = 0) -> bytes:
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(data_bytes)


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_tensors_read_back(tmp_path: Path) -> None:
    data = safetensors(tmp_path / "m.safetensors", PLAIN).read_bytes()
    header = parse(data, len(data))
    assert isinstance(header, SafetensorsHeader)
    assert {t.name: (t.dtype, t.shape) for t in header.tensors} == PLAIN
    assert header.metadata == {"format": "pt"}
    assert header.tensor_bytes == 2 * (2 * 256000 + 131072)


def test_prefix_says_how_much_is_needed(tmp_path: Path) -> None:
    data = safetensors(tmp_path / "m.safetensors", PLAIN).read_bytes()
    assert parse(data[:3], len(data)) == NeedMore(8)
    needed = parse(data[:8], len(data))
    assert isinstance(needed, NeedMore)
    assert isinstance(parse(data[: needed.num_bytes], len(data)), SafetensorsHeader)


@pytest.mark.parametrize(
    ("header", "data_bytes", "words"),
    [
        ({"a": entry([2], 0, 8)}, 4, "4 B are missing"),
        ({"a": entry([2], 0, 8)}, 12, "more behind it"),
        ({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, 12, "offset 4; the one before it ends"),
        ({"a": entry([2], 4, 12)}, 12, "offset 4"),
        ({"a": entry([3], 0, 8)}, 8, "cannot take 8 bytes"),
        ({"a": entry([-2], 0, 8)}, 8, "described badly"),
        ({"a": entry([2**62, 2**62], 0, 8)}, 8, "described badly"),
        ({"a": {"dtype": "F32"}}, 8, "described badly"),
        ({"a": 5}, 8, "described badly"),
        ([1, 2], 8, "not the JSON"),
    ],
)
def test_lying_headers_are_called_corrupt(header: Any, data_bytes: int, words: str) -> None:
    data = with_header(header, data_bytes)
    with pytest.raises(CorruptModelError, match=words):
        parse(data, len(data))


def test_unknown_type_is_unsupported() -> None:
    data = with_header({"a": entry([2], 0, 8, "F3")}, 8)
    with pytest.raises(UnsupportedModelError, match="F3"):
        parse(data, len(data))


def test_deeply_nested_json_is_called_corrupt() -> None:
    raw = b"[" * 200_000
    with pytest.raises(CorruptModelError, match="not the JSON"):
        parse(struct.pack("<Q", len(raw)) + raw, len(raw) + 8)


def test_mutated_headers_give_only_typed_errors(tmp_path: Path) -> None:
    data = safetensors(tmp_path / "m.safetensors", PLAIN).read_bytes()[:400]
    rng = random.Random(7)
    refused = 0
    for _ in range(2000):
        bad = bytearray(data)
        for _ in range(rng.choice((1, 2, 8))):
            bad[rng.randrange(len(bad))] = rng.choice(b'0123456789[]{}",:-\xff\0ae')
        try:
            parse(bytes(bad), 1287000)
        except ModelFileError as error:
            refused += 1
            assert len(error.message) < 400
    assert refused > 1900


def test_index_that_is_none_is_called_corrupt() -> None:
    with pytest.raises(CorruptModelError, match="names no tensors"):
        shard_names({"weight_map": {}})


def test_tensors_missing_from_the_shards_are_named() -> None:
    shard = parse(
        with_header({"a": entry([2], 0, 8)}, 8), len(with_header({"a": entry([2], 0, 8)}, 8))
    )
    assert isinstance(shard, SafetensorsHeader)
    with pytest.raises(
        CorruptModelError, match="1 tensors of the index are in no shard, such as 'b'"
    ):
        merge([shard], {"weight_map": {"a": "x", "b": "y"}})
