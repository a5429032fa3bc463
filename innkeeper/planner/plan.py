"""Chooses context, pool, KV type, batch and GPU layers for one model on this machine."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from innkeeper.errors import NotEnoughMemoryError
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
    num_gpu_layers: int | None = None
    flash_attention: bool | None = None
    max_batch: int | None = None
    """None = one micro-batch."""
    max_ubatch: int | None = None
    num_outputs: int | None = None
    """None = one per sequence; 0 = every row of a batch."""
    kv_unified: bool = True
    repack: bool = True
    can_offload: bool = True
    """Whether this build of llama.cpp can use the GPU at all."""
    freed_bytes: int = 0
    """RAM that a model unloaded first gives back."""
    freed_gpu_bytes: int = 0

    def num_sequence_ids(self, shape: ModelShape) -> int:
        """llama.cpp's ``n_seq_max``, as ``EngineConfig.num_sequence_ids`` counts it."""
        if self.num_ids is not None:
            return self.num_ids
        return self.max_sequences * (2 if shape.can_edit else 1) + self.max_kept


@dataclass(frozen=True)
class Plan:
    """The settings to load with, in ``EngineConfig``'s names, and why."""

    num_ctx: int
    num_pool: int
    kv_type_k: str
    kv_type_v: str
    num_gpu_layers: int
    flash_attention: bool
    max_ubatch: int
    fits: bool
    estimate: MemoryEstimate
    needed_bytes: int
    """RAM that must be there for the model to run without reading its file again and again."""
    available_bytes: int
    """RAM it may use."""
    available_gpu_bytes: int
    tokens_per_second: float
    """Expected for one reply, from bytes per token and memory speed; a first guess."""
    reasons: tuple[str, ...]
    """Plain sentences."""
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
        if self.estimate.gpu_bytes > self.available_gpu_bytes:
            return NotEnoughMemoryError(
                f"that many layers need {format_bytes(self.estimate.gpu_bytes)} on the GPU; "
                f"{format_bytes(self.available_gpu_bytes)} can be had there",
                field="gpu_layers",
                hint="choose fewer --gpu-layers, or auto",
            )
        return NotEnoughMemoryError(
            self.refusal or "the model does not fit", hint="change --ctx or --kv-type"
        )


