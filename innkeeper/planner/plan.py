"""Chooses context, pool, KV type, batch and GPU layers for one model on this machine."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from innkeeper.core import RopeScaling, num_sequence_ids
from innkeeper.core.shifting import FULL_KV_TYPES
from innkeeper.errors import InvalidRequestError, NotEnoughMemoryError
from innkeeper.formats.gguf_header import GgufHeader
from innkeeper.planner.estimate import ContextSettings, MemoryEstimate, estimate
from innkeeper.planner.hardware import Hardware
from innkeeper.planner.shape import ModelShape, read_shape
from innkeeper.planner.speed import bytes_per_token, tokens_per_second
from innkeeper.units import MIB, format_bytes

AUTO_CTX = 32_768
"""``auto`` goes no further: more is rarely used, and every chat pays for it."""
COMFORTABLE_CTX = 8_192
"""Below this, smaller KV types are tried first."""
RESERVE_RAM_BYTES = 512 * MIB
"""Left to everything else on the machine, and to what grows later."""
RESERVE_GPU_BYTES = 768 * MIB
"""Per GPU: the driver's context, kernels and pools, which no report counts."""
_LADDER = (32_768, 24_576, 16_384, 12_288, 8_192, 6_144, 4_096, 3_072, 2_048, 1_024, 512)
_GPU_EFFICIENCY = 0.6
_NO_GPU, _ALL_LAYERS = 0, -1

Verify = Callable[[GgufHeader, ContextSettings], MemoryEstimate]


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user asked for; None = choose."""

    num_ctx: int | None = None
    num_pool: int | None = None
    max_sequences: int = 4
    max_kept: int = 4
    num_ids: int | None = None
    """llama.cpp's own ``n_seq_max`` instead of what follows from the two above."""
    kv_type_k: str | None = None
    kv_type_v: str | None = None
    swa_full: bool | None = None
    """Whether sliding-window layers keep all tokens; None = where there is room to spare."""
    num_gpu_layers: int | None = None
    flash_attention: bool | None = None
    max_batch: int | None = None
    """None = one micro-batch."""
    max_ubatch: int | None = None
    num_outputs: int | None = None
    """None = one per sequence; 0 = every row of a batch."""
    kv_unified: bool = True
    repack: bool = True
    mmap: bool = True
    mlock: bool = False
    tensor_split: tuple[float, ...] = ()
    """Share of each GPU; empty = by what is free on it."""
    num_cpu_experts: int | None = None
    """Blocks whose experts stay in RAM."""
    rope: RopeScaling | None = None
    """Another scaling of positions than the model's own."""
    freed_bytes: int = 0
    """RAM that a model unloaded first gives back."""
    freed_gpu_bytes: int = 0

    def num_sequence_ids(self, shape: ModelShape, *, swa_full: bool) -> int:
        """llama.cpp's ``n_seq_max``, as ``EngineConfig.num_sequence_ids`` counts it."""
        if self.num_ids is not None:
            return self.num_ids
        return num_sequence_ids(
            self.max_sequences,
            self.max_kept,
            can_edit=shape.can_edit(swa_full=swa_full),
            keeps_windows=shape.keeps_windows(swa_full=swa_full),
        )


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


