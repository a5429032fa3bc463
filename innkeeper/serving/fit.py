"""Whether a model may be loaded: a sound header, and memory for what it needs."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from innkeeper.core import EngineConfig, num_outputs
from innkeeper.core.shifting import FULL_KV_TYPES
from innkeeper.errors import EngineLoadError, NotEnoughMemoryError, UnsupportedModelError
from innkeeper.formats import gguf
from innkeeper.formats.ggml_types import TYPES_BY_NAME
from innkeeper.planner.candidates import COMFORTABLE_CTX
from innkeeper.planner.estimate import ContextSettings, MemoryEstimate, estimate
from innkeeper.planner.hardware import Hardware, probe
from innkeeper.planner.plan import plan
from innkeeper.planner.shape import ModelShape, read_shape
from innkeeper.planner.verify import verify_guess
from innkeeper.planner.wishes import Wishes
from innkeeper.units import GIB, format_bytes

logger = logging.getLogger(__name__)

AUTO = "auto"
"""Of KV types: f16, or a smaller one where that makes room for a comfortable context."""
_CPU_UBATCH, _GPU_UBATCH = 128, 512
_EMBEDDING_CTX = 2048
_MAX_RAM_CACHE = 4 * GIB
_DEFAULT_CTX = 8192
"""Where nothing is known of a model's memory."""


class Need(Struct, frozen=True):
    """Memory that an engine will take. Zeros if nobody can tell."""

    ram_bytes: int = 0
    """Anonymous memory: without it loading fails or something is killed."""
    weights_bytes: int = 0
    """Mapped from the file beside that: without it every token reads the disk."""

    def __add__(self, other: "Need") -> "Need":
        return Need(self.ram_bytes + other.ram_bytes, self.weights_bytes + other.weights_bytes)


CheckModel = Callable[[EngineConfig], Need]


class Room(Struct, frozen=True):
    """How a model gets its memory."""

    config: EngineConfig
    """With sizes chosen."""
    need: Need
    leaving: tuple[str, ...]
    """Loaded models that end for it."""
    may_overlap: bool
    """Whether memory holds it beside them, too."""


def check_model(config: EngineConfig, hardware: Callable[[], Hardware] = probe) -> Need:
    """Reads the headers of the model and its draft model, which llama.cpp must not see unless they
    are sound, and adds up.

    Raises: ModelFileError, NotFoundError, EngineLoadError for a bad KV type.
    """
    if config.backend != "llama_cpp":
        return Need()
    machine = hardware()
    need = Need(sum(_lora_bytes(Path(each.path)) for each in config.loras))
    for each in (config, config.draft_config()):
        found = _estimate(each, machine) if each is not None else None
        if found is not None:
            need += Need(found.total_bytes, found.resident_bytes - found.total_bytes)
    return need


def _estimate(config: EngineConfig, hardware: Hardware) -> MemoryEstimate | None:
    """None where llama.cpp may know more architectures than our formulas."""
    header = gguf.read_model(Path(config.path)).header
    for kv_type in (config.kv_type_k, config.kv_type_v):
        if kv_type not in TYPES_BY_NAME:
            raise EngineLoadError(f"there is no KV type {kv_type!r}", field="kv_type")
    try:
        return estimate(header, _settings(config, hardware, read_shape(header)))
    except UnsupportedModelError:
        return None


def _beside_draft(wishes: Wishes, config: EngineConfig, hardware: Hardware) -> Wishes:
    """``wishes`` without the memory that the draft model takes."""
    draft = config.draft_config()
    found = _estimate(draft, hardware) if draft is not None else None
    if found is None:
        return wishes
    return dataclasses.replace(
        wishes,
        freed_bytes=wishes.freed_bytes - found.resident_bytes,
        freed_gpu_bytes=wishes.freed_gpu_bytes - sum(gpu.total_bytes for gpu in found.gpus),
    )


def _lora_bytes(path: Path) -> int:
    """What an adapter takes: its file. Raises: ModelFileError, NotFoundError, EngineLoadError."""
    if gguf.read(path).metadata.get("general.type") != "adapter":
        raise EngineLoadError(
            f"{path.name} is no LoRA adapter",
            field="lora",
            hint="--lora wants a GGUF made by convert_lora_to_gguf.py",
        )
    return path.stat().st_size


