"""Small GGUF files written by the reference writer."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

WriteGguf = Callable[..., Path]


@pytest.fixture
def write_gguf(tmp_path: Path) -> WriteGguf:
    """A function that writes a GGUF with every metadata type and a few tensors."""

    def write(name: str = "model.gguf", num_tokens: int = 40, **extra: int) -> Path:
        writer = gguf.GGUFWriter(tmp_path / name, "llama")
        add_metadata(writer, num_tokens)
        for key, value in extra.items():
            writer.add_uint32(key.replace("__", "."), value)
        add_tensors(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tmp_path / name

    return write


def add_metadata(writer: gguf.GGUFWriter, num_tokens: int) -> None:
    writer.add_name("Tiny")
    writer.add_context_length(2048)
    writer.add_block_count(2)
    writer.add_rope_freq_base(10000.0)
    writer.add_uint8("test.u8", 200)
    writer.add_int8("test.i8", -100)
    writer.add_uint16("test.u16", 60000)
    writer.add_int16("test.i16", -30000)
    writer.add_int32("test.i32", -(2**31))
    writer.add_uint64("test.u64", 2**63 + 1)
    writer.add_int64("test.i64", -(2**63))
    writer.add_float64("test.f64", 0.1)
    writer.add_bool("test.yes", True)
    writer.add_array("test.layers", [1, 2, 3])
    writer.add_array("test.flags", [True, False])
    writer.add_token_list([f"token{i}ü" for i in range(num_tokens)])
    writer.add_token_scores([float(-i) for i in range(num_tokens)])


def add_tensors(writer: gguf.GGUFWriter) -> None:
    writer.add_tensor("token_embd.weight", np.ones((40, 64), dtype=np.float16))
    for layer in range(2):
        values = np.full((96, 64), layer, dtype=np.float32)
        packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
        quant = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(f"blk.{layer}.ffn_up.weight", packed, raw_dtype=quant)
        writer.add_tensor(f"blk.{layer}.attn_norm.weight", np.ones(65, dtype=np.float32))
