from collections.abc import Callable
from pathlib import Path

import gguf as reference
import numpy as np
import pytest

from innkeeper.errors import (
    CorruptModelError,
    ModelFileError,
    NotAModelError,
    NotFoundError,
    UnsupportedModelError,
)
from innkeeper.formats import gguf
from innkeeper.formats.ggml_types import GGML_TYPES
from innkeeper.formats.gguf_header import SkippedArray

WriteGguf = Callable[..., Path]


def test_every_metadata_type_reads_back(write_gguf: WriteGguf) -> None:
    header = gguf.read(write_gguf())
    assert header.version == 3
    assert header.architecture == "llama"
    assert header.metadata["general.name"] == "Tiny"
    assert header.hparam("context_length") == 2048
    assert header.metadata["test.u8"] == 200
    assert header.metadata["test.i8"] == -100
    assert header.metadata["test.u16"] == 60000
    assert header.metadata["test.i16"] == -30000
    assert header.metadata["test.i32"] == -(2**31)
    assert header.metadata["test.u64"] == 2**63 + 1
    assert header.metadata["test.i64"] == -(2**63)
    assert header.metadata["test.f64"] == 0.1
    assert header.metadata["test.yes"] is True
    assert header.metadata["test.layers"] == (1, 2, 3)
    assert header.metadata["test.flags"] == (True, False)
    assert header.metadata["tokenizer.ggml.tokens"] == tuple(f"token{i}ü" for i in range(40))


def test_tensors_equal_the_reference_reader(write_gguf: WriteGguf) -> None:
    path = write_gguf()
    header = gguf.read(path)
    expected = reference.GGUFReader(path)
    assert header.data_start == expected.data_offset
    assert len(header.tensors) == len(expected.tensors) == 5
    for ours, theirs in zip(header.tensors, expected.tensors, strict=True):
        assert ours.name == theirs.name
        assert ours.shape == tuple(theirs.shape.tolist())
        assert ours.type.name == theirs.tensor_type.name
        assert ours.num_bytes == theirs.n_bytes
        assert header.data_start + ours.offset == theirs.data_offset


def test_type_table_equals_the_reference() -> None:
    for kind in reference.GGMLQuantizationType:
        if kind.name == "Q8_1":  # the reference is wrong here; no file has it
            continue
        sizes = reference.GGML_QUANT_SIZES[kind]
        ours = GGML_TYPES[kind.value]
        assert (ours.name, (ours.block_size, ours.type_size)) == (kind.name, sizes)


def test_long_arrays_are_skipped_not_kept(write_gguf: WriteGguf) -> None:
    path = write_gguf(num_tokens=5000)
    header = gguf.read(path)
    tokens = header.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, SkippedArray)
    assert (tokens.item_type, tokens.length) == (8, 5000)
    assert path.read_bytes()[tokens.start + 8 :].startswith("token0ü".encode())
    assert header.array_length("tokenizer.ggml.scores") == 5000
    assert header.tensors == gguf.read(write_gguf("short.gguf")).tensors


def test_prefix_asks_for_more_until_header_is_whole(write_gguf: WriteGguf) -> None:
    data = write_gguf(num_tokens=3000).read_bytes()
    have, asked = 1, []
    while isinstance(found := gguf.parse(data[:have], len(data)), gguf.NeedMore):
        assert have < found.num_bytes <= len(data)
        asked.append(have := found.num_bytes)
    assert found == gguf.parse(data, len(data))
    assert found.header_bytes == have
    assert len(asked) > 10


