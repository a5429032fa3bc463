from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper.planner.tune import CpuSettings, Timing, Tuned, candidates, key, remember, remembered
from tests.unit.planner.headers import LLAMA, header
from tests.unit.planner.test_plan import MACHINE, seven_b

DEFAULT = Timing(CpuSettings(num_threads=4), 0.010, 0.025)
PLAIN = Timing(CpuSettings(repack=False, num_threads=4), 0.006, 0.040)
TUNED = Tuned(DEFAULT, (DEFAULT, PLAIN))


def test_default_is_tried_first_and_nothing_twice() -> None:
    for num_cores in (1, 2, 4, 16):
        tried = candidates(num_cores)
        assert tried[0] == CpuSettings(num_threads=num_cores)
        assert len(set(tried)) == len(tried)
        assert all(1 <= settings.num_threads <= num_cores for settings in tried)


def test_a_turn_weighs_reading_and_writing() -> None:
    assert DEFAULT.turn_seconds == pytest.approx(235 * 0.010 + 200 * 0.025)
    assert PLAIN.turn_seconds > DEFAULT.turn_seconds  # reads faster, writes slower


def test_result_is_remembered_for_shape_and_machine(tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "tune.json"
    remember(cache, seven_b(), MACHINE, TUNED)
    assert remembered(cache, seven_b(), MACHINE) == TUNED
    assert remembered(cache, header(), MACHINE) is None
    assert remembered(cache, seven_b(), replace(MACHINE, num_usable_cores=2)) is None


def test_small_gain_keeps_the_default(tmp_path: Path) -> None:
    cache = tmp_path / "tune.json"
    slightly = Timing(CpuSettings(max_ubatch=32, num_threads=4), 0.0099, 0.0249)
    clearly = Timing(CpuSettings(flash_attention=True, num_threads=4), 0.008, 0.020)
    remember(cache, seven_b(), MACHINE, Tuned(DEFAULT, (DEFAULT, slightly)))
    found = remembered(cache, seven_b(), MACHINE)
    assert found is not None
    assert (found.best, found.gain) == (DEFAULT, 1.0)
    remember(cache, seven_b(), MACHINE, Tuned(clearly, (DEFAULT, clearly)))
    found = remembered(cache, seven_b(), MACHINE)
    assert found is not None
    assert found.best == clearly
    assert found.gain == pytest.approx(1.25)


def test_name_of_the_model_does_not_matter() -> None:
    named = {**LLAMA, "general.name": "other"}
    assert key(header(), MACHINE) == key(header(named), MACHINE)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}', "\x00"])
def test_broken_cache_is_as_none(content: str, tmp_path: Path) -> None:
    cache = tmp_path / "tune.json"
    cache.write_text(content)
    assert remembered(cache, seven_b(), MACHINE) is None
    remember(cache, seven_b(), MACHINE, TUNED)
    assert remembered(cache, seven_b(), MACHINE) == TUNED


def test_foreign_entry_is_as_none(tmp_path: Path) -> None:
    cache = tmp_path / "tune.json"
    cache.write_text(f'{{"{key(seven_b(), MACHINE)}": [{{"settings": {{"unknown": 1}}}}]}}')
    assert remembered(cache, seven_b(), MACHINE) is None
