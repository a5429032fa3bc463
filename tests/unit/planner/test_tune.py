from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from innkeeper.planner.tune import (
    CpuSettings,
    NotMeasured,
    Timing,
    Tuned,
    candidates,
    key,
    remember,
    remembered,
    timings_of,
)
from tests.unit.planner.headers import LLAMA, header
from tests.unit.planner.test_plan import MACHINE, seven_b

DEFAULT = Timing(CpuSettings(num_threads=4), 0.010, 0.025)
PLAIN = Timing(CpuSettings(repack=False, num_threads=4), 0.006, 0.040)
TUNED = Tuned((DEFAULT, PLAIN))


def test_default_is_tried_first_and_nothing_twice() -> None:
    for num_cores in (1, 2, 4, 16):
        tried = candidates(num_cores)
        assert tried[0] == CpuSettings(num_threads=num_cores)
        assert len(set(tried)) == len(tried)
        assert all(1 <= settings.num_threads <= num_cores for settings in tried)


def test_a_turn_weighs_reading_and_writing() -> None:
    assert DEFAULT.turn_seconds == pytest.approx(150 * 0.010 + 200 * 0.025)
    assert DEFAULT.chat_seconds == pytest.approx(235 * 0.010 + 200 * 0.025)
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
    remember(cache, seven_b(), MACHINE, Tuned((DEFAULT, slightly)))
    found = remembered(cache, seven_b(), MACHINE)
    assert isinstance(found, Tuned)
    assert (found.best, found.gain) == (DEFAULT, 1.0)
    remember(cache, seven_b(), MACHINE, Tuned((DEFAULT, clearly)))
    found = remembered(cache, seven_b(), MACHINE)
    assert isinstance(found, Tuned)
    assert found.best == clearly
    assert found.gain == pytest.approx(1.25)


def test_gain_that_may_be_noise_keeps_the_default() -> None:
    clearly = Timing(CpuSettings(flash_attention=True, num_threads=4), 0.008, 0.020, noise=0.1)
    assert Tuned((DEFAULT, clearly)).best == clearly
    assert Tuned((DEFAULT, replace(clearly, noise=0.3))).best == DEFAULT


def noisy(random: Random, *costs: float, num_rounds: int) -> list[list[list[float]]]:
    """Rounds in which every eighth measurement met another program, for up to ten times as long."""

    def took(seconds: float) -> float:
        stalled = random.random() < 0.125
        return seconds * (random.uniform(1, 10) if stalled else random.uniform(1, 1.1))

    return [[[took(cost), took(4 * cost)] for cost in costs] for _ in range(num_rounds)]


SETTINGS = (DEFAULT.settings, PLAIN.settings)


def test_stalls_of_other_programs_hide_no_large_gain() -> None:
    random, found = Random(1), []
    for _ in range(50):
        timings = timings_of(SETTINGS, noisy(random, 0.010, 0.005, num_rounds=16), 1)
        found.append(Tuned(timings).best.settings)
    assert found.count(PLAIN.settings) >= 40


def test_noise_alone_changes_nothing() -> None:
    random, found = Random(2), []
    for num_rounds in (3, 5, 8, 16) * 50:
        timings = timings_of(SETTINGS, noisy(random, 0.010, 0.010, num_rounds=num_rounds), 1)
        found.append(Tuned(timings).best.settings)
    assert found.count(DEFAULT.settings) >= 0.95 * len(found)


def test_too_few_rounds_are_no_result() -> None:
    rounds = noisy(Random(3), 0.010, 0.005, num_rounds=2)
    assert timings_of(SETTINGS, rounds, 1) == ()
    third = [[0.010, 0.040], None]
    [default, other] = timings_of(SETTINGS, [*rounds, third], 1)
    assert other.noise >= 1
    assert Tuned((default, other)).best == default


def test_failure_is_remembered_with_its_reason(tmp_path: Path) -> None:
    cache = tmp_path / "tune.json"
    remember(cache, seven_b(), MACHINE, NotMeasured("no room"))
    assert remembered(cache, seven_b(), MACHINE) == NotMeasured("no room")
    remember(cache, seven_b(), MACHINE, TUNED)
    assert remembered(cache, seven_b(), MACHINE) == TUNED


def test_what_reads_faster_and_writes_slower_is_not_taken() -> None:
    """A gain on average must not be a loss in what somebody does all the time."""
    quick_reader = Timing(CpuSettings(repack=False, num_threads=4), 0.001, 0.033)
    assert quick_reader.chat_seconds < DEFAULT.chat_seconds
    assert quick_reader.turn_seconds > DEFAULT.turn_seconds
    assert Tuned((DEFAULT, quick_reader)).best == DEFAULT
    quick_writer = Timing(CpuSettings(max_ubatch=32, num_threads=4), 0.011, 0.010)
    assert Tuned((DEFAULT, quick_writer)).best == DEFAULT


def test_without_the_default_there_is_nothing_to_compare_with() -> None:
    assert TUNED.only(lambda settings: settings.repack) == Tuned((DEFAULT,))
    assert TUNED.only(lambda settings: not settings.repack) is None


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
