"""Chooses context, pool, KV type, batch and GPU layers for one model on this machine."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from innkeeper.core.shifting import FULL_KV_TYPES
from innkeeper.errors import NotEnoughMemoryError
from innkeeper.formats.gguf_header import GgufHeader
from innkeeper.planner.candidates import ALL_LAYERS, AUTO_CTX, NO_GPU, Candidate, Candidates
from innkeeper.planner.estimate import ContextSettings, MemoryEstimate, estimate
from innkeeper.planner.hardware import Hardware
from innkeeper.planner.shape import ModelShape, read_shape
from innkeeper.planner.speed import bytes_per_token, tokens_per_second
from innkeeper.planner.wishes import Wishes
from innkeeper.units import MIB, format_bytes

RESERVE_RAM_BYTES = 512 * MIB
"""Left to everything else on the machine, and to what grows later."""
RESERVE_GPU_BYTES = 768 * MIB
"""Per GPU: the driver's context, kernels and pools, which no report counts."""
_GPU_EFFICIENCY = 0.6

Verify = Callable[[GgufHeader, ContextSettings], MemoryEstimate]


@dataclass(frozen=True)
class Plan:
    """The settings to load with, in ``EngineConfig``'s names, and why."""

    num_ctx: int
    num_pool: int
    kv_type_k: str
    kv_type_v: str
    swa_full: bool
    num_gpu_layers: int
    flash_attention: bool
    max_ubatch: int
    num_cpu_experts: int
    tensor_split: tuple[float, ...]
    """Empty where there is nothing to divide."""
    fits: bool
    estimate: MemoryEstimate
    needed_bytes: int
    """RAM that must be there for the model to run without reading its file again and again."""
    available_bytes: int
    """RAM it may use."""
    available_gpus: tuple[int, ...]
    """Bytes that may be used of each GPU."""
    tokens_per_second: float
    """Expected for one reply, from bytes per token and memory speed; a first guess."""
    reasons: tuple[str, ...]
    """Plain sentences."""
    notes: tuple[str, ...] = ()
    """Those of the reasons that somebody who loads the model wants to know."""
    refusal: str | None = None
    """Why llama.cpp refuses these settings, though they would fit."""

    def error(self) -> NotEnoughMemoryError:
        """What to raise if it does not fit."""
        short = self.needed_bytes - self.available_bytes
        if short > 0:
            return NotEnoughMemoryError(
                f"the model needs {format_bytes(self.needed_bytes)} at {self.num_ctx:,} tokens of "
                f"context; {format_bytes(self.available_bytes)} can be had, "
                f"{format_bytes(short)} too little",
                field="model",
                hint="close other programs, or choose a smaller model or quantization",
            )
        if (error := self.gpu_error()) is not None:
            return error
        return NotEnoughMemoryError(
            self.refusal or "the model does not fit", hint="change --ctx or --kv-type"
        )

    def gpu_error(self) -> NotEnoughMemoryError | None:
        """What to raise if a GPU is too small for it."""
        over = _fullest(self.estimate, self.available_gpus)
        if over is None:
            return None
        needed, there, name = over
        return NotEnoughMemoryError(
            f"that many layers need {format_bytes(needed)} on {name}; "
            f"{format_bytes(there)} can be had there",
            field="gpu_layers",
            hint="choose fewer --gpu-layers, or auto",
        )


def plan(
    header: GgufHeader, hardware: Hardware, wishes: Wishes, *, verify: Verify | None = None
) -> Plan:
    """The best settings that fit, or the smallest ones with ``fits`` false.

    ``verify`` (``planner.verify.verify``) has the last word on each candidate that seems to fit.
    Raises: UnsupportedModelError, CorruptModelError, InvalidRequestError for a wish that this
    machine cannot fulfil.
    """
    return _Planner(header, hardware, wishes, verify).best()


