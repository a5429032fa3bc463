"""The dry run against real loads of the tiny models, and against models that cannot be loaded."""

import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import pytest

from innkeeper.errors import NotEnoughMemoryError, UnsupportedModelError
from innkeeper.formats import gguf
from innkeeper.planner.estimate import ContextSettings, estimate
from innkeeper.planner.verify import dry_run, real_run, verify
from tests.model.tiny_models import WRITERS

SHARED = Path(os.environ.get("INNKEEPER_SHARED", Path(__file__).parents[3] / "shared")) / "data"
SHAPES = SHARED / "make_model_shapes.py"
SPLIT = ContextSettings(num_pool=2048, max_sequences=3, kv_unified=False, num_outputs=3)
CONTEXTS = {
    "plain": ContextSettings(num_pool=1000, max_sequences=2, num_outputs=2, max_ubatch=128),
    "all-outputs": ContextSettings(num_pool=2048, max_sequences=1),
    "flash": ContextSettings(
        num_pool=2048, max_sequences=4, flash_attention=True, kv_type_k="q8_0", kv_type_v="q4_0"
    ),
    "split": SPLIT,
}


@pytest.mark.parametrize("name", WRITERS)
def test_dry_run_equals_a_real_load(name: str, tiny_models: dict[str, Path]) -> None:
    path, contexts = tiny_models[name], list(CONTEXTS.values())
    header = gguf.read(path)
    dry_runs = dry_run(header, contexts)
    assert [dry.error for dry in dry_runs] == [None] * len(contexts)
    assert dry_runs == real_run(path, contexts)
    for settings, dry in zip(contexts, dry_runs, strict=True):
        ours = estimate(header, settings)
        for kind in ("kv_bytes", "recurrent_bytes", "output_bytes"):
            assert getattr(ours, kind) == pytest.approx(getattr(dry, kind), abs=5300)


def test_verified_estimate_has_no_margin(tiny_llama: Path) -> None:
    found = verify(gguf.read(tiny_llama), SPLIT)
    assert found.is_verified
    assert found.margin_bytes == 0
    assert found.compute_bytes > 0
    assert found.kv_bytes == estimate(gguf.read(tiny_llama), SPLIT).kv_bytes


def test_refused_context_says_why(tiny_llama: Path) -> None:
    quantized_values = replace(SPLIT, kv_type_v="q8_0")  # llama.cpp wants flash attention then
    with pytest.raises(NotEnoughMemoryError, match=r"refuses.*flash"):
        verify(gguf.read(tiny_llama), quantized_values)


def test_refused_context_does_not_stop_the_others(tiny_llama: Path) -> None:
    contexts = [SPLIT, replace(SPLIT, kv_type_v="q8_0"), CONTEXTS["plain"]]
    found = dry_run(gguf.read(tiny_llama), contexts)
    assert [dry.error is None for dry in found] == [True, False, True]


def test_unknown_architecture_is_named(tiny_llama: Path) -> None:
    header = gguf.read(tiny_llama)
    renamed = {
        key.replace("llama.", "newer."): raw.replace(b"llama", b"newer")
        for key, raw in header.raw_metadata.items()
    }
    metadata = {key.replace("llama.", "newer."): v for key, v in header.metadata.items()}
    metadata["general.architecture"] = "newer"
    with pytest.raises(UnsupportedModelError, match="newer"):
        verify(replace(header, metadata=metadata, raw_metadata=renamed), SPLIT)


@pytest.mark.skipif(not SHAPES.exists(), reason=f"{SHAPES} is not there (set INNKEEPER_SHARED)")
def test_context_that_aborts_llama_cpp_is_survived(tmp_path: Path) -> None:
    """A Phi-4 shape with quantized KV and three unshared sequences fails an assertion."""
    spec = importlib.util.spec_from_file_location("shapes", SHAPES)
    assert spec and spec.loader
    shapes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shapes)
    sizes = {"dim": 5120, "ff": 17920, "L": 40, "H": 40, "KV": 10, "hd": 128, "V": 100352}
    shapes.build("phi4", {"arch": "phi3", "ctx": 16384, **sizes}, str(tmp_path))
    header = gguf.read(tmp_path / "phi4.gguf")
    fatal = replace(SPLIT, kv_type_k="q8_0", kv_type_v="q8_0", flash_attention=True)
    found = dry_run(header, [SPLIT, fatal, SPLIT])
    assert [dry.error is None for dry in found] == [True, False, True]
    assert found[0] == found[2]
    assert found[1].error is not None
    assert found[1].error.startswith("aborted at ggml-impl.h:")


def test_placements_reach_llama_cpp_in_dry_and_real_loads(tiny_models: dict[str, Path]) -> None:
    placed = replace(SPLIT, num_cpu_experts=1, gpu_shares=(3.0, 1.0))
    path = tiny_models["mixtral"]
    assert dry_run(gguf.read(path), [placed]) == real_run(path, [placed])
