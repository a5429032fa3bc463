"""The formulas against llama.cpp's dry run, on a middle-sized shape of every common architecture.

The shapes are no real model's, so nothing here was used to fit the formulas.
"""

from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from innkeeper.formats import gguf
from innkeeper.planner.estimate import ContextSettings, estimate
from innkeeper.planner.hardware import probe
from innkeeper.planner.verify import dry_run
from tests.unit.formats.made_models import gguf as make_gguf

WIDTH, FFN, LAYERS, HEADS, KEY_HEADS, HEAD, VOCAB = 2048, 6144, 12, 16, 4, 128, 50048
KEYS = KEY_HEADS * HEAD
SIZES: dict[str, Any] = {
    "h_embedding_length": WIDTH,
    "h_feed_forward_length": FFN,
    "h_block_count": LAYERS,
    "h_attention__head_count": HEADS,
    "h_attention__head_count_kv": KEY_HEADS,
    "h_attention__layer_norm_rms_epsilon": 1e-6,
    "h_rope__dimension_count": HEAD,
    "h_vocab_size": VOCAB,
    "h_context_length": 32768,
    "tokenizer__ggml__model": "no_vocab",
}
OUTER = {
    "token_embd.weight": ("q4_k", (WIDTH, VOCAB)),
    "output_norm.weight": ("f32", (WIDTH,)),
    "output.weight": ("q6_k", (WIDTH, VOCAB)),
}
LAYER = {
    "attn_norm.weight": ("f32", (WIDTH,)),
    "attn_q.weight": ("q4_k", (WIDTH, HEADS * HEAD)),
    "attn_k.weight": ("q4_k", (WIDTH, KEYS)),
    "attn_v.weight": ("q4_k", (WIDTH, KEYS)),
    "attn_output.weight": ("q4_k", (HEADS * HEAD, WIDTH)),
    "ffn_norm.weight": ("f32", (WIDTH,)),
    "ffn_gate.weight": ("q4_k", (WIDTH, FFN)),
    "ffn_up.weight": ("q4_k", (WIDTH, FFN)),
    "ffn_down.weight": ("q4_k", (FFN, WIDTH)),
}
HEAD_NORMS = {"attn_q_norm.weight": HEAD, "attn_k_norm.weight": HEAD}
POST_NORMS = {"post_attention_norm.weight": WIDTH, "post_ffw_norm.weight": WIDTH}


@dataclass(frozen=True)
class Recipe:
    """How an architecture differs from the plain one."""

    vectors: dict[str, int] = field(default_factory=dict)
    """More vectors per layer (or outside, with ``output``): name -> length."""
    dropped: tuple[str, ...] = ()
    sizes: dict[str, Any] = field(default_factory=dict)
    fused_gate: bool = False


EPSILON = {"h_attention__layer_norm_epsilon": 1e-5}
PLAIN = ("llama", "mistral3", "smollm3", "exaone", "ernie4_5", "internlm2", "minicpm")
RECIPES: dict[str, Recipe] = {
    **{name: Recipe() for name in PLAIN},
    "qwen2": Recipe(
        vectors={"attn_q.bias": HEADS * HEAD, "attn_k.bias": KEYS, "attn_v.bias": KEYS}
    ),
    "qwen3": Recipe(vectors=HEAD_NORMS),
    "hunyuan-dense": Recipe(vectors=HEAD_NORMS),
    "gemma": Recipe(dropped=("output.weight",)),
    "gemma2": Recipe(
        vectors=POST_NORMS, dropped=("output.weight",), sizes={"h_attention__sliding_window": 1024}
    ),
    "gemma3": Recipe(
        vectors=POST_NORMS | HEAD_NORMS,
        dropped=("output.weight",),
        sizes={"h_attention__sliding_window": 512},
    ),
    "command-r": Recipe(dropped=("output.weight", "ffn_norm.weight"), sizes=EPSILON),
    "cohere2": Recipe(
        dropped=("output.weight", "ffn_norm.weight"),
        sizes={**EPSILON, "h_attention__sliding_window": 1024, "h_logit_scale": 0.5},
    ),
    "olmo2": Recipe(
        vectors=POST_NORMS | {"attn_q_norm.weight": HEADS * HEAD, "attn_k_norm.weight": KEYS},
        dropped=("attn_norm.weight", "ffn_norm.weight"),
    ),
    "exaone4": Recipe(
        vectors=POST_NORMS | HEAD_NORMS, dropped=("attn_norm.weight", "ffn_norm.weight")
    ),
    "glm4": Recipe(vectors=POST_NORMS, dropped=("ffn_gate.weight",), fused_gate=True),
    "granite": Recipe(sizes={"h_logit_scale": 0.5}),
    "seed_oss": Recipe(vectors={"post_attention_norm.weight": WIDTH}, dropped=("ffn_norm.weight",)),
    "stablelm": Recipe(vectors={"attn_norm.bias": WIDTH, "output_norm.bias": WIDTH}, sizes=EPSILON),
    "phi2": Recipe(
        vectors={
            "attn_norm.bias": WIDTH,
            "attn_output.bias": WIDTH,
            "ffn_up.bias": FFN,
            "ffn_down.bias": WIDTH,
            "output_norm.bias": WIDTH,
            "output.bias": VOCAB,
        },
        dropped=("ffn_norm.weight", "ffn_gate.weight"),
        sizes=EPSILON,
    ),
}
CONTEXTS = [
    ContextSettings(
        num_pool=num_pool,
        max_sequences=count,
        kv_unified=unified,
        max_ubatch=ubatch,
        num_outputs=count,
        flash_attention=flash,
        repack_types=probe().repack_types,
    )
    for num_pool, (count, unified), ubatch, flash in product(
        (3000, 16_384), ((1, True), (3, False)), (128, 512), (False, True)
    )
]


def make(architecture: str, folder: Path) -> Path:
    recipe = RECIPES[architecture]
    tensors = {name: entry for name, entry in OUTER.items() if name not in recipe.dropped}
    layer = {name: entry for name, entry in LAYER.items() if name not in recipe.dropped}
    if recipe.fused_gate:
        layer["ffn_up.weight"] = ("q4_k", (WIDTH, 2 * FFN))
    for name, length in recipe.vectors.items():
        target = tensors if name.startswith("output") else layer
        target[name] = ("f32", (length,))
    for number in range(LAYERS):
        tensors |= {f"blk.{number}.{name}": entry for name, entry in layer.items()}
    sizes = SIZES | recipe.sizes
    return make_gguf(folder / "m.gguf", architecture=architecture, tensors=tensors, **sizes)


@pytest.mark.parametrize("architecture", RECIPES)
def test_formulas_hold_for_the_architecture(architecture: str, tmp_path: Path) -> None:
    header = gguf.read(make(architecture, tmp_path))
    for settings, dry in zip(CONTEXTS, dry_run(header, CONTEXTS), strict=True):
        assert dry.error is None
        ours = estimate(header, settings)
        assert ours.is_exact
        for kind in ("kv_bytes", "recurrent_bytes", "output_bytes"):
            assert getattr(ours, kind) == pytest.approx(getattr(dry, kind), abs=11_000)
        compute = sum(dry.compute_bytes.values())
        assert ours.compute_bytes == pytest.approx(compute, rel=0.15)
