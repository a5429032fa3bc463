"""``innkeeper doctor``: what this computer offers and what is in the way."""

import json
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from innkeeper import __version__
from innkeeper.cli.installed import llama_record
from innkeeper.cli.options import Options
from innkeeper.config import Settings
from innkeeper.units import format_bytes

_LLAMA_SECONDS = 60
# The command line never links llama.cpp: a library that does not load must not end the doctor.
_LLAMA_FACTS = """
import json, sys
import llama_cpp
from llama_cpp import llama_cpp as lib
lib.llama_backend_init()
print(json.dumps({
    "package": llama_cpp.__version__,
    "system_info": lib.llama_print_system_info().decode(),
    "gpu_offload": bool(lib.llama_supports_gpu_offload()),
}))
"""
_SETS = (
    *("avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16"),
    *("amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "sve"),
)


def doctor(options: Options, *, as_json: bool) -> None:
    """Prints the findings. Raises: SettingsError."""
    found = findings(options.settings())
    if as_json:
        print(json.dumps(found, indent=2))
        return
    console = Console(highlight=False)
    for title, rows in found.items():
        if title != "problems":
            console.print(_table(title, rows))
    for problem in found["problems"]:
        console.print(f"[yellow]![/yellow] {problem}")
    if not found["problems"]:
        console.print("[green]No problems found.[/green]")


def findings(settings: Settings) -> dict[str, Any]:
    """Everything that ``doctor`` shows, as JSON types."""
    llama, gpus, ports = llama_facts(), nvidia_gpus(), _ports(settings)
    return {
        "innkeeper": {
            "version": __version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            "home": str(settings.home),
        },
        "cpu": cpu_facts(),
        "memory": _memory(settings),
        "gpus": gpus,
        "llama.cpp": llama,
        "ports": ports,
        "problems": _problems(llama, gpus, ports),
    }


def cpu_facts() -> dict[str, Any]:
    """Cores and the instruction sets that matter to llama.cpp."""
    model, flags = platform.processor() or platform.machine(), set[str]()
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            model = value.strip()
        elif name.strip() in ("flags", "Features"):
            flags |= set(value.split())
    return {
        "model": model,
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "instruction_sets": [name for name in _SETS if name in flags],
    }


def nvidia_gpus() -> list[dict[str, Any]]:
    """GPUs as the NVIDIA driver reports them; empty without one."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        count = range(pynvml.nvmlDeviceGetCount())
        return [_nvidia_gpu(pynvml, pynvml.nvmlDeviceGetHandleByIndex(i)) for i in count]
    finally:
        pynvml.nvmlShutdown()


def _nvidia_gpu(pynvml: Any, handle: Any) -> dict[str, Any]:
    name, memory = pynvml.nvmlDeviceGetName(handle), pynvml.nvmlDeviceGetMemoryInfo(handle)
    return {
        "name": name.decode() if isinstance(name, bytes) else name,
        "total_bytes": int(memory.total),
        "free_bytes": int(memory.free),
        "driver": str(pynvml.nvmlSystemGetDriverVersion()),
    }


def llama_facts() -> dict[str, Any]:
    """Version and build of llama.cpp, asked in a process of its own; ``error`` if it fails."""
    command = [sys.executable, "-P", "-c", _LLAMA_FACTS]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_LLAMA_SECONDS)
        facts = json.loads(result.stdout.strip().splitlines()[-1]) if result.stdout else {}
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return {"error": f"llama.cpp did not answer: {error}"}
    if result.returncode != 0 or not facts:
        lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
        return {"error": f"llama.cpp does not load: {lines[-1]}"}
    record = llama_record()
    return {**facts, "build": record.get("why"), "unused_gpu": record.get("unused_gpu")}


def _memory(settings: Settings) -> dict[str, Any]:
    memory = psutil.virtual_memory()
    place = settings.home
    while place is not None and not place.exists() and place != place.parent:
        place = place.parent
    disk = psutil.disk_usage(str(place))
    return {
        "total_bytes": memory.total,
        "available_bytes": memory.available,
        "home_free_disk_bytes": disk.free,
    }


def _ports(settings: Settings) -> dict[str, Any]:
    wanted = {"api": settings.api_port, "ui": settings.ui_port}
    return {name: {"port": port, "free": _is_free(port)} for name, port in wanted.items()}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _problems(
    llama: dict[str, Any], gpus: list[dict[str, Any]], ports: dict[str, Any]
) -> list[str]:
    problems = [llama["error"]] if "error" in llama else []
    if llama.get("unused_gpu"):
        problems.append(llama["unused_gpu"])
    elif gpus and not llama.get("gpu_offload"):
        problems.append(
            f"{gpus[0]['name']} stays unused: llama.cpp was built for the CPU"
            " (delete .venv and run ./start, with the CUDA toolkit's nvcc installed)"
        )
    for name, row in ports.items():
        if not row["free"]:
            flag = f"--{name}-port"
            problems.append(f"port {row['port']} ({name}) is in use; choose another with {flag}")
    return problems


def _table(title: str, rows: Any) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
    if isinstance(rows, list):
        for row in rows or [{"name": "none found"}]:
            details = ", ".join(f"{k} {_shown(k, v)}" for k, v in row.items() if k != "name")
            table.add_row(row["name"], details)
        return table
    for name, value in rows.items():
        table.add_row(name.removesuffix("_bytes").replace("_", " "), _shown(name, value))
    return table


def _shown(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(key, inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    if name.endswith("_bytes"):
        return format_bytes(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
