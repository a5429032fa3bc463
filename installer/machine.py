"""What this computer offers to a build of llama.cpp."""

import hashlib
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}
_CUDA_NVCC = Path("/usr/local/cuda/bin/nvcc")


@dataclass(frozen=True)
class Machine:
    """Facts that decide how llama.cpp is built."""

    system: str
    """``Linux``, ``Darwin`` or ``Windows``."""
    arch: str
    cpu: str
    """Digest of the CPU's model and instruction sets: another CPU needs another build."""
    num_cores: int
    compiler: str | None
    gpu_vendors: tuple[str, ...] = ()
    """GPUs on the bus, with a driver or without."""
    nvidia_gpu: str | None = None
    """Name of the first GPU that the NVIDIA driver reports; None without a working driver."""
    driver_cuda: tuple[int, int] | None = None
    """Newest CUDA that the NVIDIA driver runs."""
    nvcc: str | None = None
    nvcc_cuda: tuple[int, int] | None = None
    has_vulkan_driver: bool = False
    has_vulkan_sdk: bool = False
    """glslc and the Vulkan headers are there."""


def output_of(*command: str, timeout_seconds: float = 20) -> str | None:
    """What ``command`` prints; None if it is missing, fails or hangs."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None


def look() -> Machine:
    """Looks at this computer. Takes some 10 ms, and up to a second with an NVIDIA driver."""
    nvcc = shutil.which("nvcc") or (str(_CUDA_NVCC) if _CUDA_NVCC.exists() else None)
    nvidia_gpu, driver_cuda = _nvidia_driver()
    return Machine(
        system=platform.system(),
        arch=platform.machine(),
        cpu=_cpu_digest(),
        num_cores=os.cpu_count() or 1,
        compiler=_compiler(),
        gpu_vendors=_gpu_vendors(),
        nvidia_gpu=nvidia_gpu,
        driver_cuda=driver_cuda,
        nvcc=nvcc,
        nvcc_cuda=_version(output_of(nvcc, "--version"), r"release (\d+)\.(\d+)") if nvcc else None,
        has_vulkan_driver=_has_vulkan_driver(),
        has_vulkan_sdk=_has_vulkan_sdk(),
    )


def _version(text: str | None, pattern: str) -> tuple[int, int] | None:
    match = re.search(pattern, text or "")
    return (int(match[1]), int(match[2])) if match else None


def _nvidia_driver() -> tuple[str | None, tuple[int, int] | None]:
    names = output_of("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    if not names or not names.strip():
        return None, None
    # newer drivers say "CUDA UMD Version"
    cuda = _version(output_of("nvidia-smi"), r"CUDA (?:UMD )?Version:\s*(\d+)\.(\d+)")
    return names.strip().splitlines()[0], cuda


def _cpu_digest() -> str:
    facts = [platform.machine(), platform.processor()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        wanted = ("model name", "flags", "Features", "CPU part")
        facts += sorted({line for line in lines if line.startswith(wanted)})
    elif brand := output_of("sysctl", "-n", "machdep.cpu.brand_string"):
        facts.append(brand)
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _compiler() -> str | None:
    if platform.system() == "Windows":
        return shutil.which("cl") or _visual_studio()
    if platform.system() == "Darwin" and output_of("xcode-select", "-p") is None:
        return None  # /usr/bin/c++ is then a stub that opens a dialogue
    names = ("c++", "g++", "clang++")
    return next((path for name in names if (path := shutil.which(name))), None)


def _visual_studio() -> str | None:
    base = os.environ.get("ProgramFiles(x86)", r"C:\Program Files (x86)")
    vswhere = os.path.join(base, "Microsoft Visual Studio", "Installer", "vswhere.exe")
    tools = "Microsoft.VisualStudio.Component.VC.Tools.x86.x64"
    query = ("-latest", "-products", "*", "-requires", tools, "-property", "installationPath")
    found = output_of(vswhere, *query)
    return found.strip() or None if found else None


def _gpu_vendors() -> tuple[str, ...]:
    found = set()
    for file in sorted(Path("/sys/class/drm").glob("card*/device/vendor")):
        try:
            found.add(_VENDORS.get(file.read_text().strip(), ""))
        except OSError:
            continue
    for file in Path("/sys/bus/pci/devices").glob("*/class"):
        found.add(_nvidia_without_driver(file))
    return tuple(sorted(found - {""}))


def _nvidia_without_driver(class_file: Path) -> str:
    """An NVIDIA card has no DRM node before its driver is loaded, but it is on the bus."""
    try:
        is_display = class_file.read_text().startswith("0x03")
        vendor = (class_file.parent / "vendor").read_text().strip()
    except OSError:
        return ""
    return _VENDORS.get(vendor, "") if is_display else ""


def _has_vulkan_driver() -> bool:
    places = ("/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d")
    real = [f for place in places for f in Path(place).glob("*.json") if "lvp" not in f.name]
    return bool(real)


def _has_vulkan_sdk() -> bool:
    headers = Path("/usr/include/vulkan/vulkan.hpp").exists()
    return shutil.which("glslc") is not None and (headers or "VULKAN_SDK" in os.environ)
