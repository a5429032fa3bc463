"""Cuts a model down to two of its layers, for measuring speed without loading all of it.

Widths and types stay, so every kernel and its memory traffic do; the vocabulary shrinks with the
number of layers, so the output keeps its share of the time. Weights are a hole in the file (zeros
take as long as any others), but for embeddings and routers: experts must not all be the same.
"""

import math
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from innkeeper.errors import UnsupportedModelError
from innkeeper.formats.ggml_types import TYPES_BY_NAME
from innkeeper.formats.gguf_header import GgufHeader, TensorInfo, Value
from innkeeper.planner.shape import ModelShape, read_shape
from innkeeper.planner.stub import write_stub

NUM_LAYERS = 2
_VOCAB_STEP = 64
_UINT32, _ARRAY = 4, 9
_ITEM_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_F16, _F32 = TYPES_BY_NAME["f16"], TYPES_BY_NAME["f32"]


def write_proxy(header: GgufHeader, path: Path) -> int:
    """Writes the proxy of ``header`` to ``path``; a second at most.

    Returns: how many times longer the whole model takes than the proxy.
    Raises: UnsupportedModelError if the model cannot be cut (recurrent, or of two layers already).
    """
    shape = read_shape(header)
    if shape.has_recurrent or shape.num_layers <= NUM_LAYERS or not shape.is_measured:
        raise UnsupportedModelError(
            f"a {shape.architecture} model of {shape.num_layers} layers cannot be measured in part",
            hint="it runs with the usual settings",
        )
    first = shape.num_layers // 2
    num_vocab = _proxy_vocab(shape)
    tensors = tuple(
        found for tensor in header.tensors if (found := _cut(tensor, first, shape, num_vocab))
    )
    proxy = GgufHeader(
        version=header.version,
        file_bytes=0,
        header_bytes=0,
        alignment=header.alignment,
        data_start=0,
        metadata={**header.metadata, **_new_sizes(header)},
        tensors=_with_cheap_embedding(tensors),
        raw_metadata=_raw(header, first),
    )
    write_stub(proxy, num_vocab, path)
    _fill(proxy, path)
    return max(1, round(shape.num_layers / NUM_LAYERS))


def _proxy_vocab(shape: ModelShape) -> int:
    wanted = shape.num_vocab * NUM_LAYERS / shape.num_layers
    return max(_VOCAB_STEP, round(wanted / _VOCAB_STEP) * _VOCAB_STEP)


def _cut(tensor: TensorInfo, first: int, shape: ModelShape, num_vocab: int) -> TensorInfo | None:
    """The tensor as it is in the proxy, None if it belongs to another layer."""
    prefix, _, rest = tensor.name.partition(".")
    name, dims = tensor.name, tensor.shape
    if prefix == "blk":
        number, _, part = rest.partition(".")
        layer = int(number) - first if number.isdecimal() else -1
        if not 0 <= layer < NUM_LAYERS:
            return None
        name = f"blk.{layer}.{part}"
    elif len(dims) == 2 and dims[1] == shape.num_vocab:
        dims = (dims[0], num_vocab)
    return TensorInfo(name, dims, tensor.type, 0, tensor.type.row_bytes(math.prod(dims)))


def _with_cheap_embedding(tensors: tuple[TensorInfo, ...]) -> tuple[TensorInfo, ...]:
    """Rows of the embedding are looked up, not multiplied: any type will do, unless it is tied."""
    if not any(tensor.name == "output.weight" for tensor in tensors):
        return tensors
    return tuple(
        tensor._replace(type=_F16, num_bytes=2 * math.prod(tensor.shape))
        if tensor.name == "token_embd.weight"
        else tensor
        for tensor in tensors
    )


def _new_sizes(header: GgufHeader) -> dict[str, Value]:
    return {f"{header.architecture}.block_count": NUM_LAYERS}


def _raw(header: GgufHeader, first: int) -> dict[str, bytes]:
    """The metadata of two layers: counts replaced, arrays with one item per layer cut."""
    raw = dict(header.raw_metadata)
    layers = header.integer(f"{header.architecture}.block_count") or 0
    raw[f"{header.architecture}.block_count"] = struct.pack("<II", _UINT32, NUM_LAYERS)
    for name in ("leading_dense_block_count", "nextn_predict_layers"):
        if f"{header.architecture}.{name}" in raw:
            raw[f"{header.architecture}.{name}"] = struct.pack("<II", _UINT32, 0)
    for key, value in header.metadata.items():
        if key in raw and isinstance(value, tuple) and len(value) == layers:
            raw[key] = _cut_array(raw[key], first)
    return raw


def _cut_array(raw: bytes, first: int) -> bytes:
    item_type = struct.unpack_from("<I", raw, 4)[0]
    size = _ITEM_BYTES.get(item_type)
    if size is None:
        return raw
    start = 16 + first * size
    head = struct.pack("<IIQ", _ARRAY, item_type, NUM_LAYERS)
    return head + raw[start : start + NUM_LAYERS * size]


def _fill(proxy: GgufHeader, path: Path) -> None:
    random = np.random.default_rng(0)
    data_bytes = sum(_padded(tensor.num_bytes, proxy.alignment) for tensor in proxy.tensors)
    with path.open("r+b") as file:
        position = file.seek(0, 2) - data_bytes
        for tensor in proxy.tensors:
            _fill_tensor(file, position, tensor, random)
            position += _padded(tensor.num_bytes, proxy.alignment)


def _fill_tensor(
    file: BinaryIO, position: int, tensor: TensorInfo, random: np.random.Generator
) -> None:
    if tensor.type == _F32 and len(tensor.shape) == 1:
        values = np.ones(tensor.shape, dtype=np.float32)
    elif tensor.type == _F32 and "ffn_gate_inp" in tensor.name:
        values = random.standard_normal(tensor.num_weights).astype(np.float32)
    elif tensor.type == _F16 and tensor.name == "token_embd.weight":
        some = random.standard_normal(min(tensor.num_weights, 1 << 20)).astype(np.float16)
        values = np.resize(some, tensor.num_weights)
    else:
        return
    file.seek(position)
    file.write(values.tobytes())


def _padded(size: int, step: int) -> int:
    return (size + step - 1) // step * step
