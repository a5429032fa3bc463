"""The two-layer proxies load, run and are measured."""

from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from innkeeper.errors import BusyError, NotEnoughMemoryError, UnsupportedModelError
from innkeeper.formats import gguf
from innkeeper.planner.hardware import probe
from innkeeper.planner.proxy import write_proxy
from innkeeper.planner.tune import CpuSettings, tune


@pytest.mark.parametrize(("name", "factor"), [("llama", 2), ("gemma3", 3), ("mixtral", 2)])
def test_proxy_keeps_widths_and_types(
    name: str, factor: int, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    model = gguf.read(tiny_models[name])
    assert write_proxy(model, tmp_path / "proxy.gguf") == factor
    proxy = gguf.read(tmp_path / "proxy.gguf")
    assert proxy.hparam("block_count") == 2
    for tensor in proxy.tensors:
        if tensor.name.startswith("blk."):
            assert tensor[1:3] == model.tensors_by_name[tensor.name][1:3]  # shape and type


@pytest.mark.parametrize("name", ["mamba", "qwen2"])
def test_what_cannot_be_cut_is_refused(
    name: str, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModelError, match="cannot be measured in part"):
        write_proxy(gguf.read(tiny_models[name]), tmp_path / "proxy.gguf")


@pytest.mark.parametrize("name", ["llama-q8_0", "mixtral"])
def test_measuring_gives_times_for_the_default(name: str, tiny_models: dict[str, Path]) -> None:
    two_cores = replace(probe(), num_usable_cores=2)
    header = gguf.read(tiny_models[name])
    found = tune(header, two_cores, seconds=10, idle=lambda: 0.7)  # as beside other programs
    assert found is not None and found.num_threads == 1
    assert found.timings[0].settings == CpuSettings(num_threads=2)
    assert {timing.settings.num_threads for timing in found.timings} == {2}
    assert all(0 < t.read_seconds < t.write_seconds < 1 for t in found.timings)
    assert found.best in found.timings
    assert found.gain >= 1.0


def test_model_that_cannot_be_cut_is_not_tuned(tiny_mamba: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="mamba model"):
        tune(gguf.read(tiny_mamba), probe(), seconds=0.1)


def test_no_time_and_no_memory_are_said(tiny_models: dict[str, Path]) -> None:
    header = gguf.read(tiny_models["llama-q8_0"])
    with pytest.raises(BusyError, match="too little could be measured"):
        tune(header, probe(), seconds=0.0)
    with pytest.raises(NotEnoughMemoryError, match="can be had"):
        tune(header, replace(probe(), available_ram_bytes=1024))


def test_a_search_can_be_stopped(tiny_models: dict[str, Path]) -> None:
    stop = Event()
    stop.set()
    assert tune(gguf.read(tiny_models["llama-q8_0"]), probe(), stop=stop) is None
