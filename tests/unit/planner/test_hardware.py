from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from innkeeper.planner.gpus import Gpu, find_gpus, nvidia_gpus
from innkeeper.planner.hardware import Files, probe

GIB = 1 << 30


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A made Linux: 16 GiB of RAM, 10 of it available."""
    write(tmp_path / "proc/meminfo", f"MemTotal: {16 << 20} kB\nMemAvailable: {10 << 20} kB\n")
    write(tmp_path / "proc/self/cgroup", "0::/user.slice/app\n")
    write(tmp_path / "proc/cpuinfo", "model name\t: Test CPU\nflags\t\t: fpu avx avx2 fma f16c\n")
    return Files(proc=tmp_path / "proc", cgroup=tmp_path / "cgroup")


def write(path: Path, text: str | int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(text))


def test_available_ram_is_what_the_kernel_says(files: Files) -> None:
    machine = probe(files)
    assert machine.total_ram_bytes == 16 * GIB
    assert machine.available_ram_bytes == 10 * GIB
    assert machine.limit_bytes is None


def test_cpu_name_and_instruction_sets_are_read(files: Files) -> None:
    machine = probe(files)
    assert machine.cpu_name == "Test CPU"
    assert {"avx", "avx2", "fma", "f16c"} <= machine.instruction_sets
    assert "avx512f" not in machine.instruction_sets
    assert "q4_k" in machine.repack_types
    assert "q2_k" not in machine.repack_types


def test_cgroup_limit_wins_over_the_machine(files: Files) -> None:
    write(files.cgroup / "user.slice/app/memory.max", "max")
    write(files.cgroup / "user.slice/memory.max", 4 * GIB)
    write(files.cgroup / "user.slice/memory.current", 3 * GIB)
    write(files.cgroup / "user.slice/memory.stat", f"anon 5\ninactive_file {1 * GIB}\n")
    machine = probe(files)
    assert machine.limit_bytes == 4 * GIB
    assert machine.available_ram_bytes == 2 * GIB
    assert any("4.0 GiB of 16.0 GiB" in note for note in machine.notes)


def test_old_cgroup_limit_is_read(files: Files) -> None:
    write(files.proc / "self/cgroup", "5:cpu:/x\n9:memory:/docker/abc\n")
    folder = files.cgroup / "memory/docker/abc"
    write(folder / "memory.limit_in_bytes", 2 * GIB)
    write(folder / "memory.usage_in_bytes", GIB)
    machine = probe(files)
    assert machine.limit_bytes == 2 * GIB
    assert machine.available_ram_bytes == GIB


def test_unlimited_old_cgroup_is_no_limit(files: Files) -> None:
    write(files.proc / "self/cgroup", "9:memory:/\n")
    write(files.cgroup / "memory/memory.limit_in_bytes", 9223372036854771712)
    assert probe(files).limit_bytes is None


def test_cpu_quota_caps_the_usable_cores(files: Files) -> None:
    write(files.cgroup / "cpu.max", "100000 100000")
    assert probe(files).num_usable_cores == 1


def test_nothing_readable_still_gives_an_answer(tmp_path: Path) -> None:
    machine = probe(Files(proc=tmp_path / "none", cgroup=tmp_path / "none"))
    assert machine.total_ram_bytes > 0
    assert machine.available_ram_bytes > 0
    assert machine.num_usable_cores >= 1


class FakeNvmlError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"code {value}")
        self.value = value


def fake_nvml(*gpus: tuple[str, int, int] | None, starts: int | None = None) -> Any:
    """A driver with ``gpus`` (name, total, free); None is one that fails."""

    def init() -> None:
        if starts is not None:
            raise FakeNvmlError(starts)

    def handle(index: int) -> tuple[str, int, int]:
        gpu = gpus[index]
        if gpu is None:
            raise FakeNvmlError(999)
        return gpu

    return SimpleNamespace(
        NVMLError=FakeNvmlError,
        NVML_ERROR_LIBRARY_NOT_FOUND=12,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(gpus),
        nvmlDeviceGetHandleByIndex=handle,
        nvmlDeviceGetName=lambda gpu: gpu[0],
        nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(total=gpu[1], free=gpu[2]),
        nvmlDeviceGetCudaComputeCapability=lambda gpu: (8, 9),
        NVML_CLOCK_MEM=2,
        nvmlDeviceGetMaxClockInfo=lambda gpu, kind: 10501,
        nvmlDeviceGetMemoryBusWidth=lambda gpu: 384,
    )


def test_gpus_are_listed_with_free_memory() -> None:
    notes: list[str] = []
    found = nvidia_gpus(notes, fake_nvml(("RTX 4090", 24 * GIB, 20 * GIB)))
    assert found == (Gpu(0, "RTX 4090", 24 * GIB, 20 * GIB, (8, 9), 1008.096e9),)
    assert notes == []


def test_machine_without_driver_is_no_failure() -> None:
    notes: list[str] = []
    assert nvidia_gpus(notes, fake_nvml(starts=12)) == ()
    assert notes == []


def test_broken_driver_is_noted() -> None:
    notes: list[str] = []
    assert nvidia_gpus(notes, fake_nvml(starts=18)) == ()
    assert "does not answer: code 18" in notes[0]


def test_failing_gpu_does_not_hide_the_others() -> None:
    notes: list[str] = []
    found = nvidia_gpus(notes, fake_nvml(("A", 8 * GIB, GIB), None))
    assert [gpu.name for gpu in found] == ["A"]
    assert "after 1 GPUs" in notes[0]


CUDA = {"kind": 1, "name": "CUDA0", "description": "RTX 4090", "free_bytes": 1, "total_bytes": 2}
VULKAN = {"kind": 1, "name": "Vulkan0", "description": "RX 7600", "free_bytes": 7, "total_bytes": 8}
SHARING = {"kind": 2, "name": "Vulkan1", "description": "Iris", "free_bytes": 5, "total_bytes": 6}
CPU = {"kind": 0, "name": "CPU", "description": "CPU", "free_bytes": 1, "total_bytes": 1}


def found_gpus(
    facts: dict[str, Any], record: dict[str, Any], *gpus: tuple[str, int, int]
) -> tuple[tuple[Gpu, ...], str | None]:
    def ask() -> dict[str, Any]:
        return facts

    there = [Path(__file__)]
    return find_gpus([], nvml=fake_nvml(*gpus), record=lambda: record, ask=ask, device_files=there)


RTX = ("RTX 4090", 24 * GIB, 20 * GIB)


def test_gpus_that_llama_cpp_sees_have_the_drivers_numbers() -> None:
    facts = {"gpu_offload": True, "devices": [CPU, CUDA]}
    found, problem = found_gpus(facts, {}, ("RTX 3060", 12 * GIB, GIB), RTX)
    assert found == (Gpu(0, "RTX 4090", 24 * GIB, 20 * GIB, (8, 9), 1008.096e9),)
    assert problem is None


def test_gpus_of_other_makers_come_from_llama_cpp() -> None:
    facts = {"gpu_offload": True, "devices": [VULKAN, SHARING, CPU]}
    assert found_gpus(facts, {}) == ((Gpu(0, "RX 7600", 8, 7),), None)
    facts = {"gpu_offload": True, "devices": [SHARING, CPU]}
    assert found_gpus(facts, {}) == ((Gpu(0, "Iris", 6, 5),), None)


@pytest.mark.parametrize(
    ("facts", "record", "why"),
    [
        ({"gpu_offload": False, "devices": [CPU]}, {}, "built for the CPU"),
        ({"gpu_offload": True, "devices": [CPU]}, {}, "does not see it"),
        ({"error": "llama.cpp does not load: libcudart"}, {}, "libcudart"),
        (
            {"gpu_offload": False, "devices": [CPU]},
            {"build": "cpu-compiled", "unused_gpu": "RTX 4090 stays unused: nvcc is missing"},
            "nvcc is missing",
        ),
    ],
)
def test_a_gpu_that_cannot_be_used_says_why(
    facts: dict[str, Any], record: dict[str, Any], why: str
) -> None:
    found, problem = found_gpus(facts, record, RTX)
    assert [gpu.name for gpu in found] == ["RTX 4090"]
    assert problem is not None
    assert problem.startswith("RTX 4090 stays unused: ") and why in problem


def test_a_cpu_build_is_not_asked_for_its_gpus() -> None:
    def ask() -> dict[str, Any]:
        raise AssertionError

    noted = {"build": "cpu-prebuilt"}
    assert find_gpus([], nvml=fake_nvml(starts=12), record=lambda: noted, ask=ask) == ((), None)
