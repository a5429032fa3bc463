"""Finds the fastest settings for a model on this CPU by measuring, once, and remembers them."""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from threading import Event

import msgspec

from innkeeper.errors import BusyError, NotEnoughMemoryError
from innkeeper.formats.gguf_header import GgufHeader
from innkeeper.planner.hardware import Hardware, idle_cores
from innkeeper.planner.paired import ENOUGH_ROUNDS, FEWEST_ROUNDS, compare
from innkeeper.planner.proxy import write_proxy
from innkeeper.planner.remembered import load_measured, store_measured
from innkeeper.planner.shape import read_shape
from innkeeper.planner.verify import child_environment
from innkeeper.units import MIB, format_bytes

SEARCH_SECONDS = 8.0
MIN_WEIGHTS_BYTES = 256 * MIB
"""A smaller model is quick in any setting: a search would cost more than it gives."""
READ_PER_TURN, WRITTEN_PER_TURN = 150, 200
"""Tokens of a chat's turn."""
READ_COLD, TURNS_PER_COLD = 1_700, 20
"""A whole prompt is read anew once in so many turns."""
READ_PER_CHAT = READ_PER_TURN + READ_COLD / TURNS_PER_COLD
"""Tokens read for a turn, with its share of the prompts that are read anew."""
WORTH_CHANGING = 0.97
"""A setting must surely save three hundredths of a chat's time, or it is not worth a change."""
_CHILD_BYTES = 192 * MIB
"""Of the measuring process, beside the proxy's weights."""
_START_SECONDS = 1.5
"""That the child may take beside the search."""
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
    noise: float = 0.0
    """How much longer a chat may really take against the default's, as a share of its time."""

    @property
    def turn_seconds(self) -> float:
        return READ_PER_TURN * self.read_seconds + WRITTEN_PER_TURN * self.write_seconds

    @property
    def chat_seconds(self) -> float:
        """A turn, and its share of the prompts that are read anew."""
        return _chat_seconds((self.read_seconds, self.write_seconds))

    @property
    def slowest_chat_seconds(self) -> float:
        return self.chat_seconds * (1 + self.noise)

    def is_no_loss(self, other: "Timing") -> bool:
        """Whether neither a turn nor a new prompt takes longer than with ``other``."""
        return self.turn_seconds <= other.turn_seconds and self.read_seconds <= other.read_seconds


@dataclass(frozen=True)
class Tuned:
    """How the settings did that were tried; the default comes first."""

    timings: tuple[Timing, ...]
    num_threads: int | None = None
    """With how many all were measured, where other programs left no more."""

    @property
    def best(self) -> Timing:
        """The fastest that loses nothing and is faster than the default beyond the noise."""
        default = self.timings[0]
        most = WORTH_CHANGING * default.chat_seconds
        return min(
            (t for t in self.timings if t.is_no_loss(default) and t.slowest_chat_seconds < most),
            key=lambda timing: timing.chat_seconds,
            default=default,
        )

    @property
    def gain(self) -> float:
        """Time of a chat by default over its time with the best, 1.0 or more."""
        return self.timings[0].chat_seconds / self.best.chat_seconds

    def only(self, allowed: Callable[[CpuSettings], bool]) -> "Tuned | None":
        """Without settings that are not allowed; None without the default."""
        kept = tuple(timing for timing in self.timings if allowed(timing.settings))
        return replace(self, timings=kept) if kept[:1] == self.timings[:1] else None


