"""What flags and settings ask of the planner: the same for ``fit``, ``pull`` and ``up``."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from innkeeper.config import Settings
    from innkeeper.planner.plan import Wishes

PLANNED = (
    *("ctx", "pool", "parallel", "gpu_layers", "kv_type", "tensor_split", "moe_cpu"),
    *("rope_scaling", "rope_scale", "mlock", "no_mmap"),
)
"""The settings that decide what fits."""


def wishes(settings: "Settings") -> "Wishes":
    """What a load with ``settings`` would ask for. Raises: SettingsError."""
    from pathlib import Path

    from innkeeper.app import Home
    from innkeeper.app.engines import engine_defaults
    from innkeeper.serving.fit import wishes_of

    assert settings.home is not None
    defaults = engine_defaults(settings, Home(settings.home))
    return wishes_of(defaults.config(Path("model.gguf"), "model", None))
