import pytest

from innkeeper.planner.estimate import ContextSettings, estimate
from innkeeper.planner.hardware import X86_REPACK_TYPES
from innkeeper.planner.variant import requantized
from tests.unit.planner.test_fit import QUANTS, quantized

SETTINGS = ContextSettings(num_pool=8192, repack_types=X86_REPACK_TYPES)


@pytest.mark.parametrize("known", ["q4_k", "q8_0"])
@pytest.mark.parametrize("wanted", QUANTS)
def test_one_header_stands_for_the_other_quantizations(known: str, wanted: str) -> None:
    real = quantized(wanted)
    guess = requantized(quantized(known), wanted.upper(), real.data_start + real.tensor_bytes)
    ours, truth = estimate(guess, SETTINGS), estimate(real, SETTINGS)
    assert ours.weights_bytes == pytest.approx(truth.weights_bytes, rel=0.001)
    assert ours.repack_bytes == pytest.approx(truth.repack_bytes, rel=0.001)
    assert (ours.kv_bytes, ours.compute_bytes) == (truth.kv_bytes, truth.compute_bytes)


def test_unknown_name_still_has_the_size_of_the_file() -> None:
    known = quantized("q4_k")
    guess = requantized(known, None, 6 * 10**9)
    assert guess.tensor_bytes == pytest.approx(6 * 10**9 - known.data_start, abs=100)


def test_mix_is_its_base_type() -> None:
    guess = requantized(quantized("q8_0"), "Q4_K_M", 5 * 10**9)
    assert guess.tensors_by_name["blk.0.ffn.weight"].type.name == "Q4_K"
