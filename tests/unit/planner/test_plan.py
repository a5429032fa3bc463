from dataclasses import replace

import pytest

from innkeeper.errors import NotEnoughMemoryError
from innkeeper.formats.gguf_header import GgufHeader, Value
from innkeeper.planner.candidates import AUTO_CTX
from innkeeper.planner.estimate import ContextSettings, MemoryEstimate, estimate
from innkeeper.planner.gpus import Gpu
from innkeeper.planner.hardware import Hardware
from innkeeper.planner.plan import RESERVE_GPU_BYTES, RESERVE_RAM_BYTES, plan
from innkeeper.planner.wishes import Wishes
from tests.unit.planner.headers import header, renamed

GIB = 1 << 30
MACHINE = Hardware(
    system="Linux",
    cpu_name="Test CPU",
    num_physical_cores=4,
    num_usable_cores=4,
    instruction_sets=frozenset({"avx2"}),
    total_ram_bytes=64 * GIB,
    available_ram_bytes=60 * GIB,
    limit_bytes=None,
    swap_free_bytes=0,
    memory_bandwidth=20e9,
)


def with_ram(available_bytes: int) -> Hardware:
    return replace(MACHINE, available_ram_bytes=available_bytes)


def with_gpu(free_bytes: int) -> Hardware:
    gpu = Gpu(0, "Test GPU", 24 * GIB, free_bytes, bandwidth=1000e9)
    return replace(MACHINE, gpus=(gpu,))


def seven_b(num_ctx_train: int = 131_072) -> GgufHeader:
    """Sizes of a Llama 3 8B in Q4_K: 32 layers of about 115 MiB."""
    sizes: dict[str, Value] = renamed(
        "llama",
        block_count=32,
        embedding_length=4096,
        feed_forward_length=14336,
        attention__head_count=32,
        attention__head_count_kv=8,
        context_length=num_ctx_train,
        vocab_size=128_256,
    )
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {
        "token_embd.weight": ("q4_k", (4096, 128_256)),
        "output.weight": ("q6_k", (4096, 128_256)),
    }
    for layer in range(32):
        tensors[f"blk.{layer}.attn.weight"] = ("q4_k", (4096, 10240))
        tensors[f"blk.{layer}.ffn.weight"] = ("q4_k", (4096, 3 * 14336))
    return header(sizes, tensors)


def test_ample_memory_gives_the_longest_automatic_context() -> None:
    found = plan(seven_b(), MACHINE, Wishes())
    assert found.fits
    assert found.num_ctx == AUTO_CTX
    assert (found.kv_type_k, found.kv_type_v) == ("f16", "f16")
    assert found.num_gpu_layers == 0
    assert not found.flash_attention


def test_context_never_exceeds_what_was_trained() -> None:
    assert plan(seven_b(8192), MACHINE, Wishes()).num_ctx == 8192


def test_asked_for_context_is_kept_and_warned_about() -> None:
    found = plan(seven_b(8192), MACHINE, Wishes(num_ctx=10_000))
    assert found.num_ctx == 10_000
    assert any("longer than the 8,192" in reason for reason in found.reasons)


@pytest.mark.parametrize("available", [8, 9, 10, 12, 16, 24])
def test_what_fits_stays_within_the_memory(available: int) -> None:
    found = plan(seven_b(), with_ram(available * GIB), Wishes())
    assert found.fits
    assert found.needed_bytes <= available * GIB - RESERVE_RAM_BYTES


