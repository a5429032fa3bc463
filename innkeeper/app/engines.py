"""From settings to what engines are started with; quick to import."""

from pathlib import Path

from innkeeper.app.home import Home
from innkeeper.app.model import find_model
from innkeeper.config import OPEN_SWITCH, Settings
from innkeeper.core import LoraAdapter, RopeScaling
from innkeeper.serving import EngineDefaults


def engine_defaults(settings: Settings, home: Home) -> EngineDefaults:
    """What every engine gets, unless its load says otherwise.

    Raises: as ``find_model``, for the draft model.
    """
    return EngineDefaults(
        backend=settings.backend,
        num_ctx=settings.ctx,
        num_pool=settings.pool,
        max_sequences=settings.parallel,
        num_gpu_layers=settings.gpu_layers,
        kv_type_k=settings.kv_type,
        kv_type_v=settings.kv_type,
        swa_full=OPEN_SWITCH[settings.swa_full],
        num_threads=settings.threads,
        pooling=settings.pooling,
        num_cpu_experts=settings.moe_cpu,
        tensor_split=tuple(map(float, settings.tensor_split)),
        rope=RopeScaling.of(settings.rope_scaling, settings.rope_scale),
        mmap=not settings.no_mmap,
        mlock=settings.mlock,
        kv_reuse=settings.kv_reuse,
        idle_refresh=not settings.no_idle_refresh,
        cache_folder=str(home.cache),
        disk_cache_bytes=settings.disk_cache,
        ram_cache_bytes=settings.ram_cache,
        loras=tuple(_lora(each) for each in settings.lora),
        draft_path=_draft_path(settings, home),
        options=_options(settings),
    )


def _draft_path(settings: Settings, home: Home) -> str:
    """Raises: as ``find_model``."""
    return str(find_model(home, settings.draft_model)) if settings.draft_model else ""


def _lora(text: str) -> LoraAdapter:
    """``FILE`` or ``FILE:SCALE``."""
    path, _, scale = text.rpartition(":")
    try:
        found = LoraAdapter(path, float(scale))
    except ValueError:  # no scale; a colon may be the path's own
        found = LoraAdapter(text)
    return LoraAdapter(str(Path(found.path).expanduser()), found.scale)


def _options(settings: Settings) -> dict[str, str]:
    pairs = (option.partition("=") for option in settings.backend_options)
    return {name: value for name, _, value in pairs}