def test_every_shorter_file_is_called_corrupt(write_gguf: WriteGguf) -> None:
    data = write_gguf().read_bytes()
    header = gguf.parse(data, len(data))
    assert isinstance(header, gguf.GgufHeader)
    for length in [*range(header.header_bytes + 1), header.data_start, len(data) // 2]:
        with pytest.raises(CorruptModelError):
            gguf.parse(data[:length], length)


def test_truncated_data_says_how_much_is_missing(write_gguf: WriteGguf) -> None:
    path = write_gguf()
    data = path.read_bytes()
    path.write_bytes(data[:-1000])
    with pytest.raises(CorruptModelError) as caught:
        gguf.read(path)
    assert "model.gguf" in caught.value.message
    assert f"{len(data) - 1000:,} of" in caught.value.message
    assert caught.value.hint == "download it again"


@pytest.mark.parametrize(
    ("start", "error", "words"),
    [
        (b"", CorruptModelError, "empty"),
        (b"GG", CorruptModelError, "ends after 2 bytes"),
        (b"\0" * 64, CorruptModelError, "never finished"),
        (b"tjgg" + b"\3\0\0\0" * 8, UnsupportedModelError, "GGJT"),
        (b"fmgg" + b"\1\0\0\0" * 8, UnsupportedModelError, "GGMF"),
        (b"lmgg" + b"\1\0\0\0" * 8, UnsupportedModelError, "GGML"),
        (b"algg" + b"\1\0\0\0" * 8, UnsupportedModelError, "LoRA"),
        (b"GGUF" + b"\1\0\0\0" * 8, UnsupportedModelError, "version 1"),
        (b"GGUF" + b"\0\0\0\0" * 8, CorruptModelError, "version 0"),
        (b"GGUF" + b"\0\0\0\3" * 8, UnsupportedModelError, "big-endian"),
        (b"GGUF" + b"\x63\0\0\0" * 8, UnsupportedModelError, "version 99"),
        (b"FUGG" + b"\0\0\0\3" * 8, UnsupportedModelError, "big-endian"),
        (b"PK\3\4" + b"\0" * 40, UnsupportedModelError, "pickle"),
        (b"\x80\2}q\0." + b"\0" * 40, UnsupportedModelError, "pickle"),
        (b"<!DOCTYPE html><html></html>", NotAModelError, "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", NotAModelError, "Git LFS"),
        (b"\x40\0\0\0\0\0\0\0" + b'{"__metadata__":{}}', UnsupportedModelError, "safetensors"),
        (b"Once upon a time there was", NotAModelError, "Once"),
    ],
)
def test_other_files_are_named(
    start: bytes, error: type[ModelFileError], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(start)
    with pytest.raises(error) as caught:
        gguf.read(path)
    assert words in caught.value.message


def test_missing_file_and_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no file"):
        gguf.read(tmp_path / "none.gguf")
    with pytest.raises(ModelFileError, match="is a folder"):
        gguf.read(tmp_path)


def test_alignment_of_the_file_is_used(tmp_path: Path) -> None:
    writer = reference.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_custom_alignment(256)
    for name in ("a", "b"):
        writer.add_tensor(name, np.ones(3, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = gguf.read(tmp_path / "m.gguf")
    assert header.alignment == 256
    assert header.data_start % 256 == 0
    assert [tensor.offset for tensor in header.tensors] == [0, 256]


def write_split(folder: Path, count: int = 3) -> list[Path]:
    writer = reference.GGUFWriter(
        folder / "model.gguf", "llama", split_max_tensors=2, small_first_shard=False
    )
    writer.add_block_count(2)
    for name in "abcde"[: 2 * count - 1]:
        writer.add_tensor(name, np.ones(64, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("*.gguf"))


def test_split_set_reads_as_one_model(tmp_path: Path) -> None:
    parts = write_split(tmp_path)
    for part in parts:
        model = gguf.read_model(part)
        assert model.paths == tuple(parts)
        assert [tensor.name for tensor in model.header.tensors] == list("abcde")
        assert model.header.hparam("block_count") == 2
        assert model.header.file_bytes == sum(path.stat().st_size for path in parts)


def test_missing_part_is_named(tmp_path: Path) -> None:
    parts = write_split(tmp_path)
    parts[1].unlink()
    with pytest.raises(CorruptModelError) as caught:
        gguf.read_model(parts[0])
    assert "1 of 3 parts" in caught.value.message
    assert "model-00002-of-00003.gguf" in caught.value.message


def test_parts_of_different_sets_are_refused(tmp_path: Path) -> None:
    parts = write_split(tmp_path)
    parts[2].write_bytes(parts[1].read_bytes())
    with pytest.raises(CorruptModelError, match="part 3 of 3 says that it is part 2 of 3"):
        gguf.read_model(parts[0])


def test_lone_part_under_another_name_is_refused(tmp_path: Path) -> None:
    parts = write_split(tmp_path)
    renamed = parts[0].rename(tmp_path / "renamed.gguf")
    with pytest.raises(CorruptModelError, match="3 parts"):
        gguf.read_model(renamed)