def choose_sizes(config: EngineConfig, freed: Need, hardware: Hardware) -> EngineConfig:
    """``config`` with what it leaves open (context and pool 0, all layers) chosen by what fits.

    ``freed``: what the engine that it replaces gives back. Raises: as ``check_model``.
    """
    config = _with_pooling(config)
    if config.pooling or config.backend != "llama_cpp":
        return _unplanned(config)
    try:
        header = gguf.read_model(Path(config.path)).header
        wishes = _beside_draft(wishes_of(config, freed), config, hardware)
        chosen = plan(header, hardware, wishes, verify=verify_guess)
    except UnsupportedModelError:  # llama.cpp may know more architectures than our formulas
        return _unplanned(config)
    if (error := chosen.gpu_error()) is not None:
        raise error
    logger.info("%s: %s", config.name, "; ".join(chosen.reasons))
    return replace(
        config,
        num_ctx=chosen.num_ctx,
        num_pool=chosen.num_pool,
        kv_type_k=chosen.kv_type_k,
        kv_type_v=chosen.kv_type_v,
        swa_full=chosen.swa_full,
        num_gpu_layers=chosen.num_gpu_layers,
        num_cpu_experts=chosen.num_cpu_experts,
        tensor_split=chosen.tensor_split,
        notes=(*config.notes, *chosen.notes),
    )


def wishes_of(config: EngineConfig, freed: Need | None = None) -> Wishes:
    """What ``config`` asks the planner for; ``freed`` is given back by engines that end first."""
    return Wishes(
        num_ctx=config.num_ctx or None,
        num_pool=config.num_pool or None,
        max_sequences=config.max_sequences,
        max_kept=config.max_kept,
        kv_type_k=None if config.kv_type_k == AUTO else config.kv_type_k,
        kv_type_v=None if config.kv_type_v == AUTO else config.kv_type_v,
        swa_full=config.swa_full,
        num_gpu_layers=None if config.num_gpu_layers < 0 else config.num_gpu_layers,
        num_cpu_experts=None if config.num_cpu_experts < 0 else config.num_cpu_experts,
        tensor_split=config.tensor_split,
        rope=config.rope,
        flash_attention=config.flash_attention,
        max_ubatch=config.max_ubatch or None,
        repack=config.repack,
        mmap=config.mmap,
        mlock=config.mlock,
        freed_bytes=freed.ram_bytes if freed else 0,
    )


def _unplanned(config: EngineConfig) -> EngineConfig:
    """What is open as it is usual."""
    num_ctx = config.num_ctx or _DEFAULT_CTX
    return replace(
        config,
        num_ctx=num_ctx,
        num_pool=config.num_pool or num_ctx,
        kv_type_k="f16" if config.kv_type_k == AUTO else config.kv_type_k,
        kv_type_v="f16" if config.kv_type_v == AUTO else config.kv_type_v,
        num_cpu_experts=max(0, config.num_cpu_experts),
    )


def _with_pooling(config: EngineConfig) -> EngineConfig:
    """``config`` with "auto" resolved, and the sizes of a model that makes vectors: it keeps no
    chat, and a context beyond what texts need costs memory with its square."""
    if config.backend != "llama_cpp":
        pooling = "" if config.pooling in ("auto", "none") else config.pooling
        return replace(config, pooling=pooling)
    header = gguf.read_model(Path(config.path)).header
    pooling = header.pooling if config.pooling == "auto" else config.pooling
    if pooling in ("", "none"):
        return replace(config, pooling="")
    trained = header.hparam("context_length")
    limit = trained if isinstance(trained, int) else _EMBEDDING_CTX
    num_ctx = min(config.num_ctx or _EMBEDDING_CTX, limit)
    return replace(config, pooling=pooling, num_ctx=num_ctx, num_pool=num_ctx)


