from dataclasses import replace
from typing import Any

import pytest

from innkeeper.errors import UnsupportedModelError
from innkeeper.formats.safetensors import DTYPE_BITS, SafeTensor, SafetensorsHeader
from innkeeper.planner.torch_estimate import TorchSettings, estimate_torch

CONFIG: dict[str, Any] = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128_256,
}
SETTINGS = TorchSettings(num_ctx=8192)


def weights(dtype: str = "BF16", rows: int = 4096, columns: int = 4096) -> SafetensorsHeader:
    names = ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight")
    size = rows * columns * DTYPE_BITS[dtype] // 8
    tensors = tuple(SafeTensor(name, dtype, (rows, columns), size) for name in names)
    return SafetensorsHeader(0, {}, tensors)


def test_cache_is_two_rows_per_token_and_layer() -> None:
    found = estimate_torch(weights(), CONFIG, SETTINGS)
    assert found.kv_bytes == 2 * 32 * 8192 * 2 * 8 * 128
    assert not found.is_exact


def test_full_precision_is_loaded_at_half() -> None:
    assert estimate_torch(weights("F32"), CONFIG, SETTINGS).weights_bytes == 2 * 2 * 4096 * 4096


def test_loading_in_four_bits_shrinks_linear_layers_only() -> None:
    found = estimate_torch(weights(), CONFIG, replace(SETTINGS, load_bits=4))
    assert found.weights_bytes == 4096 * 4096 * 2 + 4096 * 4096 * 9 // 16


def test_packed_weights_stay_as_they_are() -> None:
    found = estimate_torch(weights("I32", 512), CONFIG, replace(SETTINGS, load_bits=4))
    assert found.weights_bytes == 2 * 512 * 4096 * 4


def test_windowed_layers_keep_their_window() -> None:
    config = {**CONFIG, "sliding_window": 1024}
    config["layer_types"] = ["sliding_attention"] * 24 + ["full_attention"] * 8
    found = estimate_torch(weights(), config, SETTINGS)
    assert found.kv_bytes == 2 * (24 * 1024 + 8 * 8192) * 2 * 8 * 128


def test_linear_layers_keep_no_tokens() -> None:
    config = {**CONFIG, "layer_types": ["linear_attention"] * 24 + ["full_attention"] * 8}
    assert estimate_torch(weights(), config, SETTINGS).kv_bytes == 2 * 8 * 8192 * 2 * 8 * 128


def test_config_without_sizes_is_no_text_model() -> None:
    with pytest.raises(UnsupportedModelError, match="num_hidden_layers"):
        estimate_torch(weights(), {"hidden_size": 5}, SETTINGS)
