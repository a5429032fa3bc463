"""What flags and settings ask of the planner: the same for ``fit``, ``pull`` and ``up``."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from innkeeper.config import Settings
    from innkeeper.planner.hardware import Hardware
    from innkeeper.planner.wishes import Wishes

PLANNED = (
    *("ctx", "pool", "parallel", "gpu_layers", "kv_type", "tensor_split", "moe_cpu"),
    *("rope_scaling", "rope_scale", "mlock", "no_mmap", "swa_full"),
)
"""The settings that decide what fits."""


def wishes(
    settings: "Settings", model: Path | None = None, hardware: "Hardware | None" = None
) -> "Wishes":
    """What a load with ``settings`` would ask for; of ``model`` on ``hardware``, with what was
    measured to be fastest there. Raises: SettingsError."""
    from innkeeper.app import Home
    from innkeeper.app.engines import engine_defaults
    from innkeeper.serving.fit import wishes_of
    from innkeeper.serving.tuning import known

    assert settings.home is not None
    home = Home(settings.home)
    config = engine_defaults(settings, home).config(model or Path("model.gguf"), "model", None)
    if model is not None and hardware is not None and not settings.no_tune:
        config = known(home.tuning, config, hardware)
    return wishes_of(config)
