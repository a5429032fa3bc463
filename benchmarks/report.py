"""The one form of a benchmark's result: a Markdown table with machine, commit and command."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path

import psutil


class Table:
    """Rows under a header; ``markdown`` adds where and how they were measured."""

    def __init__(self, *header: str) -> None:
        self._rows: list[tuple[str, ...]] = [header, tuple("---" for _ in header)]

    def add(self, *cells: str) -> None:
        self._rows.append(cells)

    def markdown(self, note: str = "") -> str:
        lines = ["| " + " | ".join(row) + " |" for row in self._rows]
        about = [f"{date.today()}", machine(), f"commit {commit()}", f"`{command()}`"]
        return "\n".join([*lines, "", " · ".join([*about, note] if note else about)])


def machine() -> str:
    """Processor, cores that may be used, memory."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        name = models[0].split(":", 1)[1].strip() if models else name
    memory = psutil.virtual_memory().total / 2**30
    return f"{name}, {psutil.cpu_count()} cores, {memory:.0f} GiB"


def commit() -> str:
    """Short hash, with a mark if the tree differs from it."""
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return run.stdout.strip() or "unknown"


def command() -> str:
    """The command line, files by name alone."""
    module = "benchmarks." + Path(sys.argv[0]).stem
    words = [Path(word).name if os.sep in word else word for word in sys.argv[1:]]
    return shlex.join(["python", "-m", module, *words])