def plan(
    header: GgufHeader, hardware: Hardware, wishes: Wishes, *, verify: Verify | None = None
) -> Plan:
    """The best settings that fit, or the smallest ones with ``fits`` false.

    ``verify`` (``planner.verify.verify``) has the last word on each candidate that seems to fit.
    Raises: UnsupportedModelError, CorruptModelError.
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
        self.ram_bytes = max(
            0, hardware.available_ram_bytes + wishes.freed_bytes - RESERVE_RAM_BYTES
        )
        gpus = hardware.gpus if wishes.can_offload else ()
        usable = sum(max(0, gpu.free_bytes - RESERVE_GPU_BYTES) for gpu in gpus)
        self.gpu_bytes = usable + wishes.freed_gpu_bytes if gpus else 0

    def best(self) -> Plan:
        smallest: Plan | None = None
        for candidate in self._candidates():
            found = self._judge(candidate, estimate(self.header, candidate.settings))
            if found.fits:
                found = self._verified(candidate, found)
            if found.fits:
                return self._with_larger_pool(found, candidate)
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
        for layers in self._gpu_choices():
            for num_ctx, kv_types in self._context_choices(layers):
                yield _Candidate(num_ctx, self._settings(num_ctx, kv_types, layers))

    def _gpu_choices(self) -> Sequence[int]:
        if self.wishes.num_gpu_layers is not None:
            return [self.wishes.num_gpu_layers]
        if not self.gpu_bytes:
            return [_NO_GPU]
        return [_ALL_LAYERS, *range(self.shape.num_layers, 0, -1), _NO_GPU]

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
        longest = min(self.shape.num_ctx_train or AUTO_CTX, AUTO_CTX)
        return [longest, *(num for num in _LADDER if num < longest)]

    def _settings(self, num_ctx: int, kv_types: tuple[str, str], layers: int) -> ContextSettings:
        wishes = self.wishes
        ubatch = wishes.max_ubatch or (512 if layers else 128)
        flash = wishes.flash_attention
        if flash is None:
            flash = layers != _NO_GPU or kv_types[1] not in ("f16", "f32", "bf16")
        outputs = wishes.num_outputs
        num_ids = wishes.num_sequence_ids(self.shape)
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
            num_gpu_layers=layers,
            repack_types=self.hardware.repack_types if repack else frozenset(),
        )

    def _judge(self, candidate: _Candidate, found: MemoryEstimate) -> Plan:
        settings = candidate.settings
        fits = found.resident_bytes <= self.ram_bytes and found.gpu_bytes <= self.gpu_bytes
        return Plan(
            num_ctx=candidate.num_ctx,
            num_pool=settings.num_pool,
            kv_type_k=settings.kv_type_k,
            kv_type_v=settings.kv_type_v,
            num_gpu_layers=settings.num_gpu_layers,
            flash_attention=settings.flash_attention,
            max_ubatch=settings.max_ubatch,
            fits=fits,
            estimate=found,
            needed_bytes=found.resident_bytes,
            available_bytes=self.ram_bytes,
            available_gpu_bytes=self.gpu_bytes,
            tokens_per_second=self._speed(settings),
            reasons=tuple(self._reasons(candidate, found)),
        )

    def _with_larger_pool(self, chosen: Plan, candidate: _Candidate) -> Plan:
        """Room for a second chat beside the first, where there is room to spare."""
        if self.wishes.num_pool or (self.wishes.num_ctx is None and chosen.kv_type_k != "f16"):
            return chosen
        settings = replace(candidate.settings, num_pool=2 * candidate.num_ctx)
        candidate = replace(candidate, settings=settings)
        larger = self._verified(candidate, self._judge(candidate, estimate(self.header, settings)))
        spare = self.ram_bytes - larger.needed_bytes
        return larger if larger.fits and spare > self.ram_bytes // 4 else chosen

    def _speed(self, settings: ContextSettings) -> float:
        read = bytes_per_token(self.header, self.shape, settings)
        gpu_bandwidth = min((gpu.bandwidth for gpu in self.hardware.gpus), default=0.0)
        return tokens_per_second(
            read.ram, read.gpu, self.hardware.memory_bandwidth, gpu_bandwidth * _GPU_EFFICIENCY
        )

    def _reasons(self, candidate: _Candidate, found: MemoryEstimate) -> Iterator[str]:
        settings, shape = candidate.settings, self.shape
        yield (
            f"weights {format_bytes(found.weights_bytes)}, context "
            f"{format_bytes(found.kv_bytes + found.gpu_kv_bytes + found.recurrent_bytes)}, "
            f"buffers {format_bytes(found.buffer_bytes)}"
        )
        if not shape.num_ctx_train:
            yield "the header does not say for what context the model was trained"
        elif candidate.num_ctx > shape.num_ctx_train:
            yield (
                f"the context of {candidate.num_ctx:,} tokens is longer than the "
                f"{shape.num_ctx_train:,} the model was trained for"
            )
        elif candidate.num_ctx < min(shape.num_ctx_train, AUTO_CTX) and not self.wishes.num_ctx:
            yield (
                f"the context is {candidate.num_ctx:,} of {shape.num_ctx_train:,} tokens, "
                "since more does not fit in memory"
            )
        if settings.kv_type_k != "f16" and self.wishes.kv_type_k is None:
            yield f"the cache is kept as {settings.kv_type_k} to make room for a longer context"
        if self.hardware.gpus and not self.wishes.can_offload:
            yield "the GPU stays unused, since this llama.cpp was built without it"
        else:
            yield from _gpu_reasons(settings.num_gpu_layers, self.hardware, shape)
        if not found.is_exact:
            yield "the estimate is approximate for this model; a dry run makes it exact"


def _gpu_reasons(layers: int, hardware: Hardware, shape: ModelShape) -> Iterator[str]:
    if not hardware.gpus:
        return
    if layers == _NO_GPU:
        yield "nothing of it fits on the GPU"
    elif layers == _ALL_LAYERS:
        yield f"all of it runs on the GPU ({hardware.gpus[0].name})"
    else:
        yield f"{layers} of {shape.num_layers + 1} layers run on the GPU; more do not fit there"