@dataclass(frozen=True)
class _Candidate:
    num_ctx: int
    settings: ContextSettings


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
        self.gpu_shares = _shares(self.gpu_bytes, wishes.tensor_split)

    def best(self) -> Plan:
        smallest: Plan | None = None
        for candidate in self._candidates():
            found = self._judge(candidate, estimate(self.header, candidate.settings))
            if found.fits:
                found = self._verified(candidate, found)
            if found.fits:
                return self._with_larger_pool(*self._with_full_windows(found, candidate))
            if smallest is None or found.needed_bytes < smallest.needed_bytes:
                smallest = found
        assert smallest is not None
        return replace(smallest, reasons=(smallest.error().message, smallest.reasons[0]))

    def _verified(self, candidate: _Candidate, found: Plan) -> Plan:
        """With llama.cpp's own numbers; what it refuses does not fit."""
        if self.verify is None:
            return found
        try:
            return self._judge(candidate, self.verify(self.header, candidate.settings))
        except NotEnoughMemoryError as error:
            return replace(found, fits=False, refusal=error.message)

    def _candidates(self) -> Iterator[_Candidate]:
        """Settings from the most to the least wished for."""
        for layers, experts in self._gpu_choices():
            for num_ctx, kv_types in self._context_choices(layers):
                yield _Candidate(num_ctx, self._settings(num_ctx, kv_types, layers, experts))

    def _gpu_choices(self) -> Iterator[tuple[int, int]]:
        """(layers on the GPU, blocks whose experts are not), from the most to the least there.

        Experts leave first: they are most of a model, and few of them are read for a token.
        """
        layers, experts = self.wishes.num_gpu_layers, self.wishes.num_cpu_experts
        if layers is None and not any(self.gpu_bytes):
            layers = _NO_GPU
        count = self.shape.num_layers
        if layers is not None:
            yield _ALL_LAYERS if layers > count else layers, experts or 0
            return
        in_ram = [experts] if experts is not None else [0]
        if experts is None and self.shape.num_experts:
            in_ram = list(range(count + 1))
        yield from ((_ALL_LAYERS, num) for num in in_ram)
        yield from ((layers, in_ram[-1]) for layers in range(count, 0, -1))
        yield _NO_GPU, 0

    def _context_choices(self, layers: int) -> list[tuple[int, tuple[str, str]]]:
        """Context lengths and KV types, best first.

        Partial offload asks for a comfortable context only: layers on the GPU are worth more.
        """
        fine, small = ("f16", "f16"), ("q8_0", "q8_0" if layers else "f16")
        if self.wishes.kv_type_k or self.wishes.kv_type_v:
            key = self.wishes.kv_type_k or "f16"
            fine = small = (key, self.wishes.kv_type_v or "f16")
        contexts = self._contexts()
        if layers not in (_ALL_LAYERS, _NO_GPU) and not self.wishes.num_ctx:
            contexts = [num for num in contexts if num <= COMFORTABLE_CTX][:1] or contexts[:1]
        comfortable = [num for num in contexts if num >= COMFORTABLE_CTX] or contexts[:1]
        rest = [num for num in contexts if num not in comfortable]
        if layers == _ALL_LAYERS and not self.wishes.num_ctx:
            rest = [num for num in rest if num >= COMFORTABLE_CTX // 2]
        choices = [(num, fine) for num in comfortable]
        if small != fine and not self._refuses_quantized_keys(layers):
            choices += [(num, small) for num in comfortable]
        return choices + [(num, fine) for num in rest]

    def _refuses_quantized_keys(self, layers: int) -> bool:
        """Recurrent models have no keys; compressed ones refuse q8_0 without flash attention."""
        return (self.shape.is_mla and not layers) or not any(x.key_width for x in self.shape.layers)

    def _contexts(self) -> list[int]:
        if self.wishes.num_ctx:
            return [self.wishes.num_ctx]
        longest = min(self.num_ctx_good or AUTO_CTX, AUTO_CTX)
        return [longest, *(num for num in _LADDER if num < longest)]

    def _settings(
        self,
        num_ctx: int,
        kv_types: tuple[str, str],
        layers: int,
        num_cpu_experts: int,
        *,
        swa_full: bool | None = None,
    ) -> ContextSettings:
        wishes = self.wishes
        if swa_full is None:
            swa_full = bool(wishes.swa_full) and kv_types[0] in FULL_KV_TYPES
        ubatch = wishes.max_ubatch or (512 if layers else 128)
        flash = wishes.flash_attention
        if flash is None:
            flash = layers != _NO_GPU or kv_types[1] not in ("f16", "f32", "bf16")
        outputs = wishes.num_outputs
        num_ids = wishes.num_sequence_ids(self.shape, swa_full=swa_full)
        repack = wishes.repack and layers == _NO_GPU
        return ContextSettings(
            num_pool=max(num_ctx, wishes.num_pool or 0),
            max_sequences=num_ids,
            kv_type_k=kv_types[0],
            kv_type_v=kv_types[1],
            max_batch=wishes.max_batch or ubatch,
            max_ubatch=ubatch,
            num_outputs=num_ids if outputs is None else outputs,
            flash_attention=flash,
            kv_unified=wishes.kv_unified,
            swa_full=self.shape.keeps_windows(swa_full=swa_full),
            num_gpu_layers=layers,
            num_cpu_experts=num_cpu_experts,
            gpu_shares=self.gpu_shares,
            mmap=wishes.mmap,
            mlock=wishes.mlock,
            repack_types=self.hardware.repack_types if repack else frozenset(),
        )

    def _judge(self, candidate: _Candidate, found: MemoryEstimate) -> Plan:
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
            tensor_split=self.gpu_shares if len(self.gpu_shares) > 1 else (),
            fits=fits,
            estimate=found,
            needed_bytes=found.resident_bytes,
            available_bytes=self.ram_bytes,
            available_gpus=self.gpu_bytes,
            tokens_per_second=self._speed(settings),
            reasons=tuple(self._reasons(candidate, found)),
            notes=tuple(self._notes(candidate)),
        )

    def _with_full_windows(self, chosen: Plan, candidate: _Candidate) -> tuple[Plan, _Candidate]:
        """All tokens in sliding-window layers too, so that prompts can be edited in the cache,
        where there is room to spare."""
        old = candidate.settings
        is_open = self.wishes.swa_full is None and old.kv_type_k in FULL_KV_TYPES
        if not is_open or not self.shape.keeps_windows(swa_full=True):
            return chosen, candidate
        settings = self._settings(
            candidate.num_ctx,
            (old.kv_type_k, old.kv_type_v),
            old.num_gpu_layers,
            old.num_cpu_experts,
            swa_full=True,
        )
        full = replace(candidate, settings=settings)
        found = self._verified(full, self._judge(full, estimate(self.header, settings)))
        return (found, full) if self._spares(found) else (chosen, candidate)

    def _with_larger_pool(self, chosen: Plan, candidate: _Candidate) -> Plan:
        """Room for a second chat beside the first, where there is room to spare."""
        if self.wishes.num_pool or (self.wishes.num_ctx is None and chosen.kv_type_k != "f16"):
            return chosen
        settings = replace(candidate.settings, num_pool=2 * candidate.num_ctx)
        candidate = replace(candidate, settings=settings)
        larger = self._verified(candidate, self._judge(candidate, estimate(self.header, settings)))
        return larger if self._spares(larger) else chosen

    def _spares(self, found: Plan) -> bool:
        """Whether it fits, and leaves a quarter of the memory."""
        return found.fits and self.ram_bytes - found.needed_bytes > self.ram_bytes // 4

    def _speed(self, settings: ContextSettings) -> float:
        placement = settings.placement(self.shape.num_layers)
        read = bytes_per_token(self.header, self.shape, placement)
        gpu_bandwidth = min((gpu.bandwidth for gpu in self.hardware.gpus), default=0.0)
        return tokens_per_second(
            read.ram, read.gpu, self.hardware.memory_bandwidth, gpu_bandwidth * _GPU_EFFICIENCY
        )

    def _reasons(self, candidate: _Candidate, found: MemoryEstimate) -> Iterator[str]:
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

    def _notes(self, candidate: _Candidate) -> Iterator[str]:
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


def _shares(gpu_bytes: tuple[int, ...], asked: tuple[float, ...]) -> tuple[float, ...]:
    """What part of the model each GPU gets.

    Raises: InvalidRequestError if more parts are asked for than there are GPUs.
    """
    if len(asked) > len(gpu_bytes):
        there = f"{len(gpu_bytes)} GPUs" if gpu_bytes else "no GPU"
        raise InvalidRequestError(
            f"--tensor-split has {len(asked)} parts, and llama.cpp can use {there} here",
            field="tensor_split",
            hint="give one number for each GPU, or none",
        )
    shares = asked or tuple(map(float, gpu_bytes))
    return shares if any(shares) else (1.0,)


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
    if layers == _NO_GPU:
        yield "nothing of it fits on the GPU"
    elif layers == _ALL_LAYERS and not experts:
        yield f"all of it runs on the GPU ({hardware.gpus[0].name})"
    elif layers == _ALL_LAYERS:
        yield (
            f"all of it runs on the GPU but the experts of {min(experts, shape.num_layers)} of "
            f"{shape.num_layers} layers, which stay in RAM"
        )
    else:
        yield f"{layers} of {shape.num_layers + 1} layers run on the GPU; more do not fit there"
