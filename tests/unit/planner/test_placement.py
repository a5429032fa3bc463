"""Which device a layer lies on, and what the user's own wishes make of it."""

from collections import Counter
from dataclasses import replace

import pytest

from innkeeper.core import RopeScaling
from innkeeper.errors import InvalidRequestError
from innkeeper.formats.gguf_header import GgufHeader, Value
from innkeeper.planner.estimate import ContextSettings, estimate
from innkeeper.planner.gpus import Gpu
from innkeeper.planner.hardware import X86_REPACK_TYPES, Hardware
from innkeeper.planner.placement import Placement
from innkeeper.planner.plan import RESERVE_GPU_BYTES, plan
from innkeeper.planner.wishes import Wishes
from tests.unit.planner.headers import header, renamed
from tests.unit.planner.test_plan import GIB, MACHINE, seven_b, with_gpu

EXPERT_BYTES = 4096 * 14336 * 8 // 256 * 144
"""Of one projection of one layer in Q4_K."""


def mixtral(**more: Value) -> GgufHeader:
    """Sizes of a Mixtral 8x7B in Q4_K."""
    sizes = renamed(
        "llama",
        block_count=32,
        embedding_length=4096,
        feed_forward_length=14336,
        attention__head_count=32,
        attention__head_count_kv=8,
        context_length=32_768,
        vocab_size=32_000,
        expert_count=8,
        expert_used_count=2,
        **more,
    )
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {
        "token_embd.weight": ("q4_k", (4096, 32_000)),
        "output.weight": ("q6_k", (4096, 32_000)),
    }
    for layer in range(32):
        tensors[f"blk.{layer}.attn_q.weight"] = ("q4_k", (4096, 10240))
        for part in ("gate", "up", "down"):
            tensors[f"blk.{layer}.ffn_{part}_exps.weight"] = ("q4_k", (4096, 14336, 8))
    return header(sizes, tensors)


def with_gpus(*free_gib: float) -> Hardware:
    gpus = tuple(
        Gpu(index, f"GPU {index}", 80 * GIB, int(size * GIB)) for index, size in enumerate(free_gib)
    )
    return replace(MACHINE, gpus=gpus)


def test_layers_go_to_gpus_by_their_shares() -> None:
    found = Placement(31, -1, shares=(3.0, 1.0))
    assert Counter(found.layer(index) for index in range(32)) == {0: 24, 1: 8}
    assert found.layer(31) == 1  # the output comes last


def test_partial_offload_divides_only_what_is_offloaded() -> None:
    found = Placement(31, 8, shares=(1.0, 1.0))
    assert [found.layer(index) for index in (0, 23, 24, 27, 28, 31)] == [None, None, 0, 0, 1, 1]


def test_a_gpu_without_a_share_gets_nothing() -> None:
    found = Placement(31, -1, shares=(0.0, 1.0))
    assert {found.layer(index) for index in range(32)} == {1}


def test_every_byte_of_the_weights_lies_on_exactly_one_device() -> None:
    model = mixtral()
    for layers in (0, 1, 10, -1):
        for experts in (0, 5, 32):
            settings = ContextSettings(
                num_pool=4096,
                num_gpu_layers=layers,
                num_cpu_experts=experts,
                gpu_shares=(2.0, 1.0),
                mmap=False,
            )
            found = estimate(model, settings)
            on_gpus = sum(gpu.weights_bytes for gpu in found.gpus)
            assert found.unmapped_bytes + on_gpus == found.weights_bytes
            context = sum(gpu.context_bytes for gpu in found.gpus) + found.kv_bytes
            assert context == 32 * 4096 * 2 * 8 * 128 * 2


def test_experts_stay_in_ram_as_asked() -> None:
    settings = ContextSettings(num_pool=4096, num_gpu_layers=-1)
    whole = estimate(mixtral(), settings)
    without = estimate(mixtral(), replace(settings, num_cpu_experts=5))
    moved = whole.gpus[0].weights_bytes - without.gpus[0].weights_bytes
    assert moved == 5 * 3 * EXPERT_BYTES
    assert without.resident_bytes - without.total_bytes >= moved


def test_a_gpu_too_small_for_all_experts_keeps_everything_else() -> None:
    found = plan(mixtral(), with_gpu(12 * GIB), Wishes())
    assert found.fits
    assert found.num_gpu_layers == -1
    assert 0 < found.num_cpu_experts < 32
    assert found.estimate.gpus[0].total_bytes <= 12 * GIB - RESERVE_GPU_BYTES
    assert any("experts of" in note and "RAM" in note for note in found.notes)
    one_less = plan(mixtral(), with_gpu(12 * GIB), Wishes(num_cpu_experts=0))
    assert one_less.num_gpu_layers != -1
    assert found.tokens_per_second > one_less.tokens_per_second


def test_dense_models_have_no_experts_to_move() -> None:
    assert plan(seven_b(), with_gpu(3 * GIB), Wishes()).num_cpu_experts == 0


def test_each_gpu_must_hold_its_own_part() -> None:
    found = plan(seven_b(), with_gpus(4, 3), Wishes(num_ctx=8192))
    assert found.fits
    assert found.num_gpu_layers == -1
    assert len(found.tensor_split) == 2
    for gpu, free in zip(found.estimate.gpus, (4, 3), strict=True):
        assert 0 < gpu.total_bytes <= free * GIB - RESERVE_GPU_BYTES
    lopsided = plan(
        seven_b(), with_gpus(4, 3), Wishes(num_ctx=8192, num_gpu_layers=-1, tensor_split=(1.0, 9.0))
    )
    assert not lopsided.fits
    assert "GPU 1" in lopsided.error().message


def test_more_shares_than_gpus_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"3 parts, and llama\.cpp can use 2 GPUs"):
        plan(seven_b(), with_gpus(4, 3), Wishes(tensor_split=(1.0, 1.0, 1.0)))
    with pytest.raises(InvalidRequestError, match="no GPU here"):
        plan(seven_b(), MACHINE, Wishes(tensor_split=(1.0,)))


def test_unmapped_weights_are_anonymous_memory() -> None:
    settings = ContextSettings(num_pool=4096, repack_types=X86_REPACK_TYPES)
    mapped = estimate(seven_b(), settings)
    read = estimate(seven_b(), replace(settings, mmap=False))
    assert read.mapped_bytes == 0
    assert read.unmapped_bytes == read.weights_bytes - read.repack_bytes
    assert read.total_bytes == mapped.total_bytes + read.unmapped_bytes
    assert read.resident_bytes == read.total_bytes


def test_a_pinned_file_counts_whole() -> None:
    settings = ContextSettings(num_pool=4096, repack_types=X86_REPACK_TYPES)
    pinned = estimate(seven_b(), replace(settings, mlock=True))
    assert pinned.resident_bytes == pinned.total_bytes + pinned.mapped_bytes
    assert pinned.resident_bytes > estimate(seven_b(), settings).resident_bytes


@pytest.mark.parametrize(
    ("rope", "num_ctx"),
    [
        (None, 8192),
        (RopeScaling("none"), 4096),
        (RopeScaling("linear", 2.0), 8192),
        (RopeScaling("yarn", 4.0), 16_384),
    ],
)
def test_scaled_positions_change_how_far_the_context_goes(
    rope: RopeScaling | None, num_ctx: int
) -> None:
    model = seven_b(8192)  # scaled to twice its length by its own header
    scaled = {**model.metadata, "llama.rope.scaling.original_context_length": 4096}
    found = plan(replace(model, metadata=scaled), MACHINE, Wishes(rope=rope))
    assert found.num_ctx == num_ctx
