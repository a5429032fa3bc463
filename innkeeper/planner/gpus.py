"""NVIDIA GPUs and what is free on them, as their driver says."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pynvml


@dataclass(frozen=True)
class Gpu:
    """One GPU. Bytes are what its driver says now."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    compute_capability: tuple[int, int] | None = None
    bandwidth: float = 200e9
    """Bytes per second of its memory, from clock and bus width; a cautious guess without them."""


def nvidia_gpus(notes: list[str], nvml: Any = pynvml) -> tuple[Gpu, ...]:
    """The GPUs that the NVIDIA driver lists; none without a driver.

    What fails is added to ``notes``; a machine without the driver is no failure. ``nvml`` is the
    driver's library; tests give their own.
    """
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        if error.value != nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            notes.append(f"the NVIDIA driver does not answer: {error}")
        return ()
    found: list[Gpu] = []
    try:
        for index in range(nvml.nvmlDeviceGetCount()):
            found.append(_gpu(nvml, index))
    except nvml.NVMLError as error:
        notes.append(f"the NVIDIA driver stopped after {len(found)} GPUs: {error}")
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()
    return tuple(found)


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    name = nvml.nvmlDeviceGetName(handle)
    capability, bandwidth = None, Gpu.bandwidth
    with suppress(nvml.NVMLError):
        clock_mhz = nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM)
        bandwidth = 2e6 * clock_mhz * nvml.nvmlDeviceGetMemoryBusWidth(handle) / 8
    with suppress(nvml.NVMLError):
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        capability = (int(major), int(minor))
    return Gpu(
        index=index,
        name=name.decode() if isinstance(name, bytes) else str(name),
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
        compute_capability=capability,
        bandwidth=bandwidth,
    )
