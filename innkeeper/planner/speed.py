"""How fast a model would write: the bytes it reads per token over the memory's speed."""

from typing import NamedTuple

from innkeeper.formats.gguf_header import GgufHeader
from innkeeper.planner.placement import Placement
from innkeeper.planner.shape import ModelShape

DECODE_EFFICIENCY = 0.85
"""Share of the plain reading speed that decoding reaches (measured on CPUs: 0.85 to 0.95)."""


class BytesRead(NamedTuple):
    """Weights read for one token of one sequence, by where they lie."""

    ram: int
    gpu: int


def bytes_per_token(header: GgufHeader, shape: ModelShape, placement: Placement) -> BytesRead:
    """All weights but the embedding's other rows, and of the experts only those that are used."""
    tied = "output.weight" not in header.tensors_by_name
    ram = gpu = 0.0
    for tensor in header.tensors:
        place = placement.tensor(tensor)
        if tensor.name.startswith("token_embd"):
            if not tied:
                continue
            place = placement.layer(shape.num_layers)
        share = 1.0
        if "_exps" in tensor.name and shape.num_experts:
            share = shape.num_experts_used / shape.num_experts
        if place is None:
            ram += tensor.num_bytes * share
        else:
            gpu += tensor.num_bytes * share
    return BytesRead(round(ram), round(gpu))


def tokens_per_second(
    ram_bytes: float, gpu_bytes: float, ram_bandwidth: float, gpu_bandwidth: float
) -> float:
    """Replies per second of reading ``*_bytes`` per token from each kind of memory."""
    seconds = ram_bytes / max(ram_bandwidth, 1.0) + gpu_bytes / max(gpu_bandwidth, 1.0)
    return DECODE_EFFICIENCY / seconds if seconds > 0 else 0.0
