"""The GPUs: what llama.cpp can use of them, and what NVIDIA's driver says is free."""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pynvml

from innkeeper.planner.llama_build import ask_llama, llama_record

_GPU, _SHARING_GPU = 1, 2
"""ggml's kinds of devices; the second one has no memory of its own."""
_DEVICE_FILES = (Path("/dev/dri"), Path("/dev/kfd"), Path("/dev/dxg"))
"""One of them is there on a Linux with a GPU."""


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


def find_gpus(
    notes: list[str],
    *,
    nvml: Any = pynvml,
    record: Callable[[], dict[str, Any]] = llama_record,
    ask: Callable[[], dict[str, Any]] = ask_llama,
    device_files: Sequence[Path] = _DEVICE_FILES,
) -> tuple[tuple[Gpu, ...], str | None]:
    """(The GPUs, in llama.cpp's order; why it can use none of them, if so).

    ``record`` is what ``./start`` wrote down; llama.cpp itself is asked (a third of a second)
    unless that says that it was built for the CPU, or there is no sign of a GPU.
    """
    nvidia, noted = nvidia_gpus(notes, nvml), record()
    is_possible = nvidia or sys.platform != "linux" or any(path.exists() for path in device_files)
    if not is_possible or str(noted.get("build", "")).startswith("cpu"):
        facts: dict[str, Any] = {"gpu_offload": False}
    else:
        facts = ask()
    devices = facts.get("devices", []) if facts.get("gpu_offload") else []
    own = [row for row in devices if row["kind"] == _GPU]
    chosen = own or [row for row in devices if row["kind"] == _SHARING_GPU]
    if chosen:
        return _as_gpus(chosen, list(nvidia)), None
    return nvidia, _problem(nvidia[0].name, facts, noted) if nvidia else None


def _as_gpus(devices: list[dict[str, Any]], nvidia: list[Gpu]) -> tuple[Gpu, ...]:
    """llama.cpp's devices, with what the driver says where it knows them too."""
    found = []
    for index, row in enumerate(devices):
        known = next((gpu for gpu in nvidia if gpu.name == row["description"]), None)
        if known is not None:
            nvidia.remove(known)
            found.append(replace(known, index=index))
        else:
            found.append(Gpu(index, row["description"], row["total_bytes"], row["free_bytes"]))
    return tuple(found)


def _problem(name: str, facts: dict[str, Any], noted: dict[str, Any]) -> str:
    if noted.get("unused_gpu"):
        return str(noted["unused_gpu"])
    if "error" in facts:
        return f"{name} stays unused: {facts['error']}"
    if facts["gpu_offload"]:
        return f"{name} stays unused: llama.cpp does not see it (check the driver)"
    return (
        f"{name} stays unused: llama.cpp was built for the CPU"
        " (install the CUDA toolkit's nvcc, delete .venv, and run ./start)"
    )


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
