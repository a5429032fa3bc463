"""What this machine has, and how much of it is free right now.

Nothing here raises: a probe that fails leaves its value unknown and says so in ``notes``.
"""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

from innkeeper.planner.gpus import Gpu, find_gpus
from innkeeper.units import GIB, format_bytes

X86_REPACK_TYPES = frozenset({"q4_0", "q4_k", "iq4_nl", "mxfp4", "q2_k"})
"""What llama.cpp rearranges on a CPU with AVX-512. Source: ggml-cpu/repack.cpp."""
_AVX512_ONLY = frozenset({"q2_k"})
_ARM_REPACK_TYPES = frozenset({"q4_0", "q4_k", "q5_k", "q6_k", "iq4_nl", "mxfp4", "q8_0", "q1_0"})
_X86_SETS = ("avx", "avx2", "fma", "f16c", "avx512f", "avx512vl", "avx512_vnni", "avx_vnni")
_ARM_SETS = ("asimddp", "i8mm", "sve", "sve2")
_UNLIMITED_BYTES = 1 << 60
_FALLBACK_BANDWIDTH = 12e9


@dataclass(frozen=True)
class Hardware:
    """The machine at one moment."""

    system: str
    """``Linux``, ``Darwin`` or ``Windows``."""
    cpu_name: str
    num_physical_cores: int
    num_usable_cores: int
    """Physical cores that this process may use (affinity and container limits)."""
    instruction_sets: frozenset[str]
    total_ram_bytes: int
    available_ram_bytes: int
    """What can be taken without swapping: the least of the system's and the container's."""
    limit_bytes: int | None
    """Container (cgroup) limit, None without one."""
    swap_free_bytes: int
    gpus: tuple[Gpu, ...] = ()
    gpu_problem: str | None = None
    """Why none of ``gpus`` can be used, if so; a sentence."""
    memory_bandwidth: float = _FALLBACK_BANDWIDTH
    """Bytes per second that the CPU reads; a cautious guess until it is measured."""
    notes: tuple[str, ...] = ()

    @property
    def usable_gpus(self) -> tuple[Gpu, ...]:
        """``gpus``, or none where this llama.cpp cannot use them."""
        return () if self.gpu_problem else self.gpus

    @property
    def all_memory_bytes(self) -> int:
        """What RAM and GPUs have together, free or not."""
        ram = min(self.total_ram_bytes, self.limit_bytes or self.total_ram_bytes)
        return ram + sum(gpu.total_bytes for gpu in self.usable_gpus)

    @property
    def repack_types(self) -> frozenset[str]:
        """Types that llama.cpp copies into the CPU's own layout here, when repacking is on."""
        if {"asimddp", "i8mm"} & self.instruction_sets:
            return _ARM_REPACK_TYPES
        if "avx512f" in self.instruction_sets:
            return X86_REPACK_TYPES
        return X86_REPACK_TYPES - _AVX512_ONLY if "avx2" in self.instruction_sets else frozenset()


@dataclass(frozen=True)
class Files:
    """Where Linux tells about itself; tests point it elsewhere."""

    proc: Path = Path("/proc")
    cgroup: Path = Path("/sys/fs/cgroup")


def probe(files: Files | None = None) -> Hardware:
    """Looks at the machine: a third of a second where llama.cpp may use a GPU. Never raises."""
    files = files or Files()
    notes: list[str] = []
    total, available = _system_ram(files, notes)
    limit, left = _cgroup_memory(files, notes)
    if limit is not None and limit < total:
        notes.append(f"this container may use {format_bytes(limit)} of {format_bytes(total)}")
        available = min(available, left)
    else:
        limit = None
    gpus, gpu_problem = find_gpus(notes)
    cores = _physical_cores()
    name, sets = _cpu(files)
    return Hardware(
        system=platform.system(),
        cpu_name=name,
        num_physical_cores=cores,
        num_usable_cores=_usable_cores(files, cores),
        instruction_sets=sets,
        total_ram_bytes=total,
        available_ram_bytes=available,
        limit_bytes=limit,
        swap_free_bytes=_swap_free(),
        gpus=gpus,
        gpu_problem=gpu_problem,
        notes=tuple(notes),
    )


