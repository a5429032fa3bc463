"""Reads the JSON files beside safetensors: ``config.json`` and its relatives."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from innkeeper.errors import CorruptModelError
from innkeeper.formats.safetensors import SafeTensor
from innkeeper.formats.source import Source
from innkeeper.units import MIB

MAX_JSON_BYTES = 32 * MIB
_LICENCE = re.compile(r"^license:\s*[\"']?([\w.+-]+)", re.MULTILINE)
_CONTEXT_KEYS = (
    *("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"),
    *("max_seq_len", "n_ctx"),
)
_SCALE_SUFFIXES = (
    *(".scales", ".qzeros", ".g_idx", ".absmax", ".quant_map", ".SCB", ".weight_format"),
    *("_scale", "_scale_inv", "_scales", ".weight_shape", "_zero_point", ".biases"),
    *(".nested_absmax", ".nested_quant_map", ".suh", ".svh"),
)
"""Endings of tensors that quantization adds: bytes, but no parameters."""


class HfQuant(NamedTuple):
    """How a safetensors model is quantized."""

    method: str
    """``none`` for plain weights."""
    label: str
    bits: float | None


def read_json(source: Source, name: str) -> dict[str, Any] | None:
    """The object in ``name``, None without such a file.

    Raises: CorruptModelError if it is no JSON object, or larger than 32 MiB.
    """
    if name not in source.files:
        return None
    if source.files[name] > MAX_JSON_BYTES:
        raise CorruptModelError(f"{name} has {source.files[name]:,} bytes, too many for settings")
    try:
        found = json.loads(source.read(name, MAX_JSON_BYTES))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CorruptModelError(f"{name} is not the JSON it should be", hint="download it again")
    return found


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part about text, of models that also see or hear."""
    for key in ("text_config", "llm_config", "language_config"):
        inner = config.get(key)
        if isinstance(inner, dict):
            return {**config, **inner}
    return config


