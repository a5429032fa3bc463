"""Does it fit, and which of several is best? One row per model or quantization."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

import msgspec
from msgspec import Struct

from innkeeper.formats.gguf_header import GgufHeader
from innkeeper.formats.quant_names import gguf_quant
from innkeeper.planner.candidates import COMFORTABLE_CTX
from innkeeper.planner.estimate import GpuBytes, MemoryEstimate
from innkeeper.planner.hardware import Hardware
from innkeeper.planner.plan import Plan, Verify, plan
from innkeeper.planner.wishes import Wishes
from innkeeper.units import format_bytes

FLUENT_TOKENS_PER_SECOND = 8.0
"""About as fast as people read; above it, better weights are worth more than speed."""
ENOUGH_BITS = 8.0
"""From Q8_0 on nothing is gained in a chat (perplexity within noise), so speed decides."""
DECENT_BITS = 4.2
"""Below it, weights that lie partly in RAM are better than cruder ones on the GPU."""


class FitRow(Struct, frozen=True, kw_only=True):
    """What one model would need here, and what it would give."""

    name: str
    quant: str
    bits_per_weight: float
    num_params: int
    needs: MemoryEstimate
    devices: dict[str, dict[str, int]]
    """Per device (``RAM``, ``GPU0``, ...): bytes of each kind, and what is there."""
    num_ctx: int
    num_pool: int
    """Cells of the cache, at least ``num_ctx``."""
    num_ctx_train: int | None
    num_gpu_layers: int
    num_cpu_experts: int
    kv_type_k: str
    kv_type_v: str
    flash_attention: bool
    tokens_per_second: float
    verified: bool
    """llama.cpp's own dry run said so."""
    approximate: bool
    """The header alone cannot tell the compute buffer of this architecture."""
    fits: bool
    reason: str
    reasons: tuple[str, ...]

    @property
    def full_bytes(self) -> int:
        """All memory that it takes up here, on every device."""
        return sum(device["total_bytes"] for device in self.devices.values())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; the bytes of each kind in RAM beside the other fields.

        ``total_bytes`` is the anonymous memory; the mapped file should stay cached beside it.
        """
        found: dict[str, Any] = msgspec.to_builtins(self)
        del found["needs"]
        return {**found, **self.needs.to_json()}


def fit(
    header: GgufHeader,
    hardware: Hardware,
    wishes: Wishes,
    *,
    name: str,
    verify: Verify | None = None,
) -> FitRow:
    """The row of one model: its best plan here, or how much is lacking.

    Raises: UnsupportedModelError, CorruptModelError.
    """
    found = plan(header, hardware, wishes, verify=verify)
    if not found.fits and wishes.num_ctx:
        shorter = plan(header, hardware, replace(wishes, num_ctx=None, num_pool=None))
        if shorter.fits and shorter.num_ctx < wishes.num_ctx:
            hint = f"it fits with a context of {shorter.num_ctx:,} tokens"
            found = replace(found, reasons=(*found.reasons, hint))
    return _row(found, header, name)


def _row(found: Plan, header: GgufHeader, name: str) -> FitRow:
    needs = found.estimate
    return FitRow(
        name=name,
        quant=gguf_quant(header),
        bits_per_weight=round(8 * header.tensor_bytes / max(1, header.num_weights), 2),
        num_params=header.num_weights,
        needs=needs,
        devices=_devices(found),
        num_ctx=found.num_ctx,
        num_pool=found.num_pool,
        num_ctx_train=_trained(header),
        num_gpu_layers=found.num_gpu_layers,
        num_cpu_experts=found.num_cpu_experts,
        kv_type_k=found.kv_type_k,
        kv_type_v=found.kv_type_v,
        flash_attention=found.flash_attention,
        tokens_per_second=round(found.tokens_per_second, 1),
        verified=needs.is_verified,
        approximate=not needs.is_exact,
        fits=found.fits,
        reason=_reason(found),
        reasons=found.reasons,
    )


def _devices(found: Plan) -> dict[str, dict[str, int]]:
    needs = found.estimate
    ram = {
        "weights_bytes": needs.ram_weights_bytes,
        "context_bytes": needs.kv_bytes + needs.recurrent_bytes,
        "total_bytes": found.needed_bytes,
        "available_bytes": found.available_bytes,
    }
    devices = {"RAM": ram}
    for index, available in enumerate(found.available_gpus):
        there = needs.gpus[index] if index < len(needs.gpus) else GpuBytes(0, 0, 0)
        sums = {"total_bytes": there.total_bytes, "available_bytes": available}
        devices[f"GPU{index}"] = {**asdict(there), **sums}
    return devices


def _trained(header: GgufHeader) -> int | None:
    value = header.hparam("context_length")
    return value if isinstance(value, int) else None


def _reason(found: Plan) -> str:
    """One sentence."""
    if not found.fits:
        return found.error().message
    left = found.available_bytes - found.needed_bytes
    return (
        f"fits with {found.num_ctx:,} tokens of context, about "
        f"{found.tokens_per_second:.0f} tokens per second; {format_bytes(left)} stay free"
    )


def rank(rows: Iterable[FitRow]) -> list[FitRow]:
    """Best first: what fits with a comfortable context at a fluent speed, least quantized.

    Of what is not fluent the fastest comes first, since waiting is what spoils a chat; what does
    not fit comes last, the one that lacks least first.
    """
    return sorted(rows, key=rank_key)


def rank_key(row: FitRow) -> tuple[Any, ...]:
    """The smaller the better, as ``rank`` sorts."""
    if not row.fits:
        return (3, row.full_bytes)
    wanted = min(COMFORTABLE_CTX, row.num_ctx_train or COMFORTABLE_CTX)
    bits = min(row.bits_per_weight, ENOUGH_BITS)
    if row.num_ctx < wanted:
        return (2, -row.num_ctx, -bits)
    if row.tokens_per_second < FLUENT_TOKENS_PER_SECOND:
        return (1, -row.tokens_per_second)
    is_whole = row.num_gpu_layers == -1 and row.bits_per_weight >= DECENT_BITS
    on_one_device = is_whole or "GPU0" not in row.devices  # prompts are read many times faster
    return (0, not on_one_device, -row.num_params // 10**8, -bits, -row.tokens_per_second)


def choose(rows: Sequence[FitRow]) -> tuple[FitRow | None, list[FitRow]]:
    """(the best that fits, None if nothing does; the next best choices)."""
    ranked = [row for row in rank(rows) if row.fits]
    return (ranked[0], ranked[1:]) if ranked else (None, [])
