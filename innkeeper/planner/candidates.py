"""The settings that a plan chooses from, from the most to the least wished for."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from innkeeper.core import num_outputs
from innkeeper.core.shifting import FULL_KV_TYPES
from innkeeper.errors import InvalidRequestError
from innkeeper.planner.estimate import ContextSettings
from innkeeper.planner.hardware import Hardware
from innkeeper.planner.shape import ModelShape
from innkeeper.planner.wishes import Wishes

AUTO_CTX = 32_768
"""``auto`` goes no further: more is rarely used, and every chat pays for it."""
COMFORTABLE_CTX = 8_192
"""Below this, smaller KV types are tried first."""
NO_GPU, ALL_LAYERS = 0, -1
"""Numbers of layers on the GPU."""
_LADDER = (32_768, 24_576, 16_384, 12_288, 8_192, 6_144, 4_096, 3_072, 2_048, 1_024, 512)


@dataclass(frozen=True)
class Candidate:
    """Settings to judge."""

    num_ctx: int
    settings: ContextSettings


class Candidates:
    """Iterates over the settings to try for one model, best first.

    gpu_bytes: what may be used of each GPU. Raises: InvalidRequestError if the wishes divide the
    model among more GPUs than there are.
    """

    def __init__(
        self, shape: ModelShape, wishes: Wishes, hardware: Hardware, gpu_bytes: tuple[int, ...]
    ) -> None:
        self._shape = shape
        self._wishes = wishes
        self._repack_types = hardware.repack_types
        self._has_gpu = any(gpu_bytes)
        self._gpu_shares = _shares(gpu_bytes, wishes.tensor_split)

    def __iter__(self) -> Iterator[Candidate]:
        for layers, experts in self._gpu_choices():
            for num_ctx, kv_types in self._context_choices(layers):
                yield Candidate(num_ctx, self._settings(num_ctx, kv_types, layers, experts))

    def with_full_windows(self, chosen: Candidate) -> Candidate | None:
        """All tokens in sliding-window layers too, so that prompts can be edited in the cache;
        None if there is nothing to gain, or the user has chosen."""
        old = chosen.settings
        is_open = self._wishes.swa_full is None and old.kv_type_k in FULL_KV_TYPES
        if not is_open or not self._shape.keeps_windows(swa_full=True):
            return None
        settings = self._settings(
            chosen.num_ctx,
            (old.kv_type_k, old.kv_type_v),
            old.num_gpu_layers,
            old.num_cpu_experts,
            swa_full=True,
        )
        return replace(chosen, settings=settings)

    def with_larger_pool(self, chosen: Candidate) -> Candidate | None:
        """Room for a second chat beside the first; None where the user has chosen, or the cache
        had to be made smaller."""
        wishes, settings = self._wishes, chosen.settings
        if wishes.num_pool or (wishes.num_ctx is None and settings.kv_type_k != "f16"):
            return None
        return replace(chosen, settings=replace(settings, num_pool=2 * chosen.num_ctx))

    def _gpu_choices(self) -> Iterator[tuple[int, int]]:
        """(layers on the GPU, blocks whose experts are not), from the most to the least there.

        Experts leave first: they are most of a model, and few of them are read for a token.
        """
        layers, experts = self._wishes.num_gpu_layers, self._wishes.num_cpu_experts
        if layers is None and not self._has_gpu:
            layers = NO_GPU
        count = self._shape.num_layers
        if layers is not None:
            yield ALL_LAYERS if layers > count else layers, experts or 0
            return
        in_ram = [experts] if experts is not None else [0]
        if experts is None and self._shape.num_experts:
            in_ram = list(range(count + 1))
        yield from ((ALL_LAYERS, num) for num in in_ram)
        yield from ((layers, in_ram[-1]) for layers in range(count, 0, -1))
        yield NO_GPU, 0

    def _context_choices(self, layers: int) -> list[tuple[int, tuple[str, str]]]:
        """Context lengths and KV types, best first.

        Partial offload asks for a comfortable context only: layers on the GPU are worth more.
        """
        fine, small = ("f16", "f16"), ("q8_0", "q8_0" if layers else "f16")
        if self._wishes.kv_type_k or self._wishes.kv_type_v:
            key = self._wishes.kv_type_k or "f16"
            fine = small = (key, self._wishes.kv_type_v or "f16")
        contexts = self._contexts()
        if layers not in (ALL_LAYERS, NO_GPU) and not self._wishes.num_ctx:
            contexts = [num for num in contexts if num <= COMFORTABLE_CTX][:1] or contexts[:1]
        comfortable = [num for num in contexts if num >= COMFORTABLE_CTX] or contexts[:1]
        rest = [num for num in contexts if num not in comfortable]
        if layers == ALL_LAYERS and not self._wishes.num_ctx:
            rest = [num for num in rest if num >= COMFORTABLE_CTX // 2]
        choices = [(num, fine) for num in comfortable]
        if small != fine and not self._refuses_quantized_keys(layers):
            choices += [(num, small) for num in comfortable]
        return choices + [(num, fine) for num in rest]

    def _refuses_quantized_keys(self, layers: int) -> bool:
        """Recurrent models have no keys; compressed ones refuse q8_0 without flash attention."""
        shape = self._shape
        return (shape.is_mla and not layers) or not any(x.key_width for x in shape.layers)

    def _contexts(self) -> list[int]:
        if self._wishes.num_ctx:
            return [self._wishes.num_ctx]
        longest = min(self._shape.num_ctx_with(self._wishes.rope) or AUTO_CTX, AUTO_CTX)
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
        wishes = self._wishes
        if swa_full is None:
            swa_full = bool(wishes.swa_full) and kv_types[0] in FULL_KV_TYPES
        ubatch = wishes.max_ubatch or (512 if layers else 128)
        batch = wishes.max_batch or ubatch
        flash = wishes.flash_attention
        if flash is None:
            flash = layers != NO_GPU or kv_types[1] not in ("f16", "f32", "bf16")
        outputs = wishes.num_outputs
        num_ids = wishes.num_sequence_ids(self._shape, swa_full=swa_full)
        repack = wishes.repack and layers == NO_GPU
        return ContextSettings(
            num_pool=max(num_ctx, wishes.num_pool or 0),
            max_sequences=num_ids,
            kv_type_k=kv_types[0],
            kv_type_v=kv_types[1],
            max_batch=batch,
            max_ubatch=ubatch,
            num_outputs=num_outputs(num_ids, batch) if outputs is None else outputs,
            flash_attention=flash,
            kv_unified=wishes.kv_unified,
            swa_full=self._shape.keeps_windows(swa_full=swa_full),
            num_gpu_layers=layers,
            num_cpu_experts=num_cpu_experts,
            gpu_shares=self._gpu_shares,
            mmap=wishes.mmap,
            mlock=wishes.mlock,
            repack_types=self._repack_types if repack else frozenset(),
        )


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