def whole(config: Mapping[str, Any], *keys: str) -> int | None:
    """The first of ``keys`` that is a positive whole number."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 40:
            return value
    return None


def context_length(config: Mapping[str, Any]) -> tuple[int | None, str | None]:
    """(tokens it was made for, how they were stretched)."""
    longest = whole(config, *_CONTEXT_KEYS)
    scaling = config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(scaling, dict):
        return longest, None
    kind = scaling.get("rope_type", scaling.get("type"))
    factor = scaling.get("factor")
    if kind in (None, "default", "mrope") or not isinstance(kind, str):
        return longest, None
    original = whole(scaling, "original_max_position_embeddings")
    original = original or whole(config, "original_max_position_embeddings")
    words = kind
    if isinstance(factor, int | float) and 1 < factor < 10_000:
        words += f" x{factor:g}"
        if kind == "yarn" and original and longest:
            longest = max(longest, round(original * factor))
    return longest, words + (f" from {original:,}" if original else "")


def sliding_window(config: Mapping[str, Any]) -> int | None:
    """The window that all or some layers see, None if every layer sees everything."""
    if config.get("use_sliding_window") is False:
        return None
    return whole(config, "sliding_window")


def quant_of(
    config: Mapping[str, Any], quantize: Mapping[str, Any] | None, tensors: Sequence[SafeTensor]
) -> HfQuant:
    """From ``quantization_config``, an older ``quantize_config.json`` (GPTQ, AWQ), or the types."""
    found = config.get("quantization_config")
    if isinstance(found, dict):
        return _named_quant(found)
    mlx = config.get("quantization")
    if isinstance(mlx, dict) and whole(mlx, "bits"):
        return HfQuant("mlx", f"MLX {mlx['bits']}-bit", float(mlx["bits"]))
    if quantize is not None:
        is_awq = "w_bit" in quantize or quantize.get("quant_method") == "awq"
        bits = whole(quantize, "bits", "w_bit")
        method = "awq" if is_awq else "gptq"
        return HfQuant(method, _label(method, bits), float(bits) if bits else None)
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.num_bytes
    dtype = max(sizes, key=lambda name: sizes[name], default="BF16")
    if dtype.startswith("F8"):
        return HfQuant("fp8", "FP8", 8.0)
    return HfQuant("none", dtype, None)


def _named_quant(found: Mapping[str, Any]) -> HfQuant:
    method = str(found.get("quant_method") or "bitsandbytes").lower()
    bits = found.get("bits") or found.get("w_bit")
    if method in ("bitsandbytes", "bnb"):
        method, bits = "bitsandbytes", 8 if found.get("load_in_8bit") else 4
    elif method in ("fp8", "fbgemm_fp8"):
        return HfQuant("fp8", "FP8", 8.0)
    elif method == "mxfp4":
        return HfQuant("mxfp4", "MXFP4", 4.0)
    elif method in ("compressed-tensors", "compressed_tensors"):
        return _compressed(found)
    number = float(bits) if isinstance(bits, int | float) and 0 < bits <= 32 else None
    return HfQuant(method, _label(method, number), number)


def _compressed(found: Mapping[str, Any]) -> HfQuant:
    groups = found.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        if isinstance(weights, dict) and (bits := whole(weights, "num_bits")):
            kind = "FP" if weights.get("type") == "float" else "INT"
            label = f"compressed-tensors {kind}{bits}"
            return HfQuant("compressed-tensors", label, float(bits))
    return HfQuant("compressed-tensors", "compressed-tensors", None)


def _label(method: str, bits: float | None) -> str:
    name = {"bitsandbytes": "bitsandbytes"}.get(method, method.upper())
    if bits is None:
        return name
    return f"{name} {bits:g}{'bpw' if method.startswith('exl') else '-bit'}"


def count_params(tensors: Sequence[SafeTensor], quant: HfQuant) -> int | None:
    """Parameters behind the stored numbers; None where packing hides them (EXL2, EXL3)."""
    if quant.method.startswith("exl"):
        return None
    total = 0
    for tensor in tensors:
        if tensor.name.endswith(_SCALE_SUFFIXES) or ".quant_state." in tensor.name:
            continue
        total += round(tensor.num_items * _packing(tensor, quant))
    return total


def _packing(tensor: SafeTensor, quant: HfQuant) -> float:
    """Parameters per stored number."""
    if quant.method == "none" or quant.bits is None:
        return 1.0
    if tensor.dtype in ("I32", "U32"):
        return 32 / quant.bits
    if tensor.dtype == "U8" and quant.bits == 4:
        return 2.0
    return 1.0


def params_from_sizes(config: Mapping[str, Any]) -> int | None:
    """Parameters of a Llama-like model from its sizes, None if they are not all there."""
    width, layers = whole(config, "hidden_size"), whole(config, "num_hidden_layers")
    ffn, vocab = whole(config, "intermediate_size"), whole(config, "vocab_size")
    heads = whole(config, "num_attention_heads")
    if not (width and layers and ffn and vocab and heads):
        return None
    head = whole(config, "head_dim") or width // heads
    key_heads = whole(config, "num_key_value_heads") or heads
    attention = 2 * width * heads * head + 2 * width * key_heads * head
    experts = whole(config, "num_local_experts", "num_experts") or 1
    per_layer = attention + experts * 3 * width * ffn + 2 * width
    embeddings = vocab * width * (1 if config.get("tie_word_embeddings") else 2)
    return layers * per_layer + embeddings + width


def licence(source: Source) -> str | None:
    """From the README's first lines, as the hub reads it."""
    if "README.md" not in source.files:
        return None
    text = source.read("README.md", 64 * 1024).decode("utf-8", "replace")
    if not text.startswith("---"):
        return None
    match = _LICENCE.search(text.split("\n---", 1)[0])
    return match[1] if match else None
