"""How much memory a safetensors model needs under PyTorch.

Weights and cache follow from the headers; activations and the framework's own memory are rules of
thumb that no measurement here backs yet, so every answer calls itself approximate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from innkeeper.errors import UnsupportedModelError
from innkeeper.formats.hf_config import sliding_window, whole
from innkeeper.formats.safetensors import SafeTensor, SafetensorsHeader
from innkeeper.units import MIB

FRAMEWORK_BYTES = 900 * MIB
"""CUDA context, kernels, cuBLAS workspace and allocator slack of one process."""
_ELEMENT_BYTES = 2
"""bfloat16 or float16: what weights and cache are computed in."""
_FLOATS = frozenset({"F32", "F64", "F16", "BF16"})
_NF4_BYTES = 0.5 + 4 / 64
"""bitsandbytes NF4: half a byte, and one float32 scale for each 64 weights."""
_KEPT = ("embed_tokens", "lm_head", "wte", "norm")
"""Parts of names of tensors that quantizing while loading leaves alone."""


@dataclass(frozen=True, kw_only=True)
class TorchSettings:
    """How the model would be run."""

    num_ctx: int
    max_sequences: int = 1
    load_bits: int | None = None
    """Quantize plain weights while loading: 4, 8, or not."""
    max_slice: int = 1024
    """Tokens of a prompt that are read at once."""


@dataclass(frozen=True)
class TorchEstimate:
    """Bytes on the device that holds the model."""

    weights_bytes: int
    kv_bytes: int
    activation_bytes: int
    process_bytes: int
    is_exact: bool = False

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.activation_bytes + self.process_bytes


def estimate_torch(
    weights: SafetensorsHeader, config: Mapping[str, Any], settings: TorchSettings
) -> TorchEstimate:
    """Memory of a model with these tensors and this ``config.json`` (its text part).

    Raises: UnsupportedModelError if the config lacks the sizes.
    """
    width, layers = _need(config, "hidden_size"), _need(config, "num_hidden_layers")
    ffn = whole(config, "intermediate_size", "moe_intermediate_size") or 4 * width
    vocab = whole(config, "vocab_size") or 0
    rows = min(settings.max_slice, settings.num_ctx)
    return TorchEstimate(
        weights_bytes=sum(_weight_bytes(tensor, settings.load_bits) for tensor in weights.tensors),
        kv_bytes=_kv_bytes(config, layers, settings),
        activation_bytes=_ELEMENT_BYTES * rows * (6 * width + 3 * ffn)
        + (_ELEMENT_BYTES + 4) * vocab * settings.max_sequences,
        process_bytes=FRAMEWORK_BYTES,
    )


def _weight_bytes(tensor: SafeTensor, load_bits: int | None) -> int:
    """Plain floats are cast to two bytes, or quantized while loading; packed ones stay."""
    if tensor.dtype not in _FLOATS:
        return tensor.num_bytes
    is_linear = len(tensor.shape) == 2 and not any(part in tensor.name for part in _KEPT)
    if is_linear and load_bits == 4:
        return round(tensor.num_items * _NF4_BYTES)
    if is_linear and load_bits == 8:
        return tensor.num_items + 4 * tensor.shape[0]
    return tensor.num_items * _ELEMENT_BYTES


def _kv_bytes(config: Mapping[str, Any], layers: int, settings: TorchSettings) -> int:
    """transformers' cache: keys and values of every layer, those with a window cut to it."""
    heads = _need(config, "num_attention_heads")
    key_heads = whole(config, "num_key_value_heads") or heads
    head = whole(config, "head_dim") or _need(config, "hidden_size") // heads
    per_token = 2 * key_heads * head
    if rope := whole(config, "qk_rope_head_dim"):  # DeepSeek: decompressed in transformers
        nope, value = whole(config, "qk_nope_head_dim") or 0, whole(config, "v_head_dim") or head
        per_token = heads * (nope + rope + value)
    window = sliding_window(config) or settings.num_ctx
    tokens = 0
    for kind in _layer_kinds(config, layers):
        tokens += min(settings.num_ctx, window) if kind == "sliding_attention" else settings.num_ctx
        if kind == "linear_attention":
            tokens -= settings.num_ctx
    return _ELEMENT_BYTES * per_token * tokens * settings.max_sequences


def _layer_kinds(config: Mapping[str, Any], layers: int) -> list[str]:
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == layers:
        return [str(kind) for kind in kinds]
    everywhere = sliding_window(config) is not None and "max_window_layers" not in config
    return ["sliding_attention" if everywhere else "full_attention"] * layers


def _need(config: Mapping[str, Any], name: str) -> int:
    value = whole(config, name)
    if value is None:
        raise UnsupportedModelError(f"config.json lacks {name}: it is no text model")
    return value