class _Planner:
    def __init__(
        self, header: GgufHeader, hardware: Hardware, wishes: Wishes, verify: Verify | None
    ) -> None:
        self.header = header
        self.hardware = hardware
        self.wishes = wishes
        self.verify = verify
        self.shape = read_shape(header)
        self.num_ctx_good = self.shape.num_ctx_with(wishes.rope)
        self.ram_bytes = max(
            0, hardware.available_ram_bytes + wishes.freed_bytes - RESERVE_RAM_BYTES
        )
        gpus = hardware.usable_gpus
        freed = wishes.freed_gpu_bytes // max(1, len(gpus))
        usable = (gpu.free_bytes - RESERVE_GPU_BYTES + freed for gpu in gpus)
        self.gpu_bytes = tuple(max(0, size) for size in usable)
        self.candidates = Candidates(self.shape, wishes, hardware, self.gpu_bytes)

    def best(self) -> Plan:
        smallest: Plan | None = None
        for candidate in self.candidates:
            found = self._tried(candidate)
            if found.fits:
                return self._with_room_used(found, candidate)
            if smallest is None or found.needed_bytes < smallest.needed_bytes:
                smallest = found
        assert smallest is not None
        return replace(smallest, reasons=(smallest.error().message, smallest.reasons[0]))

    def _with_room_used(self, chosen: Plan, candidate: Candidate) -> Plan:
        """Larger settings that serve chats better, where a quarter of the memory is left then."""
        for enlarge in (self.candidates.with_full_windows, self.candidates.with_larger_pool):
            larger = enlarge(candidate)
            if larger is None:
                continue
            found = self._tried(larger)
            if found.fits and self.ram_bytes - found.needed_bytes > self.ram_bytes // 4:
                chosen, candidate = found, larger
        return chosen

    def _tried(self, candidate: Candidate) -> Plan:
        """Judged by our estimate, then by llama.cpp's own numbers; what it refuses does not fit."""
        found = self._judge(candidate, estimate(self.header, candidate.settings, self.shape))
        if self.verify is None or not found.fits:
            return found
        try:
            return self._judge(candidate, self.verify(self.header, candidate.settings))
        except NotEnoughMemoryError as error:
            return replace(found, fits=False, refusal=error.message)

    def _judge(self, candidate: Candidate, found: MemoryEstimate) -> Plan:
        settings = candidate.settings
        fits = found.resident_bytes <= self.ram_bytes
        fits = fits and _fullest(found, self.gpu_bytes) is None
        return Plan(
            num_ctx=candidate.num_ctx,
            num_pool=settings.num_pool,
            kv_type_k=settings.kv_type_k,
            kv_type_v=settings.kv_type_v,
            swa_full=settings.swa_full,
            num_gpu_layers=settings.num_gpu_layers,
            flash_attention=settings.flash_attention,
            max_ubatch=settings.max_ubatch,
            num_cpu_experts=settings.num_cpu_experts,
            tensor_split=settings.gpu_shares if len(settings.gpu_shares) > 1 else (),
            fits=fits,
            estimate=found,
            needed_bytes=found.resident_bytes,
            available_bytes=self.ram_bytes,
            available_gpus=self.gpu_bytes,
            tokens_per_second=self._speed(settings),
            reasons=tuple(self._reasons(candidate, found)),
            notes=tuple(self._notes(candidate)),
        )

    def _speed(self, settings: ContextSettings) -> float:
        placement = settings.placement(self.shape.num_layers)
        read = bytes_per_token(self.header, self.shape, placement)
        gpu_bandwidth = min((gpu.bandwidth for gpu in self.hardware.gpus), default=0.0)
        return tokens_per_second(
            read.ram, read.gpu, self.hardware.memory_bandwidth, gpu_bandwidth * _GPU_EFFICIENCY
        )

    def _reasons(self, candidate: Candidate, found: MemoryEstimate) -> Iterator[str]:
        yield (
            f"weights {format_bytes(found.weights_bytes)}, context "
            f"{format_bytes(found.context_bytes)}, buffers {format_bytes(found.buffer_bytes)}"
        )
        if not self.num_ctx_good:
            yield "the header does not say for what context the model was trained"
        elif candidate.num_ctx > self.num_ctx_good:
            yield (
                f"the context of {candidate.num_ctx:,} tokens is longer than the "
                f"{self.num_ctx_good:,} the model was trained for"
            )
        yield from self._notes(candidate)
        if not found.is_exact:
            yield "the estimate is approximate for this model; a dry run makes it exact"

    def _notes(self, candidate: Candidate) -> Iterator[str]:
        settings, good = candidate.settings, self.num_ctx_good
        if candidate.num_ctx < min(good, AUTO_CTX) and not self.wishes.num_ctx:
            yield (
                f"the context is {candidate.num_ctx:,} of {good:,} tokens, "
                "since more does not fit in memory"
            )
        if settings.kv_type_k != "f16" and self.wishes.kv_type_k is None:
            yield f"the cache is kept as {settings.kv_type_k} to make room for a longer context"
        could_keep = self.shape.keeps_windows(swa_full=True)
        if could_keep and not settings.swa_full and settings.kv_type_k in FULL_KV_TYPES:
            yield (
                "sliding-window layers keep their window only, so what follows an edit of a prompt "
                "is read again; --swa-full yes keeps all, in more memory"
            )
        if settings.num_cpu_experts and not self.shape.num_experts:
            yield "this model has no experts, so --moe-cpu changes nothing"
        if self.hardware.gpu_problem:
            yield self.hardware.gpu_problem
        else:
            yield from _gpu_reasons(settings, self.hardware, self.shape)


def _fullest(found: MemoryEstimate, available: tuple[int, ...]) -> tuple[int, int, str] | None:
    """(needed, there, name) of a GPU that is too small for what it would get, if there is one."""
    there = [*available, *[0] * len(found.gpus)]
    for index, gpu in enumerate(found.gpus):
        if gpu.total_bytes > there[index]:
            name = "the GPU" if len(found.gpus) == 1 else f"GPU {index}"
            return gpu.total_bytes, there[index], name
    return None


def _gpu_reasons(settings: ContextSettings, hardware: Hardware, shape: ModelShape) -> Iterator[str]:
    layers, experts = settings.num_gpu_layers, settings.num_cpu_experts
    if not hardware.gpus:
        return
    if layers == NO_GPU:
        yield "nothing of it fits on the GPU"
    elif layers == ALL_LAYERS and not experts:
        yield f"all of it runs on the GPU ({hardware.gpus[0].name})"
    elif layers == ALL_LAYERS:
        yield (
            f"all of it runs on the GPU but the experts of {min(experts, shape.num_layers)} of "
            f"{shape.num_layers} layers, which stay in RAM"
        )
    else:
        yield f"{layers} of {shape.num_layers + 1} layers run on the GPU; more do not fit there"
