from dataclasses import replace

import pytest

from innkeeper.formats.gguf_header import GgufHeader
from innkeeper.planner.fit import FitRow, choose, fit, rank
from innkeeper.planner.hardware import Hardware
from innkeeper.planner.wishes import Wishes
from tests.unit.planner.headers import tensor
from tests.unit.planner.test_plan import GIB, MACHINE, seven_b, with_gpu, with_ram


def quantized(type_name: str) -> GgufHeader:
    """The model of the other tests with all its matrices of one type."""
    model = seven_b()
    tensors = tuple(tensor(t.name, type_name, t.shape) for t in model.tensors)
    return replace(model, tensors=tensors)


def rows(hardware: Hardware, *types: str) -> list[FitRow]:
    return [fit(quantized(name), hardware, Wishes(), name=name) for name in types]


QUANTS = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q8_0", "f16")


def test_row_has_every_promised_field() -> None:
    row = fit(seven_b(), MACHINE, Wishes(), name="m").to_json()
    promised = "weights kv recurrent output compute repack work vocab process total".split()
    for kind in promised:
        assert isinstance(row[f"{kind}_bytes"], int)
    assert row["verified"] is False
    assert row["fits"] is True
    assert "tokens of context" in row["reason"]
    assert set(row["devices"]) == {"RAM"}


def test_total_is_the_sum_of_its_parts() -> None:
    row = fit(seven_b(), MACHINE, Wishes(), name="m")
    kinds = "repack kv recurrent output compute margin work vocab process".split()
    found = row.to_json()
    assert found["total_bytes"] == sum(found[f"{kind}_bytes"] for kind in kinds)


def test_asked_for_settings_are_taken_as_they_are() -> None:
    wishes = Wishes(
        num_ctx=8192,
        num_pool=8192,
        num_ids=4,
        max_batch=2048,
        max_ubatch=512,
        num_outputs=0,
        kv_unified=False,
        kv_type_k="q8_0",
        flash_attention=False,
        num_gpu_layers=0,
    )
    row = fit(seven_b(), MACHINE, wishes, name="m")
    assert row.num_ctx == 8192
    assert row.needs.kv_bytes == 32 * 8192 * (1024 // 32 * 34 + 1024 * 2)
    assert row.needs.output_bytes == 4 * 128_256 * 4
    assert row.needs.compute_bytes == 4 * 128_256 * 512 + 2 * 4 * 512 * 4096


def test_least_quantized_that_is_fluent_comes_first() -> None:
    fast = replace(MACHINE, memory_bandwidth=100e9)
    assert [row.name for row in rank(rows(fast, *QUANTS))][:3] == ["q8_0", "q6_k", "q5_k"]


def test_slow_memory_prefers_what_reads_fluently() -> None:
    slow = replace(MACHINE, memory_bandwidth=50e9)
    best, others = choose(rows(slow, *QUANTS))
    assert best is not None
    assert best.tokens_per_second >= 8
    better = [row for row in others if row.bits_per_weight > best.bits_per_weight]
    assert better
    assert all(row.tokens_per_second < 8 for row in better)


def test_what_does_not_fit_comes_last_and_says_why() -> None:
    ranked = rank(rows(with_ram(8 * GIB), *QUANTS))
    fitting = [row.fits for row in ranked]
    assert fitting == sorted(fitting, reverse=True)
    assert not ranked[-1].fits
    assert "too little" in ranked[-1].reason


def test_a_context_that_is_too_long_says_which_one_fits() -> None:
    row = fit(seven_b(), with_ram(10 * GIB), Wishes(num_ctx=131_072, kv_type_k="f16"), name="m")
    assert not row.fits
    fitting = fit(seven_b(), with_ram(10 * GIB), Wishes(kv_type_k="f16"), name="m").num_ctx
    assert row.reasons[-1] == f"it fits with a context of {fitting:,} tokens"


def test_nothing_fits_gives_no_choice() -> None:
    assert choose(rows(with_ram(GIB), "q8_0", "f16"))[0] is None


@pytest.mark.parametrize(("free_gib", "expected"), [(24, "q8_0"), (8, "q6_k"), (6, "q4_k")])
def test_gpu_gets_the_best_that_lies_on_it_whole(free_gib: int, expected: str) -> None:
    best, _ = choose(rows(with_gpu(free_gib * GIB), *QUANTS))
    assert best is not None
    assert (best.name, best.num_gpu_layers) == (expected, -1)
    assert best.devices["GPU0"]["total_bytes"] < free_gib * GIB
