"""The fastest settings for a model on this CPU: measured at its first load, then remembered."""

import logging
from collections.abc import Callable
from pathlib import Path
from threading import Event

from msgspec.structs import replace

from innkeeper.core import EngineConfig
from innkeeper.errors import BusyError, ModelFileError, NotEnoughMemoryError, NotFoundError
from innkeeper.formats import gguf
from innkeeper.formats.gguf_header import GgufHeader
from innkeeper.planner.hardware import Hardware, idle_cores
from innkeeper.planner.tune import (
    MIN_WEIGHTS_BYTES,
    SEARCH_SECONDS,
    CpuSettings,
    NotMeasured,
    Tuned,
    remember,
    remembered,
    tune,
)

logger = logging.getLogger(__name__)

Measure = Callable[[GgufHeader, Hardware, Event], Tuned | None]
Progress = Callable[[float, str], None]

_MIN_IDLE = 0.6
"""Share of the usable cores that must be idle: what is measured beside other programs is noisy."""


def _measure(header: GgufHeader, hardware: Hardware, stop: Event) -> Tuned | None:
    """The search, unless other programs keep the CPU busy: then a later load does it."""
    if idle_cores() < _MIN_IDLE * hardware.num_usable_cores:
        logger.info("the CPU is busy: the usual settings are taken, and nothing is measured")
        return None
    return tune(header, hardware, stop=stop)


class Tuning:
    """Chooses what a load leaves open. cache: the JSON file of what was measured before."""

    def __init__(self, cache: Path, measure: Measure = _measure) -> None:
        self._cache = cache
        self._measure = measure

    def __call__(
        self, config: EngineConfig, hardware: Hardware, progress: Progress, stop: Event
    ) -> EngineConfig:
        """``config`` with the fastest settings, and a note if they differ from the default or could
        not be measured.

        Measures (some ten seconds, less once ``stop`` is set) if this kind of model is new here and
        large enough for that to pay; a failure is remembered, too. Never raises for a model that
        cannot be measured.
        """
        on_gpu = hardware.usable_gpus and config.num_gpu_layers != 0
        if config.backend != "llama_cpp" or config.pooling not in ("", "auto", "none") or on_gpu:
            return config
        try:
            header = gguf.read_model(Path(config.path)).header
            found = self._found(header, hardware, progress, stop)
        except (ModelFileError, NotFoundError):
            return config  # cannot be cut down, or the load will say why
        if isinstance(found, NotMeasured):
            note = f"the fastest settings are not known: {found.reason}; innkeeper tune tries again"
            return replace(config, notes=(*config.notes, note))
        if found is not None:
            found = found.only(lambda settings: _agrees(config, hardware, settings))
        return config if found is None else _applied(config, found)

    def _found(
        self, header: GgufHeader, hardware: Hardware, progress: Progress, stop: Event
    ) -> Tuned | NotMeasured | None:
        if header.tensor_bytes < MIN_WEIGHTS_BYTES or header.pooling:
            return None
        found = remembered(self._cache, header, hardware)
        if found is not None:
            return found
        progress(0.0, f"measuring settings, once ({SEARCH_SECONDS:.0f} s)")
        try:
            found = self._measure(header, hardware, stop)
        except (BusyError, NotEnoughMemoryError) as error:
            found = NotMeasured(error.message)
        if found is not None:
            remember(self._cache, header, hardware, found)
        return found


def known(cache: Path, config: EngineConfig, hardware: Hardware) -> EngineConfig:
    """``config`` as ``Tuning`` would change it by what was measured before; nothing is measured."""
    tuning = Tuning(cache, lambda header, hardware, stop: None)
    return tuning(config, hardware, lambda fraction, stage: None, Event())


def _agrees(config: EngineConfig, hardware: Hardware, settings: CpuSettings) -> bool:
    """Whether what the user set by hand is left as it is."""
    default = CpuSettings(num_threads=hardware.num_usable_cores)
    return (
        (not config.max_ubatch or settings.max_ubatch == default.max_ubatch)
        and (config.flash_attention is None or not settings.flash_attention)
        and (not config.num_threads or settings.num_threads == default.num_threads)
    )


def _applied(config: EngineConfig, tuned: Tuned) -> EngineConfig:
    best = tuned.best.settings
    if best == tuned.timings[0].settings:
        return config
    note = f"measured here: {best}; a chat takes {1 / tuned.gain:.0%} of the usual settings' time"
    logger.info("%s: %s", config.name, note)
    return replace(
        config,
        repack=best.repack,
        max_ubatch=config.max_ubatch or best.max_ubatch,
        flash_attention=best.flash_attention or config.flash_attention,
        max_threads=best.num_threads,
        notes=(*config.notes, note),
    )
