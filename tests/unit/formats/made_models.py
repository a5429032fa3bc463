"""Makes model files that have real headers and holes in place of weights."""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from innkeeper.formats.ggml_types import TYPES_BY_NAME
from innkeeper.formats.safetensors import DTYPE_BITS

Tensors = Mapping[str, tuple[str, Sequence[int]]]
"""Name -> (type, shape)."""


def gguf(
    path: Path,
    quant: str = "q4_k",
    *,
    architecture: str = "llama",
    tensors: Tensors | None = None,
    **metadata: Any,
) -> Path:
    """A GGUF with two matrices of ``quant``. Keys of ``metadata``: ``__`` for a dot; those that
    begin with ``h_`` are the architecture's own."""
    values: dict[str, Any] = {
        "general.architecture": architecture,
        f"{architecture}.context_length": 4096,
        f"{architecture}.block_count": 2,
        "tokenizer.ggml.model": "llama",
    }
    for key, value in metadata.items():
        dotted = key.replace("__", ".")
        values[f"{architecture}.{dotted[2:]}" if key.startswith("h_") else dotted] = value
    found = tensors or {
        "token_embd.weight": ("f16" if quant != "f32" else "f32", (256, 64)),
        "blk.0.ffn_up.weight": (quant, (4096, 256)),
        "blk.1.ffn_up.weight": (quant, (4096, 256)),
        "blk.0.attn_norm.weight": ("f32", (256,)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_gguf(path, {k: v for k, v in values.items() if v is not None}, found)
    return path


def _write_gguf(path: Path, metadata: Mapping[str, Any], tensors: Tensors) -> None:
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        head += _text(key) + _value(value)
    offset = 0
    for name, (type_name, shape) in tensors.items():
        kind = TYPES_BY_NAME[type_name]
        head += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", kind.id, offset)
        offset += -(-kind.row_bytes(math.prod(shape)) // 32) * 32
    with path.open("wb") as file:
        file.write(head)
        file.truncate(-(-len(head) // 32) * 32 + offset)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    return struct.pack("<II", 4, value)


def gguf_split(folder: Path, stem: str, count: int, **options: Any) -> list[Path]:
    """A split set of ``count`` files, one matrix in each."""
    names = [f"{stem}-{part + 1:05d}-of-{count:05d}.gguf" for part in range(count)]
    for part, name in enumerate(names):
        tensors = {f"blk.{part}.ffn_up.weight": ("q4_k", (4096, 256))}
        numbers = {"split__no": part, "split__count": count, "split__tensors__count": count}
        gguf(folder / name, tensors=tensors, **numbers, **options)
    return [folder / name for name in names]


def safetensors(path: Path, tensors: Tensors) -> Path:
    """A safetensors file; shapes as in PyTorch."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * DTYPE_BITS[dtype] // 8
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    raw = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + offset)
    return path


CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 8192,
}
PLAIN: Tensors = {
    "model.embed_tokens.weight": ("BF16", (1000, 256)),
    "model.layers.0.mlp.up_proj.weight": ("BF16", (512, 256)),
    "lm_head.weight": ("BF16", (1000, 256)),
}


def hf(folder: Path, tensors: Tensors = PLAIN, **config: Any) -> Path:
    """A folder as ``save_pretrained`` writes it; ``config`` changes config.json."""
    safetensors(folder / "model.safetensors", tensors)
    text(folder / "config.json", {**CONFIG, **config})
    text(folder / "tokenizer.json", {"version": "1.0"})
    return folder


def hf_sharded(folder: Path, count: int = 3) -> Path:
    """A sharded folder with an index."""
    hf(folder)
    (folder / "model.safetensors").unlink()
    places = {}
    for part in range(1, count + 1):
        name = f"model-{part:05d}-of-{count:05d}.safetensors"
        safetensors(folder / name, {f"model.layers.{part}.weight": ("BF16", (256, 256))})
        places[f"model.layers.{part}.weight"] = name
    text(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    return folder


def text(path: Path, content: str | bytes | Mapping[str, Any]) -> Path:
    """A text, bytes or JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        path.write_text(json.dumps(content), encoding="utf-8")
    return path
