"""Headers made in memory, for tests of formulas."""

from collections.abc import Mapping

from innkeeper.formats.ggml_types import TYPES_BY_NAME
from innkeeper.formats.gguf_header import GgufHeader, TensorInfo, Value

LLAMA: dict[str, Value] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.embedding_length": 256,
    "llama.feed_forward_length": 512,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
    "llama.context_length": 4096,
    "llama.vocab_size": 1000,
}
TENSORS: dict[str, tuple[str, tuple[int, ...]]] = {
    "token_embd.weight": ("q4_k", (256, 1000)),
    "output.weight": ("q6_k", (256, 1000)),
    "output_norm.weight": ("f32", (256,)),
    "blk.0.attn_q.weight": ("q4_k", (256, 256)),
    "blk.0.ffn_up_exps.weight": ("q4_k", (256, 512, 4)),
    "blk.0.attn_k_b.weight": ("q4_k", (256, 512, 4)),
    "blk.1.attn_v.weight": ("q8_0", (256, 64)),
    "blk.1.odd.weight": ("q4_k", (256, 7)),
}


def tensor(name: str, type_name: str, shape: tuple[int, ...]) -> TensorInfo:
    kind = TYPES_BY_NAME[type_name]
    num_weights = 1
    for size in shape:
        num_weights *= size
    return TensorInfo(name, shape, kind, 0, kind.row_bytes(num_weights))


def header(
    metadata: Mapping[str, Value] = LLAMA,
    tensors: Mapping[str, tuple[str, tuple[int, ...]]] = TENSORS,
) -> GgufHeader:
    """A header of ``metadata`` and ``tensors`` (name -> type and shape)."""
    infos = tuple(tensor(name, *rest) for name, rest in tensors.items())
    size = sum(info.num_bytes for info in infos)
    return GgufHeader(3, size + 4096, 4000, 32, 4096, dict(metadata), infos)


def renamed(architecture: str, **more: Value) -> dict[str, Value]:
    """The sizes of ``LLAMA`` under another architecture, with ``more`` (``__`` for a dot)."""
    found: dict[str, Value] = {"general.architecture": architecture}
    for key, value in LLAMA.items():
        if key.startswith("llama."):
            found[architecture + key.removeprefix("llama")] = value
    found.update({f"{architecture}.{key.replace('__', '.')}": v for key, v in more.items()})
    return found
