"""The two-layer proxies load, run and are measured."""

from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper.errors import UnsupportedModelError
from innkeeper.formats import gguf
from innkeeper.planner.hardware import probe
from innkeeper.planner.proxy import write_proxy
from innkeeper.planner.tune import tune


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
    one_core = replace(probe(), num_usable_cores=1)  # spinning threads stall on a busy machine
    found = tune(gguf.read(tiny_models[name]), one_core, seconds=1.5)
    assert found is not None
    assert found.timings[0].settings.repack
    assert all(0 < t.read_seconds < t.write_seconds < 1 for t in found.timings)
    assert found.best in found.timings
    assert found.gain >= 1.0


def test_model_that_cannot_be_cut_is_not_tuned(tiny_mamba: Path) -> None:
    assert tune(gguf.read(tiny_mamba), probe(), seconds=0.1) is None