def idle_cores(seconds: float = 0.2) -> float:
    """Cores that no program uses, looked at for ``seconds``."""
    return (1 - psutil.cpu_percent(seconds) / 100) * (os.cpu_count() or 1)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = (_read(path) or "").strip()
    return int(text) if text.isdecimal() else None


def _system_ram(files: Files, notes: list[str]) -> tuple[int, int]:
    """(total, available). Linux's own MemAvailable: free plus what caches can give back."""
    found: dict[str, int] = {}
    for line in (_read(files.proc / "meminfo") or "").splitlines():
        key, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdecimal():
            found[key] = int(words[0]) * 1024
    if "MemTotal" in found and "MemAvailable" in found:
        return found["MemTotal"], found["MemAvailable"]
    try:
        memory = psutil.virtual_memory()
    except (OSError, RuntimeError) as error:
        notes.append(f"the amount of RAM is unknown ({error}); 4 GiB are assumed")
        return 4 * GIB, 2 * GIB
    return int(memory.total), int(memory.available)


def _cgroup_memory(files: Files, notes: list[str]) -> tuple[int | None, int]:
    """(limit, bytes left under it), over this process's group and all above it."""
    limit, left = None, _UNLIMITED_BYTES
    for folder, names in _cgroup_folders(files):
        most, used = _number(folder / names[0]), _number(folder / names[1])
        if most is None or most >= _UNLIMITED_BYTES:
            continue
        reclaimable = _inactive_file_bytes(folder)
        here = max(0, most - max(0, (used or 0) - reclaimable))
        limit, left = min(most, limit or most), min(left, here)
    return limit, left


def _cgroup_folders(files: Files) -> list[tuple[Path, tuple[str, str]]]:
    """Folders that may limit this process, with the names of limit and usage in them."""
    v2 = ("memory.max", "memory.current")
    v1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    found: list[tuple[Path, tuple[str, str]]] = []
    for line in (_read(files.proc / "self" / "cgroup") or "").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            root, names = files.cgroup, v2
        elif "memory" in controllers.split(","):
            root, names = files.cgroup / "memory", v1
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for end in range(len(parts), -1, -1):
            found.append((root.joinpath(*parts[:end]), names))
    return found or [(files.cgroup, v2), (files.cgroup / "memory", v1)]


def _inactive_file_bytes(folder: Path) -> int:
    """Page cache that the kernel drops first: counted as used, yet free for the asking."""
    for line in (_read(folder / "memory.stat") or "").splitlines():
        key, _, value = line.partition(" ")
        if key in ("inactive_file", "total_inactive_file") and value.strip().isdecimal():
            return int(value)
    return 0


def _physical_cores() -> int:
    try:
        return psutil.cpu_count(logical=False) or os.cpu_count() or 1
    except (OSError, RuntimeError):
        return os.cpu_count() or 1


def _usable_cores(files: Files, physical: int) -> int:
    logical = os.cpu_count() or 1
    allowed = logical
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    quota = (_read(files.cgroup / "cpu.max") or "").split()
    if len(quota) == 2 and quota[0].isdecimal() and quota[1].isdecimal() and int(quota[1]):
        allowed = min(allowed, max(1, round(int(quota[0]) / int(quota[1]))))
    return max(1, min(physical, allowed))


def _cpu(files: Files) -> tuple[str, frozenset[str]]:
    """(name, instruction sets that llama.cpp's kernels care about)."""
    name, flags = "", set[str]()
    for line in (_read(files.proc / "cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name" and not name:
            name = value.strip()
        if key.strip() in ("flags", "Features"):
            flags = set(value.split())
            break
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        flags |= {"asimddp", "i8mm"}
    sets = frozenset(flag for flag in (*_X86_SETS, *_ARM_SETS) if flag in flags)
    return name or platform.processor() or platform.machine(), sets


def _swap_free() -> int:
    try:
        return int(psutil.swap_memory().free)
    except (OSError, RuntimeError):
        return 0
