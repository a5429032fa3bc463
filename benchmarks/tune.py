"""Is the tuned setting faster than the default, on the whole model?

    python -m benchmarks.tune MODEL.gguf... [--rounds 4] [--seconds 8]

The search sees two layers for some seconds. Here the whole model does a recorded chat turn (150
tokens read, 200 written, behind a prompt) and reads a cold prompt of 1,700, with the default and
with what the search chose, in turn and in changing order. "beside" is default over tuned: above 1,
tuned is faster; "foreseen" is what the search expected of a chat.
"""

import argparse
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.report import Table
from innkeeper.backends.llama_cpp.load import load
from innkeeper.backends.llama_cpp.runner import LlamaRunner
from innkeeper.core import EngineConfig
from innkeeper.engine.runner import Row
from innkeeper.errors import BusyError
from innkeeper.formats import gguf
from innkeeper.planner.hardware import probe
from innkeeper.planner.tune import (
    READ_COLD,
    READ_PER_TURN,
    SEARCH_SECONDS,
    WRITTEN_PER_TURN,
    CpuSettings,
    tune,
)

_NUM_CTX = 2304


@dataclass
class Contestant:
    """One setting, the model loaded with it, and its times, one a round."""

    settings: CpuSettings
    runner: LlamaRunner
    cold_seconds: list[float] = field(default_factory=list)
    turn_seconds: list[float] = field(default_factory=list)

    def round(self) -> None:
        self.runner.remove(0, 0)
        self.cold_seconds.append(self._read(0, READ_COLD))
        turn = self._read(READ_COLD, READ_PER_TURN)
        for step in range(WRITTEN_PER_TURN):
            turn += self._read(READ_COLD + READ_PER_TURN + step, 1)
        self.turn_seconds.append(turn)

    def _read(self, start: int, count: int) -> float:
        """Seconds for ``count`` tokens from position ``start``."""
        began, end = time.perf_counter(), start + count
        for first in range(start, end, self.runner.max_rows):
            rows = range(first, min(first + self.runner.max_rows, end))
            self.runner.forward([Row(300 + at % 97, at, 0, at == end - 1) for at in rows])
        return time.perf_counter() - began


def compare(model: Path, rounds: int, seconds: float) -> tuple[str, str, str, str, str]:
    """A row of the table."""
    try:
        found = tune(gguf.read_model(model).header, probe(), seconds=seconds)
    except BusyError as error:
        return (model.stem, error.message, "-", "-", "-")
    assert found is not None
    default, best = found.timings[0].settings, found.best.settings
    if best == default:
        return (model.stem, "the default", "1.00", "1.00", "1.00")
    pair = [Contestant(settings, _load(model, settings)) for settings in (default, best)]
    for _ in range(rounds):
        for each in pair:
            each.round()
        pair.reverse()
    pair.sort(key=lambda each: each.settings != default)
    for each in pair:
        each.runner.close()
    usual, tuned = pair
    turn = beside(usual.turn_seconds, tuned.turn_seconds)
    cold = beside(usual.cold_seconds, tuned.cold_seconds)
    return (model.stem, str(best), turn, cold, f"{found.gain:.2f}")


def beside(usual: list[float], tuned: list[float]) -> str:
    """Of the rounds' ratios, the median (and the least and the most)."""
    ratios = sorted(a / b for a, b in zip(usual, tuned, strict=True))
    return f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def _load(model: Path, settings: CpuSettings) -> LlamaRunner:
    config = EngineConfig(
        backend="llama_cpp",
        path=str(model),
        name=model.stem,
        num_ctx=_NUM_CTX,
        num_pool=_NUM_CTX,
        num_gpu_layers=0,
        num_threads=settings.num_threads,
        max_ubatch=settings.max_ubatch,
        flash_attention=settings.flash_attention,
        repack=settings.repack,
    )
    runner = load(config, lambda _fraction: None)
    assert isinstance(runner, LlamaRunner)
    return runner


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=SEARCH_SECONDS)
    args = parser.parse_args(list(arguments) if arguments is not None else None)
    table = Table("model", "chosen", "turn beside", "cold beside", "foreseen")
    for model in args.models:
        table.add(*compare(model, args.rounds, args.seconds))
    print(table.markdown())


if __name__ == "__main__":
    main()