def test_less_memory_shortens_the_context_and_says_so() -> None:
    lengths = [plan(seven_b(), with_ram(n * GIB), Wishes()).num_ctx for n in (24, 12, 8, 7)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < lengths[0]
    tight = plan(seven_b(), with_ram(7 * GIB), Wishes())
    assert any("more does not fit" in reason for reason in tight.reasons)


def test_keys_are_quantized_before_the_context_gets_uncomfortable() -> None:
    plans = [plan(seven_b(), with_ram(mib << 20), Wishes()) for mib in range(6000, 6400, 50)]
    squeezed = [found for found in plans if found.kv_type_k == "q8_0"]
    assert squeezed
    for found in squeezed:
        assert found.num_ctx >= 8192
        assert found.kv_type_v == "f16"  # a quantized V would turn flash attention on
        assert any("kept as q8_0" in reason for reason in found.reasons)


def test_model_too_big_says_by_how_much() -> None:
    found = plan(seven_b(), with_ram(3 * GIB), Wishes())
    assert not found.fits
    assert found.num_ctx == 512
    error = found.error()
    assert "2.5 GiB can be had" in error.message
    assert error.hint
    assert found.reasons[0] == error.message


def test_memory_of_the_model_unloaded_first_counts() -> None:
    assert not plan(seven_b(), with_ram(3 * GIB), Wishes()).fits
    assert plan(seven_b(), with_ram(3 * GIB), Wishes(freed_bytes=6 * GIB)).fits


def test_whole_model_goes_to_a_gpu_that_holds_it() -> None:
    found = plan(seven_b(), with_gpu(22 * GIB), Wishes())
    assert found.num_gpu_layers == -1
    assert found.flash_attention
    assert found.estimate.gpus[0].total_bytes <= 22 * GIB - RESERVE_GPU_BYTES
    assert any("all of it runs on the GPU (Test GPU)" in reason for reason in found.reasons)


@pytest.mark.parametrize("free_gib", [1, 2, 3, 4, 5])
def test_small_gpu_gets_as_many_layers_as_fit(free_gib: int) -> None:
    model, machine = seven_b(), with_gpu(free_gib * GIB)
    found = plan(model, machine, Wishes())
    budget = free_gib * GIB - RESERVE_GPU_BYTES
    assert found.fits
    assert sum(gpu.total_bytes for gpu in found.estimate.gpus) <= budget
    assert found.num_gpu_layers >= 0
    more = plan(model, machine, Wishes(num_ctx=8192, num_gpu_layers=found.num_gpu_layers + 1))
    assert not more.fits


def test_build_without_gpu_support_leaves_the_gpu_alone() -> None:
    useless = replace(with_gpu(22 * GIB), gpu_problem="Test GPU stays unused: no nvcc")
    found = plan(seven_b(), useless, Wishes())
    assert found.num_gpu_layers == 0
    assert "Test GPU stays unused: no nvcc" in found.notes


def test_too_many_layers_asked_for_says_what_the_gpu_lacks() -> None:
    found = plan(seven_b(), with_gpu(3 * GIB), Wishes(num_gpu_layers=-1, num_ctx=8192))
    assert not found.fits
    error = found.error()
    assert "on the GPU; 2.2 GiB can be had" in error.message
    assert error.field == "gpu_layers"


def test_layers_on_the_gpu_make_it_faster() -> None:
    speeds = [plan(seven_b(), with_gpu(n * GIB), Wishes()).tokens_per_second for n in (2, 4, 22)]
    assert speeds == sorted(speeds)
    assert speeds[2] > 10 * speeds[0]


def test_speed_is_bandwidth_over_bytes_read() -> None:
    found = plan(seven_b(), MACHINE, Wishes())
    read = sum(t.num_bytes for t in seven_b().tensors if not t.name.startswith("token_embd"))
    assert found.tokens_per_second == pytest.approx(0.85 * 20e9 / read)


def test_verified_numbers_have_the_last_word() -> None:
    """Every context above 4,096 is found to need too much after all."""
    seen: list[int] = []

    def verify(model: GgufHeader, settings: ContextSettings) -> MemoryEstimate:
        seen.append(settings.num_pool)
        ours = estimate(model, settings)
        extra = 100 * GIB if settings.num_pool > 4096 else 0
        return replace(ours, compute_bytes=ours.compute_bytes + extra, is_verified=True)

    found = plan(seven_b(), MACHINE, Wishes(), verify=verify)
    assert found.num_ctx == 4096
    assert found.estimate.is_verified
    assert seen[0] == AUTO_CTX


def test_setting_that_llama_cpp_refuses_is_passed_over() -> None:
    def verify(model: GgufHeader, settings: ContextSettings) -> MemoryEstimate:
        if settings.num_pool > 8192:
            raise NotEnoughMemoryError("llama.cpp refuses this setting: aborted")
        return estimate(model, settings)

    found = plan(seven_b(), MACHINE, Wishes(), verify=verify)
    assert found.fits
    assert (found.num_ctx, found.num_pool) == (8192, 8192)


def test_refusal_of_everything_is_told_in_llama_cpps_words() -> None:
    def verify(model: GgufHeader, settings: ContextSettings) -> MemoryEstimate:
        raise NotEnoughMemoryError("llama.cpp refuses this setting: aborted")

    found = plan(seven_b(), MACHINE, Wishes(num_ctx=4096), verify=verify)
    assert not found.fits
    assert found.reasons[0] == found.error().message == "llama.cpp refuses this setting: aborted"


def test_spare_memory_makes_room_for_a_second_chat() -> None:
    assert plan(seven_b(), MACHINE, Wishes(num_ctx=8192)).num_pool == 2 * 8192
    tight = plan(seven_b(), with_ram(9 * GIB), Wishes(num_ctx=8192))
    assert tight.num_pool == 8192


def with_windows(architecture: str) -> GgufHeader:
    """Sizes of a Gemma 3 4B without its weights: five of six layers see 1,024 tokens."""
    sizes: dict[str, Value] = renamed(
        architecture,
        block_count=34,
        embedding_length=2560,
        feed_forward_length=10240,
        attention__head_count=8,
        attention__head_count_kv=4,
        attention__key_length=256,
        attention__value_length=256,
        attention__sliding_window=1024,
        context_length=131_072,
        vocab_size=262_144,
    )
    return header(sizes, {"token_embd.weight": ("q4_k", (2560, 262_144))})


def test_sliding_windows_keep_all_tokens_where_there_is_room_to_spare() -> None:
    model = with_windows("gemma3")
    wide, tight = plan(model, MACHINE, Wishes()), plan(model, with_ram(5 * GIB), Wishes())
    assert wide.swa_full and wide.fits
    assert not tight.swa_full and tight.fits
    assert any("--swa-full yes" in note for note in tight.notes)
    assert wide.estimate.kv_bytes > 2 * tight.estimate.kv_bytes


def test_sliding_windows_are_as_was_asked_for() -> None:
    model = with_windows("gemma3")
    asked = plan(model, with_ram(5 * GIB), Wishes(swa_full=True))
    assert asked.swa_full and asked.fits and asked.num_ctx < AUTO_CTX
    assert not plan(model, MACHINE, Wishes(swa_full=False)).swa_full


def test_windows_that_make_no_edit_possible_stay_small() -> None:
    """Quantized keys drift when moved, and Cohere 2 has layers without positions."""
    quantized = Wishes(kv_type_k="q8_0", kv_type_v="q8_0", swa_full=True)
    assert not plan(with_windows("gemma3"), MACHINE, quantized).swa_full
    assert not plan(with_windows("cohere2"), MACHINE, Wishes(swa_full=True)).swa_full
