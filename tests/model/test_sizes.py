"""What a load leaves open is chosen from the model's header and this computer's memory."""

from dataclasses import replace
from pathlib import Path

from msgspec import structs

from innkeeper.core import EngineConfig
from innkeeper.planner.hardware import probe
from innkeeper.serving import EngineDefaults
from innkeeper.serving.fit import Need, choose_sizes
from innkeeper.units import GIB, MIB

ROOMY = replace(probe(), available_ram_bytes=8 * GIB, gpus=())
TIGHT = replace(ROOMY, available_ram_bytes=580 * MIB)


def config(path: Path, **fields: int) -> EngineConfig:
    return EngineDefaults(**fields).config(path, path.stem, None)  # type: ignore[arg-type]


def test_auto_takes_the_trained_context_and_room_for_a_second_chat(tiny_llama: Path) -> None:
    chosen = choose_sizes(config(tiny_llama), Need(), ROOMY)
    assert (chosen.num_ctx, chosen.num_pool) == (2048, 4096)


def test_auto_takes_less_where_memory_is_short(tiny_llama: Path) -> None:
    chosen = choose_sizes(config(tiny_llama), Need(), TIGHT)
    assert chosen.num_ctx <= 2048
    assert chosen.num_pool == chosen.num_ctx


def test_what_was_asked_for_stays(tiny_llama: Path) -> None:
    sizes = {"num_ctx": 512, "num_pool": 700, "num_gpu_layers": 0, "num_cpu_experts": 0}
    asked = config(tiny_llama, **sizes, swa_full=False)
    asked = structs.replace(asked, kv_type_k="q8_0", kv_type_v="f16", pooling="")
    assert choose_sizes(asked, Need(), TIGHT) == asked


def test_a_fake_model_gets_the_default() -> None:
    fake = EngineDefaults(backend="fake").config(Path("none"), "fake", None)
    chosen = choose_sizes(fake, Need(), ROOMY)
    assert chosen.num_ctx == chosen.num_pool == 8192
