"""``innkeeper doctor``: what this computer offers and what is in the way."""

import json
import platform
import socket
import sys
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from innkeeper import __version__
from innkeeper.cli.options import Options
from innkeeper.config import Settings
from innkeeper.planner.hardware import Hardware, probe
from innkeeper.planner.llama_build import ask_llama, llama_record
from innkeeper.units import format_bytes


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
    hardware, llama, ports = probe(), _llama(), _ports(settings)
    return {
        "innkeeper": {
            "version": __version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            "home": str(settings.home),
        },
        "cpu": {
            "model": hardware.cpu_name,
            "physical_cores": hardware.num_physical_cores,
            "usable_cores": hardware.num_usable_cores,
            "instruction_sets": sorted(hardware.instruction_sets),
        },
        "memory": {
            "total_bytes": hardware.total_ram_bytes,
            "available_bytes": hardware.available_ram_bytes,
            "home_free_disk_bytes": _free_disk(settings),
        },
        "gpus": [
            {"name": g.name, "total_bytes": g.total_bytes, "free_bytes": g.free_bytes}
            for g in hardware.gpus
        ],
        "llama.cpp": llama,
        "ports": ports,
        "problems": [*hardware.notes, *_problems(hardware, llama, ports)],
    }


def _llama() -> dict[str, Any]:
    facts, record = ask_llama(), llama_record()
    if "error" in facts:
        return facts
    del facts["devices"]  # listed as GPUs
    return {**facts, "build": record.get("why"), "unused_gpu": record.get("unused_gpu")}


def _free_disk(settings: Settings) -> int:
    place = settings.home or Path.home()
    while not place.exists() and place != place.parent:
        place = place.parent
    return psutil.disk_usage(str(place)).free


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


def _problems(hardware: Hardware, llama: dict[str, Any], ports: dict[str, Any]) -> list[str]:
    problems = [llama["error"]] if "error" in llama else []
    unused = hardware.gpu_problem or llama.get("unused_gpu")
    if unused and "error" not in llama:
        problems.append(unused)
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
