"""Which build of llama-cpp-python suits a machine, best first."""

from dataclasses import dataclass
from typing import Literal

from installer.machine import Machine

WHEELS = "https://abetlen.github.io/llama-cpp-python/whl/"
"""The package's own documented place for prebuilt wheels."""
CUDA_WHEELS = ((11, 8), (12, 1), (12, 2), (12, 3), (12, 4), (12, 5), (13, 0), (13, 2))
"""CUDA versions that the package documents wheels for."""

# Only what is used: no image tools, no tests; the common library goes through HOOK.
FAST_ARGS = ("-DLLAVA_BUILD=OFF", "-DLLAMA_ALL_WARNINGS=OFF", "-DLLAMA_BUILD_TESTS=OFF")
HOOK = "set(LLAMA_BUILD_COMMON OFF)\n"
"""The package's CMakeLists forces this variable on, so it is set once llama.cpp's own begins."""

CPU_SECONDS = {"cpu": 240, "metal": 240, "vulkan": 900, "cuda": 3600}
"""What a compilation takes on one core, roughly."""

Device = Literal["cpu", "cuda", "metal", "vulkan"]


@dataclass(frozen=True)
class Build:
    """One way to get llama-cpp-python."""

    device: Device
    compiled: bool
    why: str
    """What it is, and for what, in a few words."""
    cmake_args: tuple[str, ...] = ()
    index: str | None = None
    """Where its wheel lies; None = compiled here."""
    cuda_major: int = 0
    unused_gpu: str | None = None
    """Why a GPU of this machine stays unused with this build."""

    @property
    def name(self) -> str:
        return f"{self.device}-{'compiled' if self.compiled else 'prebuilt'}"


def choose(machine: Machine, wanted: str = "") -> list[Build]:
    """Builds to try in turn. ``wanted`` (a device or a build's name) keeps only those."""
    builds = [*_metal(machine), *_cuda(machine), *_vulkan(machine), *_cpu(machine)]
    return [b for b in builds if not wanted or wanted in (b.device, b.name)]


def help_for(machine: Machine) -> str:
    """The one command that makes a compilation possible."""
    if machine.system == "Darwin":
        return "run: xcode-select --install"
    if machine.system == "Windows":
        return (
            "run: winget install Microsoft.VisualStudio.2022.BuildTools --override "
            '"--add Microsoft.VisualStudio.Workload.VCTools --includeRecommended"'
        )
    return "run: sudo apt install build-essential (Fedora: sudo dnf install gcc-c++)"


def _is_apple(machine: Machine) -> bool:
    return machine.system == "Darwin" and machine.arch == "arm64"


def _metal(machine: Machine) -> list[Build]:
    if not _is_apple(machine):
        return []
    prebuilt = Build("metal", False, "prebuilt for Metal", index=WHEELS + "metal")
    if machine.compiler is None:
        return [prebuilt]
    return [Build("metal", True, "compiled with Metal", ("-DGGML_METAL=ON",)), prebuilt]


def _cuda(machine: Machine) -> list[Build]:
    if machine.nvidia_gpu is None:
        return []
    builds = []
    if _nvcc_problem(machine) is None and machine.nvcc_cuda is not None:
        major, minor = machine.nvcc_cuda
        args = ("-DGGML_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={machine.nvcc}")
        why = f"compiled with CUDA {major}.{minor} for {machine.nvidia_gpu}"
        builds.append(Build("cuda", True, why, args))
    fitting = [v for v in CUDA_WHEELS if machine.driver_cuda and v <= machine.driver_cuda]
    # a wheel of an older CUDA runs as well, so an unpublished one is no dead end
    for major, minor in reversed(fitting[-3:]):
        why = f"prebuilt with CUDA {major}.{minor} for {machine.nvidia_gpu}"
        index = f"{WHEELS}cu{major}{minor}"
        builds.append(Build("cuda", False, why, index=index, cuda_major=major))
    return builds


def _nvcc_problem(machine: Machine) -> str | None:
    """Why CUDA code cannot be compiled here for the driver that is here."""
    if machine.compiler is None:
        return "there is no C++ compiler"
    if machine.nvcc is None or machine.nvcc_cuda is None:
        return "there is no nvcc (the CUDA toolkit)"
    if machine.driver_cuda and machine.nvcc_cuda[0] > machine.driver_cuda[0]:
        driver = ".".join(map(str, machine.driver_cuda))
        return f"nvcc is of CUDA {machine.nvcc_cuda[0]}, and the driver runs CUDA {driver} at most"
    return None


def _vulkan(machine: Machine) -> list[Build]:
    has_gpu = {"AMD", "Intel"} & set(machine.gpu_vendors)
    if machine.nvidia_gpu or not has_gpu or not machine.has_vulkan_driver:
        return []
    names = " and ".join(sorted(has_gpu))
    prebuilt = Build("vulkan", False, f"prebuilt with Vulkan for {names}", index=WHEELS + "vulkan")
    if machine.compiler is None or not machine.has_vulkan_sdk:
        return [prebuilt] if machine.arch in ("x86_64", "AMD64") else []
    why = f"compiled with Vulkan for {names}"
    return [Build("vulkan", True, why, ("-DGGML_VULKAN=ON",)), prebuilt]


def _cpu(machine: Machine) -> list[Build]:
    unused = _unused_gpu(machine)
    no_metal = ("-DGGML_METAL=OFF",) if machine.system == "Darwin" else ()
    compiled = Build("cpu", True, "compiled for this CPU", no_metal, unused_gpu=unused)
    prebuilt = Build(
        "cpu",
        False,
        "prebuilt for any CPU, slower than compiled (no C++ compiler here)",
        index=WHEELS + "cpu",
        unused_gpu=unused,
    )
    return [compiled, prebuilt] if machine.compiler else [prebuilt]


def _unused_gpu(machine: Machine) -> str | None:
    if machine.nvidia_gpu:
        problem = _nvcc_problem(machine) or "the compilation failed"
        return f"{machine.nvidia_gpu} stays unused: {problem}, and no prebuilt CUDA wheel worked"
    if "NVIDIA" in machine.gpu_vendors:
        return "the NVIDIA GPU stays unused: nvidia-smi finds no working driver"
    others = [vendor for vendor in machine.gpu_vendors if vendor != "NVIDIA"]
    if not others:
        return None
    names = " and ".join(others)
    if not machine.has_vulkan_driver:
        return (
            f"the {names} GPU stays unused: no Vulkan driver (sudo apt install mesa-vulkan-drivers)"
        )
    return (
        f"the {names} GPU stays unused: no Vulkan build worked here "
        "(sudo apt install g++ glslc libvulkan-dev)"
    )
