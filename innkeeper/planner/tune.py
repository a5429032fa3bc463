"""Finds the fastest settings for a model on this CPU by measuring, once, and remembers them."""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Event

from innkeeper.errors import UnsupportedModelError
from innkeeper.formats.gguf_header import GgufHeader
from innkeeper.planner.hardware import Hardware
from innkeeper.planner.proxy import write_proxy
from innkeeper.planner.remembered import load_measured, store_measured
from innkeeper.planner.shape import read_shape
from innkeeper.planner.verify import child_environment
from innkeeper.units import MIB

SEARCH_SECONDS = 8.0
MIN_WEIGHTS_BYTES = 256 * MIB
"""A smaller model is quick in any setting: a search would cost more than it gives."""
READ_PER_TURN, WRITTEN_PER_TURN = 150, 200
"""Tokens of a chat's turn."""
READ_COLD, TURNS_PER_COLD = 1_700, 20
"""A whole prompt is read anew once in so many turns."""
WORTH_CHANGING = 0.97
"""A setting must save three hundredths of a chat's time, or it may be noise."""
_CHILD_BYTES = 192 * MIB
"""Of the measuring process, beside the proxy's weights."""
_CHILD_SECONDS = 30.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class CpuSettings:
    """What is tried, in ``EngineConfig``'s names."""

    repack: bool = True
    max_ubatch: int = 128
    flash_attention: bool = False
    num_threads: int = 1

    def __str__(self) -> str:
        layout = "weights in the CPU's layout" if self.repack else "weights as in the file"
        flash = ", flash attention" if self.flash_attention else ""
        threads = f"{self.num_threads} thread" + "s" * (self.num_threads != 1)
        return f"{layout}, steps of {self.max_ubatch} tokens, {threads}{flash}"


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

    @property
    def chat_seconds(self) -> float:
        """A turn, and its share of the prompts that are read anew."""
        return self.turn_seconds + READ_COLD / TURNS_PER_COLD * self.read_seconds

    def is_no_loss(self, other: "Timing") -> bool:
        """Whether neither a turn nor a new prompt takes longer than with ``other``."""
        return self.turn_seconds <= other.turn_seconds and self.read_seconds <= other.read_seconds


@dataclass(frozen=True)
class Tuned:
    """How the settings did that were tried; the default comes first."""

    timings: tuple[Timing, ...]

    @property
    def best(self) -> Timing:
        """The fastest that loses nothing, if it is clearly faster than the default."""
        default = self.timings[0]
        no_loss = [timing for timing in self.timings if timing.is_no_loss(default)]
        fastest = min(no_loss, key=lambda timing: timing.chat_seconds)
        is_worth_it = fastest.chat_seconds < WORTH_CHANGING * default.chat_seconds
        return fastest if is_worth_it else default

    @property
    def gain(self) -> float:
        """Time of a chat by default over its time with the best, 1.0 or more."""
        return self.timings[0].chat_seconds / self.best.chat_seconds

    def only(self, allowed: Callable[[CpuSettings], bool]) -> "Tuned | None":
        """Without settings that are not allowed; None without the default."""
        kept = tuple(timing for timing in self.timings if allowed(timing.settings))
        return Tuned(kept) if kept[:1] == self.timings[:1] else None


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
    header: GgufHeader,
    hardware: Hardware,
    *,
    seconds: float = SEARCH_SECONDS,
    stop: Event | None = None,
) -> Tuned | None:
    """Measures for about ``seconds``, less once ``stop`` is set.

    None if the model cannot be cut down for it, or memory has no room: two layers are held twice
    (mapped and rearranged), and some 200 MiB.
    """
    tried = candidates(hardware.num_usable_cores)
    with tempfile.TemporaryDirectory(prefix="innkeeper-") as folder:
        path = Path(folder) / "proxy.gguf"
        try:
            factor = write_proxy(header, path)
        except UnsupportedModelError:
            return None
        if 2 * path.stat().st_size + _CHILD_BYTES > hardware.available_ram_bytes:
            return None
        found = _run_child(path, tried, seconds, stop or Event())
    timings = [
        Timing(settings, factor * times["read"], factor * times["write"])
        for settings, times in zip(tried, found, strict=False)
        if times and "write" in times
    ]
    if not timings or timings[0].settings != tried[0]:
        return None
    return Tuned(tuple(timings))


def _run_child(
    path: Path, tried: Sequence[CpuSettings], seconds: float, stop: Event
) -> list[dict[str, float] | None]:
    job = {"path": str(path), "seconds": seconds, "settings": [asdict(item) for item in tried]}
    deadline = time.monotonic() + seconds + _CHILD_SECONDS
    with subprocess.Popen(
        [sys.executable, "-m", "innkeeper.planner.tune_run", json.dumps(job)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=child_environment(),
    ) as child:
        while not stop.is_set() and time.monotonic() < deadline:
            try:
                output, _ = child.communicate(timeout=_POLL_SECONDS)
                found: list[dict[str, float] | None] = json.loads(output or b"[]")
                return found
            except subprocess.TimeoutExpired:
                continue
            except ValueError:
                return []
        child.kill()
    return []


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
    entry = load_measured(cache).get(key(header, hardware))
    try:
        timings = tuple(_timing(item) for item in entry) if isinstance(entry, list) else ()
    except (KeyError, TypeError):
        return None
    return Tuned(timings) if timings else None


def remember(cache: Path, header: GgufHeader, hardware: Hardware, tuned: Tuned) -> None:
    """Keeps ``tuned`` in the JSON file ``cache``."""
    rows = [asdict(timing) for timing in tuned.timings]
    store_measured(cache, key(header, hardware), rows)


def _timing(item: dict[str, object]) -> Timing:
    settings = item["settings"]
    if not isinstance(settings, dict):
        raise TypeError
    read, write = item["read_seconds"], item["write_seconds"]
    if not isinstance(read, float) or not isinstance(write, float):
        raise TypeError
    return Timing(CpuSettings(**settings), read, write)
