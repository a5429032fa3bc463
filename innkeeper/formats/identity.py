"""What ``identify`` finds out about a model; its JSON form is stable."""

from typing import Any

import msgspec
from msgspec import Struct

LOADERS = ("llama_cpp", "torch")


class Identity(Struct, frozen=True, kw_only=True):
    """Everything that can be told from headers and names. None = not known or does not apply."""

    name: str
    path: str
    format: str
    """``gguf``, ``safetensors``, ``pickle``, ``ggml``, ``lora``, ``vision``, ``onnx``, ..."""
    loader: str | None = None
    """``llama_cpp`` or ``torch``; None if nothing here can run it."""
    architecture: str | None = None
    num_params: int | None = None
    quant: str | None = None
    """``Q4_K_M``, ``IQ3_XXS``, ``BF16``, ``GPTQ 4-bit``: what it is in fact."""
    quant_method: str | None = None
    """``gguf``, ``none``, ``gptq``, ``awq``, ``bitsandbytes``, ``fp8``, ``exl2``, ..."""
    bits_per_weight: float | None = None
    """All bytes of tensors, scales included, per parameter."""
    claimed_quant: str | None = None
    """What the name says."""
    size_bytes: int = 0
    files: tuple[str, ...] = ()
    missing_files: tuple[str, ...] = ()
    num_layers: int | None = None
    num_experts: int | None = None
    num_ctx_train: int | None = None
    rope_scaling: str | None = None
    """Such as ``yarn x4 from 32,768``."""
    sliding_window: int | None = None
    chat_format: str | None = None
    chat_format_source: str | None = None
    """``template`` (certain) or ``name`` (a guess)."""
    licence: str | None = None
    is_safe: bool = True
    """False: loading it could run a program that is hidden in it."""
    warnings: tuple[str, ...] = ()
    advice: str | None = None
    """What to do next, if it cannot be used as it is."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, every field always there."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found
