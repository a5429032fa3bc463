from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper.planner import bandwidth
from innkeeper.planner.bandwidth import measure_bandwidth, with_bandwidth
from tests.unit.planner.test_plan import GIB, MACHINE, with_ram


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The thread counts that were measured; each measurement says 40 GB/s."""
    seen: list[int] = []

    def measure(num_threads: int) -> float:
        seen.append(num_threads)
        return 40e9

    monkeypatch.setattr(bandwidth, "measure_bandwidth", measure)
    return seen


def test_machine_is_measured_once(tmp_path: Path, measured: list[int]) -> None:
    cache = tmp_path / "cache" / "bandwidth.json"
    for _ in range(3):
        assert with_bandwidth(MACHINE, cache).memory_bandwidth == 40e9
    assert measured == [4]


def test_other_machine_is_measured_anew(tmp_path: Path, measured: list[int]) -> None:
    cache = tmp_path / "bandwidth.json"
    with_bandwidth(MACHINE, cache)
    with_bandwidth(replace(MACHINE, num_usable_cores=2), cache)
    with_bandwidth(MACHINE, cache)
    assert measured == [4, 2]


def test_full_memory_keeps_the_guess(tmp_path: Path, measured: list[int]) -> None:
    tight = with_ram(GIB // 2)
    assert with_bandwidth(tight, tmp_path / "b.json") == tight
    assert measured == []


@pytest.mark.parametrize("content", ["", "[]", '{"Test CPU|4": "fast"}', '{"Test CPU|4": -1}'])
def test_broken_cache_is_measured_over(content: str, tmp_path: Path, measured: list[int]) -> None:
    cache = tmp_path / "bandwidth.json"
    cache.write_text(content)
    with_bandwidth(MACHINE, cache)
    with_bandwidth(MACHINE, cache)
    assert measured == [4]


def test_cache_that_cannot_be_written_is_no_failure(tmp_path: Path, measured: list[int]) -> None:
    (tmp_path / "file").write_text("")
    assert with_bandwidth(MACHINE, tmp_path / "file" / "b.json").memory_bandwidth == 40e9


def test_measured_speed_is_that_of_a_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "_MEASURED_BYTES", 32 << 20)
    assert 0.1e9 < measure_bandwidth(1, seconds=0.02) < 10e12
