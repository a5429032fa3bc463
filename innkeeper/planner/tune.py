"""Finds the fastest settings for a model on this CPU by measuring, once, and remembers them."""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from innkeeper.errors import UnsupportedModelError
from innkeeper.formats.gguf_header import GgufHeader
from innkeeper.planner.hardware import Hardware
from innkeeper.planner.proxy import write_proxy
from innkeeper.planner.shape import read_shape
from innkeeper.planner.verify import child_environment

SEARCH_SECONDS = 8.0
READ_PER_TURN, WRITTEN_PER_TURN = 235, 200
"""Tokens of a chat's turn: 150 new ones are read, and once in twenty turns 1,700 anew."""
WORTH_CHANGING = 0.97
"""A setting must save three hundredths of a turn, or it may be noise."""
_CHILD_SECONDS = 30.0


@dataclass(frozen=True)
class CpuSettings:
    """What is tried, in ``EngineConfig``'s names and ``repack``."""

    repack: bool = True
    max_ubatch: int = 128
    flash_attention: bool = False
    num_threads: int = 1


@dataclass(frozen=True)
class Timing:
    """One setting and what it takes, for the whole model."""

    settings: CpuSettings
    read_seconds: float
    """Per token of a prompt."""
    write_seconds: float
    """Per token of a reply."""

    @property
    def turn_seconds(self) -> float:
        return READ_PER_TURN * self.read_seconds + WRITTEN_PER_TURN * self.write_seconds


@dataclass(frozen=True)
class Tuned:
    """The best settings and how all that were tried did; the default comes first."""

    best: Timing
    timings: tuple[Timing, ...]

    @property
    def gain(self) -> float:
        """Time of a turn by default over time of the best, 1.0 or more."""
        return self.timings[0].turn_seconds / self.best.turn_seconds


def candidates(num_cores: int) -> list[CpuSettings]:
    """The default first, then what differs from it in one or two points."""
    default = CpuSettings(num_threads=num_cores)
    found = [
        default,
        CpuSettings(repack=False, num_threads=num_cores),
        CpuSettings(max_ubatch=32, num_threads=num_cores),
        CpuSettings(repack=False, max_ubatch=32, num_threads=num_cores),
        CpuSettings(flash_attention=True, num_threads=num_cores),
        CpuSettings(repack=False, flash_attention=True, num_threads=num_cores),
    ]
    fewer = {num_cores - 1, num_cores // 2} - {0, num_cores}
    return found + [CpuSettings(num_threads=count) for count in sorted(fewer, reverse=True)]


def tune(
    header: GgufHeader, hardware: Hardware, *, seconds: float = SEARCH_SECONDS
) -> Tuned | None:
    """Measures for about ``seconds``; None if the model cannot be cut down for it.

    Takes the memory of two layers twice (plain and rearranged) and some 100 MiB.
    """
    tried = candidates(hardware.num_usable_cores)
    with tempfile.TemporaryDirectory(prefix="innkeeper-") as folder:
        path = Path(folder) / "proxy.gguf"
        try:
            factor = write_proxy(header, path)
        except UnsupportedModelError:
            return None
        found = _run_child(path, tried, seconds)
    timings = [
        Timing(settings, factor * times["read"], factor * times["write"])
        for settings, times in zip(tried, found, strict=False)
        if times and "write" in times
    ]
    if not timings or timings[0].settings != tried[0]:
        return None
    return Tuned(_best(timings), tuple(timings))


def _best(timings: Sequence[Timing]) -> Timing:
    """The fastest, if it is clearly faster than the default."""
    default, fastest = timings[0], min(timings, key=lambda timing: timing.turn_seconds)
    return fastest if fastest.turn_seconds < WORTH_CHANGING * default.turn_seconds else default


def _run_child(
    path: Path, tried: Sequence[CpuSettings], seconds: float
) -> list[dict[str, float] | None]:
    job = {"path": str(path), "seconds": seconds, "settings": [asdict(item) for item in tried]}
    try:
        child = subprocess.run(
            [sys.executable, "-m", "innkeeper.planner.tune_run"],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds + _CHILD_SECONDS,
            env=child_environment(),
            check=False,
        )
        found: list[dict[str, float] | None] = json.loads(child.stdout or "[]")
    except (subprocess.TimeoutExpired, json.JSONDecodeError):
        return []
    return found


def key(header: GgufHeader, hardware: Hardware) -> str:
    """What a result holds for: shape, types, CPU and llama.cpp, but not the model's name."""
    shape = read_shape(header)
    types = Counter(tensor.type.name for tensor in header.tensors if len(tensor.shape) > 1)
    try:
        library = version("llama-cpp-python")
    except PackageNotFoundError:
        library = "none"
    parts = (
        *(shape.architecture, shape.width, shape.ffn_width, shape.num_heads, shape.num_layers),
        *(f"{name}:{count}" for name, count in sorted(types.items())),
        *(hardware.cpu_name, hardware.num_usable_cores, library),
    )
    return "|".join(map(str, parts))


def remembered(cache: Path, header: GgufHeader, hardware: Hardware) -> Tuned | None:
    """What was measured before for this shape on this machine; None if nothing was."""
    entry = _load(cache).get(key(header, hardware))
    try:
        timings = tuple(_timing(item) for item in entry) if isinstance(entry, list) else ()
    except (KeyError, TypeError):
        return None
    return Tuned(_best(timings), timings) if timings else None


def remember(cache: Path, header: GgufHeader, hardware: Hardware, tuned: Tuned) -> None:
    """Keeps ``tuned`` in the JSON file ``cache``, replacing it as a whole."""
    entries = _load(cache)
    entries[key(header, hardware)] = [asdict(timing) for timing in tuned.timings]
    cache.parent.mkdir(parents=True, exist_ok=True)
    fresh = cache.with_name(f"{cache.name}.{os.getpid()}")
    fresh.write_text(json.dumps(entries, indent=1), encoding="utf-8")
    fresh.replace(cache)


def _timing(item: dict[str, object]) -> Timing:
    settings = item["settings"]
    if not isinstance(settings, dict):
        raise TypeError
    read, write = item["read_seconds"], item["write_seconds"]
    if not isinstance(read, float) or not isinstance(write, float):
        raise TypeError
    return Timing(CpuSettings(**settings), read, write)


def _load(cache: Path) -> dict[str, object]:
    try:
        found = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
