"""GGUF files of real models' shapes: true headers, and holes in place of weights."""

import functools
import struct
from pathlib import Path

from innkeeper.formats.ggml_types import TYPES_BY_NAME

_TEXT, _ARRAY, _U32, _F32 = 8, 9, 4, 6

BULK = {
    "Q2_K": "q2_k",
    "Q3_K_S": "q3_k",
    "Q3_K_M": "q3_k",
    "Q3_K_L": "q3_k",
    "Q4_0": "q4_0",
    "Q4_1": "q4_1",
    "Q4_K_S": "q4_k",
    "Q4_K_M": "q4_k",
    "Q5_0": "q5_0",
    "Q5_1": "q5_1",
    "Q5_K_S": "q5_k",
    "Q5_K_M": "q5_k",
    "Q6_K": "q6_k",
    "Q8_0": "q8_0",
    "IQ2_XXS": "iq2_xxs",
    "IQ3_XXS": "iq3_xxs",
    "IQ3_S": "iq3_s",
    "IQ4_XS": "iq4_xs",
    "IQ4_NL": "iq4_nl",
    "F16": "f16",
}
"""Twenty quantizations and the type of most of their weights."""


def write_llama(
    path: Path,
    quant: str = "Q4_K_M",
    *,
    num_layers: int = 32,
    width: int = 4096,
    ffn_width: int = 14336,
    num_heads: int = 32,
    num_kv_heads: int = 8,
    num_tokens: int = 32_000,
    num_ctx_train: int = 8192,
    num_experts: int = 0,
    token_bytes: int = 8,
) -> Path:
    """A llama of that shape. The file has its full size, but takes no space on disk.

    ``token_bytes``: length of each token, which decides how large the header is.
    """
    bulk = BULK[quant]
    better = "q6_k" if quant.endswith(("_M", "_L")) else bulk
    kv_width = width // num_heads * num_kv_heads
    tensors: list[tuple[str, str, tuple[int, ...]]] = [
        ("token_embd.weight", bulk, (width, num_tokens)),
        ("output.weight", better, (width, num_tokens)),
        ("output_norm.weight", "f32", (width,)),
    ]
    for layer in range(num_layers):
        block = f"blk.{layer}."
        down = better if layer % 2 else bulk
        tensors += [
            (block + "attn_norm.weight", "f32", (width,)),
            (block + "ffn_norm.weight", "f32", (width,)),
            (block + "attn_q.weight", bulk, (width, width)),
            (block + "attn_k.weight", bulk, (width, kv_width)),
            (block + "attn_v.weight", down, (width, kv_width)),
            (block + "attn_output.weight", bulk, (width, width)),
        ]
        if num_experts:
            tensors += [
                (block + "ffn_gate_inp.weight", "f32", (width, num_experts)),
                (block + "ffn_gate_exps.weight", bulk, (width, ffn_width, num_experts)),
                (block + "ffn_up_exps.weight", bulk, (width, ffn_width, num_experts)),
                (block + "ffn_down_exps.weight", down, (ffn_width, width, num_experts)),
            ]
        else:
            tensors += [
                (block + "ffn_gate.weight", bulk, (width, ffn_width)),
                (block + "ffn_up.weight", bulk, (width, ffn_width)),
                (block + "ffn_down.weight", down, (ffn_width, width)),
            ]
    numbers = {
        "block_count": num_layers,
        "embedding_length": width,
        "feed_forward_length": ffn_width,
        "attention.head_count": num_heads,
        "attention.head_count_kv": num_kv_heads,
        "context_length": num_ctx_train,
        "vocab_size": num_tokens,
        "rope.dimension_count": width // num_heads,
    }
    if num_experts:
        numbers |= {"expert_count": num_experts, "expert_used_count": 2}
    tokens = _tokens(num_tokens, token_bytes)
    pairs = [_pair("general.architecture", _TEXT, _text("llama"))]
    pairs += [_pair(f"llama.{key}", _U32, struct.pack("<I", n)) for key, n in numbers.items()]
    pairs += [
        _pair("llama.attention.layer_norm_rms_epsilon", _F32, struct.pack("<f", 1e-5)),
        _pair("tokenizer.ggml.model", _TEXT, _text("gpt2")),
        _pair("tokenizer.ggml.tokens", _ARRAY, struct.pack("<IQ", _TEXT, num_tokens) + tokens),
    ]
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs)) + b"".join(pairs)
    infos, offset = b"", 0
    for name, kind_name, shape in tensors:
        kind = TYPES_BY_NAME[kind_name]
        num_weights = 1
        for size in shape:
            num_weights *= size
        infos += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        infos += struct.pack("<IQ", kind.id, offset)
        offset += -(-kind.row_bytes(num_weights) // 32) * 32
    head += infos
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(-(-len(head) // 32) * 32 + offset)
    return path


@functools.cache
def _tokens(num_tokens: int, token_bytes: int) -> bytes:
    return b"".join(_text(f"{i:0{token_bytes}d}") for i in range(num_tokens))


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _pair(key: str, kind: int, value: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + value
