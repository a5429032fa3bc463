"""How fast a model would write: the bytes it reads per token over the memory's speed."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from innkeeper.formats.gguf_header import GgufHeader
from innkeeper.planner.estimate import ContextSettings, first_gpu_layer, is_on_gpu
from innkeeper.planner.shape import ModelShape
from innkeeper.units import MIB

DECODE_EFFICIENCY = 0.85
"""Share of the plain reading speed that decoding reaches (measured on CPUs: 0.85 to 0.95)."""
_MAX_THREADS = 8
_MEASURED_BYTES = 512 * MIB
"""Read in one pass of all threads: far more than the last cache holds."""


class BytesRead(NamedTuple):
    """Weights read for one token of one sequence, by where they lie."""

    ram: int
    gpu: int


def bytes_per_token(header: GgufHeader, shape: ModelShape, settings: ContextSettings) -> BytesRead:
    """All weights but the embedding's other rows, and of the experts only those that are used."""
    first_on_gpu = first_gpu_layer(shape, settings)
    tied = "output.weight" not in header.tensors_by_name
    ram = gpu = 0.0
    for tensor in header.tensors:
        is_embedding = tensor.name.startswith("token_embd")
        if is_embedding and not tied:
            continue
        share = 1.0
        if "_exps" in tensor.name and shape.num_experts:
            share = shape.num_experts_used / shape.num_experts
        on_gpu = settings.num_gpu_layers != 0 and (is_embedding or is_on_gpu(tensor, first_on_gpu))
        gpu += tensor.num_bytes * share * on_gpu
        ram += tensor.num_bytes * share * (not on_gpu)
    return BytesRead(round(ram), round(gpu))


def tokens_per_second(
    ram_bytes: float, gpu_bytes: float, ram_bandwidth: float, gpu_bandwidth: float
) -> float:
    """Replies per second of reading ``*_bytes`` per token from each kind of memory."""
    seconds = ram_bytes / max(ram_bandwidth, 1.0) + gpu_bytes / max(gpu_bandwidth, 1.0)
    return DECODE_EFFICIENCY / seconds if seconds > 0 else 0.0


def measure_bandwidth(num_threads: int, seconds: float = 0.3) -> float:
    """Bytes per second that ``num_threads`` cores read together, from memory rather than caches.

    Takes ``seconds`` and 512 MiB. Each thread (8 at most) reads its own array again and again; its
    best pass counts, so that another busy program for a moment does not spoil the result.
    """
    count = min(max(1, num_threads), _MAX_THREADS)
    array_bytes = _MEASURED_BYTES // count
    arrays = [np.ones(array_bytes // 8, dtype=np.int64) for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        best_seconds = list(pool.map(lambda array: _best_pass_seconds(array, seconds), arrays))
    return sum(array_bytes / best for best in best_seconds)


def _best_pass_seconds(array: NDArray[np.int64], seconds: float) -> float:
    best = float("inf")
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end or best == float("inf"):
        np.bitwise_or.reduce(array)  # NumPy's fastest pass over memory; it frees the GIL
        best = min(best, time.perf_counter() - started)
    return max(best, 1e-6)
