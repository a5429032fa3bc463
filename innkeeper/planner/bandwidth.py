"""How fast the CPU reads memory: measured once per machine, then remembered."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from innkeeper.planner.hardware import Hardware
from innkeeper.planner.remembered import load_measured, store_measured
from innkeeper.units import MIB

_MAX_THREADS = 8
_MEASURED_BYTES = 512 * MIB
"""Read in one pass of all threads: far more than the last cache holds."""


def with_bandwidth(hardware: Hardware, cache: Path) -> Hardware:
    """``hardware`` with its measured bandwidth, from the JSON file ``cache`` or measured now (half
    a second). Without room to measure, or for the file, the cautious guess stays."""
    key = f"{hardware.cpu_name}|{hardware.num_usable_cores}"
    known = load_measured(cache).get(key)
    if isinstance(known, int | float) and known > 0:
        return replace(hardware, memory_bandwidth=float(known))
    if hardware.available_ram_bytes < 2 * _MEASURED_BYTES:
        return hardware
    measured = measure_bandwidth(hardware.num_usable_cores)
    store_measured(cache, key, measured)
    return replace(hardware, memory_bandwidth=measured)


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
