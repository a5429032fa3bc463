import pytest

from innkeeper.errors import CorruptModelError, UnsupportedModelError
from innkeeper.formats.gguf_header import Value
from innkeeper.planner.estimate import ContextSettings, estimate
from innkeeper.planner.hardware import X86_REPACK_TYPES
from tests.unit.planner.headers import LLAMA, TENSORS, header, renamed

K_ROW, V_ROW = 2 * 32, 2 * 32  # two key heads of 32


def context(num_pool: int = 4096, **more: object) -> ContextSettings:
    return ContextSettings(num_pool=num_pool, **more)  # type: ignore[arg-type]


def test_kv_is_two_rows_per_cell_and_layer() -> None:
    assert estimate(header(), context()).kv_bytes == 2 * 4096 * (K_ROW + V_ROW) * 2


def test_quantized_kv_counts_its_scales() -> None:
    found = estimate(header(), context(kv_type_k="q8_0", kv_type_v="q4_0", flash_attention=True))
    assert found.kv_bytes == 2 * 4096 * (K_ROW // 32 * 34 + V_ROW // 32 * 18)


def test_pool_is_rounded_up_per_sequence() -> None:
    assert estimate(header(), context(3000)).kv_bytes == 2 * 3072 * 256
    split = context(3000, max_sequences=3, kv_unified=False)
    assert estimate(header(), split).kv_bytes == 2 * 3 * 1024 * 256


def test_sliding_layers_hold_window_and_batch() -> None:
    sizes = renamed("gemma3", attention__sliding_window=512, block_count=6)
    shared = context(8192, max_sequences=3, max_ubatch=256, kv_unified=True)
    assert estimate(header(sizes), shared).kv_bytes == (8192 + 5 * (3 * 512 + 256)) * 256
    split = context(3 * 8192, max_sequences=3, max_ubatch=256, kv_unified=False)
    assert estimate(header(sizes), split).kv_bytes == 3 * (8192 + 5 * (512 + 256)) * 256
    assert estimate(header(sizes), context(8192, swa_full=True)).kv_bytes == 6 * 8192 * 256


def test_compressed_attention_keeps_no_values() -> None:
    sizes = renamed(
        "deepseek2",
        attention__key_length=288,
        attention__value_length=256,
        attention__head_count_kv=1,
        attention__key_length_mla=96,
        attention__value_length_mla=64,
    )
    assert estimate(header(sizes), context()).kv_bytes == 2 * 4096 * 288 * 2


def test_recurrent_state_grows_with_sequences_not_context() -> None:
    sizes = renamed("mamba", ssm__conv_kernel=4, ssm__inner_size=512, ssm__state_size=16)
    one = estimate(header(sizes), context(1024))
    assert one.recurrent_bytes == 2 * 4 * (3 * 512 + 16 * 512)
    assert one.kv_bytes == 0
    four = estimate(header(sizes), context(131072, max_sequences=4))
    assert four.recurrent_bytes == 4 * one.recurrent_bytes


def test_only_multiplied_weights_are_repacked() -> None:
    found = estimate(header(), context(repack_types=X86_REPACK_TYPES))
    q4_k = 256 * 256 + 256 * 512 * 4  # attn_q and the experts
    assert found.repack_bytes == q4_k // 256 * 144
    assert estimate(header(), context()).repack_bytes == 0


def test_tied_embedding_counts_twice_where_it_is_repacked() -> None:
    tensors = {name: rest for name, rest in TENSORS.items() if name != "output.weight"}
    embedding = 1000 * 144
    plain = estimate(header(tensors=tensors), context())
    repacked = estimate(header(tensors=tensors), context(repack_types=X86_REPACK_TYPES))
    assert repacked.weights_bytes - plain.weights_bytes == embedding


def test_output_buffer_has_a_row_per_sequence_or_output() -> None:
    assert estimate(header(), context(max_sequences=4)).output_bytes == 4 * 1000 * 4
    assert estimate(header(), context(num_outputs=64)).output_bytes == 4 * 1000 * 64


def test_fewer_outputs_cut_the_compute_buffer() -> None:
    sizes: dict[str, Value] = {**LLAMA, "llama.vocab_size": 128_000}
    everything = estimate(header(sizes), context(512)).compute_bytes
    assert estimate(header(sizes), context(512, num_outputs=1)).compute_bytes < everything / 10


def test_first_gpu_layer_is_the_output() -> None:
    one = estimate(header(), context(num_gpu_layers=1))
    assert one.gpus[0].weights_bytes == 1643 * 128 + 1024  # 1000 rows and the padding of one
    assert one.gpus[0].context_bytes == 0
    two = estimate(header(), context(num_gpu_layers=2))
    assert two.gpus[0].context_bytes == two.kv_bytes == 4096 * 256
    for everything in (3, -1):
        found = estimate(header(), context(num_gpu_layers=everything))
        assert found.kv_bytes == 0
        assert found.gpus[0].context_bytes == 2 * 4096 * 256


def test_unknown_architecture_calls_itself_inexact() -> None:
    assert estimate(header(), context()).is_exact
    assert not estimate(header(renamed("brand-new")), context()).is_exact


def test_total_is_the_sum_of_what_is_anonymous() -> None:
    found = estimate(header(), context(repack_types=X86_REPACK_TYPES))
    assert found.total_bytes > found.repack_bytes + found.kv_bytes + found.compute_bytes
    mapped = found.mapped_bytes - found.repack_bytes
    assert found.resident_bytes == found.total_bytes + mapped


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_count", 10**9),
        ("block_count", 2**63),
        ("embedding_length", -5),
        ("attention.head_count", 2**40),
        ("vocab_size", -1),
    ],
)
def test_impossible_sizes_are_called_corrupt(key: str, value: int) -> None:
    with pytest.raises(CorruptModelError, match=f"llama.{key}"):
        estimate(header({**LLAMA, f"llama.{key}": value}), context())


def test_file_without_sizes_is_no_text_model() -> None:
    with pytest.raises(UnsupportedModelError, match="not a text model"):
        estimate(header({"general.architecture": "clip"}), context())


def test_model_without_gate_needs_less_for_its_activations() -> None:
    gated = {**TENSORS, "blk.0.ffn_gate.weight": ("q4_k", (256, 512))}
    plain = {**TENSORS, "blk.0.ffn_up.weight": ("q4_k", (256, 512))}
    fused = {**TENSORS, "blk.0.ffn_up.weight": ("q4_k", (256, 1024))}
    for tensors in (gated, plain, fused):
        tensors.pop("blk.0.ffn_up_exps.weight")
    settings = context(512, num_outputs=1, flash_attention=True)
    sizes: dict[str, Value] = {**LLAMA, "llama.feed_forward_length": 512}
    needs = [estimate(header(sizes, t), settings).compute_bytes for t in (gated, fused, plain)]
    assert needs[0] == needs[1]
    assert needs[2] < needs[0]


def test_only_the_large_exaone_has_a_sliding_window() -> None:
    small, large = (renamed("exaone4", block_count=count) for count in (30, 64))
    settings = context(32_768)
    assert estimate(header(small), settings).kv_bytes == 30 * 32_768 * 256
    assert estimate(header(large), settings).kv_bytes < 64 * 32_768 * 256 / 2
