"""When settings are measured, what is left alone, and what comes of it."""

from pathlib import Path
from threading import Event

import pytest
from msgspec.structs import replace

from innkeeper.core import EngineConfig
from innkeeper.errors import BusyError, InnkeeperError, NotEnoughMemoryError
from innkeeper.formats.gguf_header import GgufHeader
from innkeeper.planner import tune as planner_tune
from innkeeper.planner.hardware import Hardware
from innkeeper.planner.tune import CpuSettings, Timing, Tuned
from innkeeper.serving import tuning
from innkeeper.serving.tuning import Tuning
from tests.hub.models import write_llama
from tests.unit.planner.test_plan import MACHINE, with_gpu

DEFAULT = Timing(CpuSettings(num_threads=4), 0.010, 0.025)
PLAIN = Timing(CpuSettings(repack=False, num_threads=4), 0.006, 0.024)
FLASH = Timing(CpuSettings(flash_attention=True, num_threads=4), 0.005, 0.020)
FEWER = Timing(CpuSettings(num_threads=2), 0.004, 0.019)


class Measured:
    """Instead of a stopwatch."""

    def __init__(self, *timings: Timing) -> None:
        self.timings = timings
        self.num_calls = 0

    def __call__(self, header: GgufHeader, hardware: Hardware, stop: Event) -> Tuned | None:
        self.num_calls += 1
        return Tuned(self.timings) if self.timings else None


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineConfig:
    """Of a model that is small, and large enough to be measured."""
    monkeypatch.setattr(tuning, "MIN_WEIGHTS_BYTES", 1)
    path = tmp_path / "m.gguf"
    write_llama(path, "Q4_K_M", num_layers=2, width=256, ffn_width=512, num_heads=4, num_kv_heads=4)
    return EngineConfig(backend="llama_cpp", path=str(path), name="m", num_ctx=0, num_pool=0)


def tuned(
    config: EngineConfig, measure: Measured, cache: Path, hardware: Hardware = MACHINE
) -> EngineConfig:
    return Tuning(cache, measure)(config, hardware, lambda fraction, stage: None, Event())


def test_the_fastest_settings_are_taken_and_said(config: EngineConfig, tmp_path: Path) -> None:
    found = tuned(config, Measured(DEFAULT, PLAIN), tmp_path / "t.json")
    assert not found.repack
    assert "weights as in the file" in found.notes[0] and "%" in found.notes[0]


def test_a_second_load_is_not_measured_again(config: EngineConfig, tmp_path: Path) -> None:
    measure = Measured(DEFAULT, PLAIN)
    first = tuned(config, measure, tmp_path / "t.json")
    assert tuned(config, measure, tmp_path / "t.json") == first
    assert measure.num_calls == 1


@pytest.mark.parametrize("error", [BusyError("too noisy"), NotEnoughMemoryError("no room")])
def test_a_search_that_failed_is_not_tried_at_each_load(
    config: EngineConfig, tmp_path: Path, error: InnkeeperError
) -> None:
    calls = []

    def fail(header: GgufHeader, hardware: Hardware, stop: Event) -> Tuned | None:
        calls.append(header)
        raise error

    for _ in range(3):
        found = Tuning(tmp_path / "t.json", fail)(config, MACHINE, lambda *_: None, Event())
        assert error.message in found.notes[0] and "innkeeper tune" in found.notes[0]
        assert replace(found, notes=()) == config
    assert len(calls) == 1


def test_a_search_that_was_stopped_is_tried_again(config: EngineConfig, tmp_path: Path) -> None:
    measure = Measured()
    for _ in range(2):
        assert tuned(config, measure, tmp_path / "t.json") == config
    assert measure.num_calls == 2


def test_a_default_that_wins_changes_nothing(config: EngineConfig, tmp_path: Path) -> None:
    assert tuned(config, Measured(DEFAULT), tmp_path / "t.json") == config
    assert tuned(config, Measured(), tmp_path / "u.json") == config


def test_what_the_user_set_stays(config: EngineConfig, tmp_path: Path) -> None:
    cache, measure = tmp_path / "t.json", Measured(DEFAULT, PLAIN, FLASH, FEWER)
    assert tuned(config, measure, cache).max_threads == 2
    own = replace(config, num_threads=3)
    assert tuned(own, measure, cache).flash_attention
    own = replace(own, flash_attention=False)
    assert tuned(own, measure, cache) == replace(
        own,
        repack=False,
        max_ubatch=128,
        max_threads=4,
        notes=tuned(own, measure, cache).notes,
    )


def test_nothing_is_measured_where_it_would_not_pay(
    config: EngineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, cache = Measured(DEFAULT, PLAIN), tmp_path / "t.json"
    assert tuned(config, measure, cache, with_gpu(8 << 30)) == config
    for other in (replace(config, backend="fake"), replace(config, pooling="mean")):
        assert tuned(other, measure, cache) == other
    monkeypatch.setattr(tuning, "MIN_WEIGHTS_BYTES", planner_tune.MIN_WEIGHTS_BYTES)
    assert tuned(config, measure, cache) == config
    assert measure.num_calls == 0


def test_a_file_that_is_no_model_is_left_to_the_load(config: EngineConfig, tmp_path: Path) -> None:
    gone = replace(config, path=str(tmp_path / "gone.gguf"))
    assert tuned(gone, Measured(DEFAULT, PLAIN), tmp_path / "t.json") == gone
