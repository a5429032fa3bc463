"""The header that another quantization of a known model would have, from its file's size alone.

A repository's listing names twenty files and their sizes; one of their headers, read, stands for
all of them until a person looks at one.
"""

from dataclasses import replace

from innkeeper.formats.ggml_types import TYPES_BY_NAME, GgmlType
from innkeeper.formats.gguf_header import GgufHeader, TensorInfo
from innkeeper.formats.quant_names import base_type, dominant_type


def requantized(header: GgufHeader, quant: str | None, file_bytes: int) -> GgufHeader:
    """``header`` as that of a file of ``file_bytes`` named ``quant`` (``Q5_K_M``; None = unknown).

    The matrices that make the bulk get the type of that name; all sizes are then scaled so that
    their sum is the file's. Estimates from it are approximate: mixes differ in detail.
    """
    bulk = dominant_type(header.tensors)
    target = TYPES_BY_NAME.get(base_type(quant or "").lower())
    tensors = [_retyped(tensor, bulk, target) for tensor in header.tensors]
    quantized = sum(t.num_bytes for t in tensors if len(t.shape) > 1)
    plain = sum(t.num_bytes for t in tensors) - quantized
    wanted = max(0, file_bytes - header.data_start - plain)
    scale = wanted / max(1, quantized)
    return replace(
        header,
        file_bytes=file_bytes,
        metadata={k: v for k, v in header.metadata.items() if k != "general.file_type"},
        tensors=tuple(
            t._replace(num_bytes=round(t.num_bytes * scale)) if len(t.shape) > 1 else t
            for t in tensors
        ),
    )


def _retyped(tensor: TensorInfo, bulk: str, target: GgmlType | None) -> TensorInfo:
    if target is None or len(tensor.shape) < 2 or tensor.type.name != bulk:
        return tensor
    if tensor.shape[0] % target.block_size:
        return tensor
    return tensor._replace(type=target, num_bytes=target.row_bytes(tensor.num_weights))