@dataclass(frozen=True)
class NotMeasured:
    """A search that failed."""

    reason: str


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
    idle: Callable[[], float] = idle_cores,
) -> Tuned | None:
    """Measures for at most ``seconds`` and two more; None if ``stop`` is set meanwhile.

    While other programs compute, all settings are measured with the threads that are left
    (``idle`` tells the cores), since threads that wait for each other stall there.
    Raises: UnsupportedModelError if the model cannot be cut down for it; NotEnoughMemoryError if
    memory has no room: two layers are held twice (mapped and rearranged), and some 200 MiB;
    BusyError if too little could be measured.
    """
    tried = candidates(hardware.num_usable_cores)
    num_threads = max(1, min(hardware.num_usable_cores, int(idle() + 0.5)))
    is_crowded = num_threads < hardware.num_usable_cores
    if is_crowded:  # readings are short then, and threads cannot be compared
        usual = tried[0]
        tried = [
            one
            for one in tried
            if (one.num_threads, one.max_ubatch) == (usual.num_threads, usual.max_ubatch)
        ]
    with tempfile.TemporaryDirectory(prefix="innkeeper-") as folder:
        path = Path(folder) / "proxy.gguf"
        factor = write_proxy(header, path)
        needed = 2 * path.stat().st_size + _CHILD_BYTES
        if needed > hardware.available_ram_bytes:
            raise NotEnoughMemoryError(
                f"measuring takes {format_bytes(needed)} of memory;"
                f" {format_bytes(hardware.available_ram_bytes)} can be had",
                hint="close other programs",
            )
        job = {
            "path": str(path),
            "settings": [asdict(one) for one in tried],
            "seconds": seconds,
            "num_threads": num_threads if is_crowded else None,
            "read_weight": READ_PER_CHAT,
            "write_weight": WRITTEN_PER_TURN,
            "worth": WORTH_CHANGING,
        }
        rounds = _run_child(job, seconds + _START_SECONDS, stop or Event())
    if rounds is None:
        return None
    timings = timings_of(tried, rounds, factor)
    if not timings:
        raise BusyError(
            f"too little could be measured in {seconds:.0f} s beside what else this computer does",
            hint="try again when it rests, or for longer with --seconds",
        )
    return Tuned(timings, num_threads if is_crowded else None)


Rounds = Sequence[Sequence[Sequence[float] | None]]
"""By round and setting: seconds per token read, and per token written."""


def timings_of(tried: Sequence[CpuSettings], rounds: Rounds, factor: float) -> tuple[Timing, ...]:
    """Those that ran, the default first; nothing without enough rounds of the default.

    The default's times are medians; the others' are its times by the medians of their ratios.
    ``factor``: how many times longer the whole model takes.
    """
    defaults = [found[0] for found in rounds if found[0]]
    if len(defaults) < FEWEST_ROUNDS:
        return ()
    read, write = (factor * median(each[kind] for each in defaults) for kind in (0, 1))
    timings = []
    for number, settings in enumerate(tried):
        both = [(found[number], found[0]) for found in rounds]
        pairs = [(ours, theirs) for ours, theirs in both if ours and theirs]
        reading = compare((ours[0], theirs[0]) for ours, theirs in pairs)
        writing = compare((ours[1], theirs[1]) for ours, theirs in pairs)
        chatting = compare((_chat_seconds(ours), _chat_seconds(theirs)) for ours, theirs in pairs)
        if reading and writing and chatting:
            noise = chatting.high / chatting.ratio - 1
            if chatting.num_rounds < ENOUGH_ROUNDS:
                noise = max(noise, 1.0)  # it has lost early, or hardly ran: no reason to choose it
            timings.append(Timing(settings, read * reading.ratio, write * writing.ratio, noise))
    return tuple(timings)


def _chat_seconds(times: Sequence[float]) -> float:
    return READ_PER_CHAT * times[0] + WRITTEN_PER_TURN * times[1]


def _run_child(job: dict[str, object], most_seconds: float, stop: Event) -> Rounds | None:
    """The rounds that were complete in time; None once ``stop`` is set."""
    deadline = time.monotonic() + most_seconds
    with subprocess.Popen(
        [sys.executable, "-m", "innkeeper.planner.tune_run", json.dumps(job)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=child_environment(),
    ) as child:
        while not stop.is_set() and time.monotonic() < deadline:
            try:
                return _parsed(child.communicate(timeout=_POLL_SECONDS)[0])
            except subprocess.TimeoutExpired:
                continue
        child.kill()
        output, _ = child.communicate()
    return None if stop.is_set() else _parsed(output)


def _parsed(output: bytes) -> Rounds:
    """Its lines but a last one that was cut short."""
    return [json.loads(line) for line in output.splitlines(keepends=True) if line.endswith(b"\n")]


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


def remembered(cache: Path, header: GgufHeader, hardware: Hardware) -> Tuned | NotMeasured | None:
    """What was found before for this shape on this machine; None if nothing was."""
    entry = load_measured(cache).get(key(header, hardware))
    try:
        if isinstance(entry, dict) and "reason" in entry:
            return msgspec.convert(entry, NotMeasured)
        return msgspec.convert(entry, Tuned)
    except msgspec.ValidationError:
        return None


def remember(
    cache: Path, header: GgufHeader, hardware: Hardware, found: Tuned | NotMeasured
) -> None:
    """Keeps ``found`` in the JSON file ``cache``."""
    store_measured(cache, key(header, hardware), asdict(found))