def make_room(
    config: EngineConfig,
    hardware: Hardware,
    *,
    loaded: Mapping[str, Need],
    going: Sequence[str],
    may_go: Sequence[str],
    max_loaded: int,
    check: CheckModel = check_model,
) -> Room:
    """Decides which loaded models end for ``config``: as few as memory allows.

    loaded: what each one takes. going: those that end anyway. may_go: those that may, the first one
    first. max_loaded: 0 = no limit. Raises: as ``check_model``; NotEnoughMemoryError.
    """
    leaving, rest = list(going), list(may_go)
    everything = _total(loaded, [*leaving, *rest])
    wanted_ctx = min(choose_sizes(config, everything, hardware).num_ctx, COMFORTABLE_CTX)
    while True:
        freed = _total(loaded, leaving)
        staying = _total(loaded, [name for name in loaded if name not in leaving])
        sized = choose_sizes(config, freed, hardware)
        need = check(sized)
        num_loaded = len(loaded) - len(leaving) + 1
        is_good = (
            (not max_loaded or num_loaded <= max_loaded)
            and sized.num_ctx >= wanted_ctx
            and _fits(need, freed, staying, hardware)
        )
        if is_good or not rest:
            break
        leaving.append(rest.pop(0))
    refuse_too_big(need, freed, staying, hardware, sized)
    sized = choose_ram_cache(sized, need, freed, staying, hardware)
    may_overlap = _fits(need, Need(), _total(loaded, list(loaded)), hardware)
    return Room(sized, need, tuple(leaving), may_overlap)


def _total(needs: Mapping[str, Need], names: Sequence[str]) -> Need:
    return sum((needs[name] for name in names), Need())


def _fits(need: Need, freed: Need, staying: Need, hardware: Hardware) -> bool:
    """Weights of what stays lie in the file cache, which counts as available."""
    available = hardware.available_ram_bytes + freed.ram_bytes - staying.weights_bytes
    if hardware.limit_bytes is not None:
        available = min(available, hardware.limit_bytes)
    return need.ram_bytes + need.weights_bytes <= available


def choose_ram_cache(
    config: EngineConfig, need: Need, freed: Need, staying: Need, hardware: Hardware
) -> EngineConfig:
    """``config`` with memory for idle chats, where that is left open: a share of what is left."""
    if config.ram_cache_bytes >= 0:
        return config
    taken = need.ram_bytes + need.weights_bytes + staying.weights_bytes
    left = hardware.available_ram_bytes + freed.ram_bytes - taken
    return replace(config, ram_cache_bytes=min(_MAX_RAM_CACHE, max(0, left // 8)))


def refuse_too_big(
    need: Need, freed: Need, staying: Need, hardware: Hardware, config: EngineConfig
) -> None:
    """``freed``: what engines that end give back; ``staying``: what the others hold.

    Raises: NotEnoughMemoryError.
    """
    total = min(hardware.total_ram_bytes, hardware.limit_bytes or hardware.total_ram_bytes)
    available = min(total, hardware.available_ram_bytes + freed.ram_bytes)
    needed, there, word = need.ram_bytes, available, "free"
    if needed <= available:
        there = total - staying.ram_bytes - staying.weights_bytes
        needed, word = need.ram_bytes + need.weights_bytes, "in this computer"
        word = word if there == total else f"{word} beside the pinned models"
    if needed > there:
        raise NotEnoughMemoryError(
            f"{config.name} with a context of {config.num_ctx} tokens needs"
            f" {format_bytes(needed)} of memory; {format_bytes(there)} is {word}",
            hint="take a smaller --ctx, --kv-type q8_0, or a smaller quantization",
        )


def _settings(config: EngineConfig, hardware: Hardware, shape: ModelShape) -> ContextSettings:
    """As the backend sets up its context."""
    on_gpu = bool(hardware.usable_gpus) and config.num_gpu_layers != 0
    swa_full = bool(config.swa_full) and config.kv_type_k in FULL_KV_TYPES
    keeps_windows = shape.keeps_windows(swa_full=swa_full)
    num_sequences = config.num_sequence_ids(
        can_edit=shape.can_edit(swa_full=swa_full), keeps_windows=keeps_windows
    )
    ubatch = config.max_ubatch or (_GPU_UBATCH if on_gpu else _CPU_UBATCH)
    flash = config.flash_attention
    if flash is None:
        flash = on_gpu or TYPES_BY_NAME[config.kv_type_v].block_size > 1
    return ContextSettings(
        num_pool=config.num_pool,
        max_sequences=num_sequences,
        kv_type_k=config.kv_type_k,
        kv_type_v=config.kv_type_v,
        max_batch=ubatch,
        max_ubatch=ubatch,
        num_outputs=num_outputs(num_sequences, ubatch),
        flash_attention=flash,
        swa_full=keeps_windows,
        num_gpu_layers=config.num_gpu_layers if on_gpu else 0,
        num_cpu_experts=config.num_cpu_experts,
        gpu_shares=config.tensor_split or (1.0,),
        mmap=config.mmap,
        mlock=config.mlock,
        repack_types=hardware.repack_types if config.repack and not on_gpu else frozenset(),
    )
