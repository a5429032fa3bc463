"""``innkeeper tune``: which settings are fastest for a model on this CPU."""

import json as json_text
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from innkeeper.cli.ls import open_library
from innkeeper.cli.options import Options, with_settings

if TYPE_CHECKING:
    from innkeeper.planner.tune import Tuned


@with_settings("home")
def tune(
    options: Options,
    model: Annotated[
        str, typer.Argument(help="A file, or a name that innkeeper ls shows.", show_default=False)
    ],
    seconds: Annotated[
        float, typer.Option(min=1, max=600, help="How long to measure; longer is surer.")
    ] = 8.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Measure which settings are fastest for a model here, and remember it for later loads."""
    from innkeeper.app import Home
    from innkeeper.formats import gguf
    from innkeeper.library import resolve
    from innkeeper.planner.hardware import probe
    from innkeeper.planner.tune import remember
    from innkeeper.planner.tune import tune as measure

    settings = options.settings()
    assert settings.home is not None
    header = gguf.read_model(resolve(model, open_library(settings))).header
    hardware = probe()
    if not json:
        print(f"Measuring for {seconds:.0f} s ...", file=sys.stderr)
    found = measure(header, hardware, seconds=seconds)
    assert found is not None  # nobody stops it
    remember(Home(settings.home).tuning, header, hardware, found)
    if json:
        print(json_text.dumps({"gain": found.gain, "settings": _rows(found)}, indent=2))
    else:
        _show(found)


def _rows(found: "Tuned") -> list[dict[str, Any]]:
    from dataclasses import asdict

    return [
        {
            **asdict(timing.settings),
            "read_tokens_per_second": 1 / timing.read_seconds,
            "write_tokens_per_second": 1 / timing.write_seconds,
            "turn_seconds": timing.turn_seconds,
            "beside_default": timing.chat_seconds / found.timings[0].chat_seconds,
            "noise": timing.noise,
            "chosen": timing == found.best,
        }
        for timing in found.timings
    ]


def _show(found: "Tuned") -> None:
    from rich.console import Console
    from rich.table import Table

    from innkeeper.planner.tune import READ_PER_TURN, WRITTEN_PER_TURN

    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("Weights", "Step", "Threads", "Flash", "Read", "Write", "A turn", "Beside"):
        table.add_column(column, justify="left" if column in ("Weights", "Flash") else "right")
    default, best = found.timings[0], found.best
    for timing in found.timings:
        settings = timing.settings
        beside = f"{timing.chat_seconds / default.chat_seconds:.0%} ± {timing.noise:.0%}"
        table.add_row(
            "CPU's layout" if settings.repack else "as in the file",
            str(settings.max_ubatch),
            str(settings.num_threads),
            "yes" if settings.flash_attention else "",
            f"{1 / timing.read_seconds:.1f}/s",
            f"{1 / timing.write_seconds:.1f}/s",
            f"{timing.turn_seconds:.1f} s",
            "the usual" if timing == default else beside,
            style="bold green" if timing == best else "",
        )
    console.print(table)
    turn = f"{READ_PER_TURN} tokens read and {WRITTEN_PER_TURN} written"
    console.print(f"A turn: {turn}; beside: a chat's time, the usual is 100%.", style="dim")
    if found.num_threads:
        threads = f"{found.num_threads} thread" + "s" * (found.num_threads != 1)
        console.print(f"Measured with {threads}: other programs keep the CPU busy.")
    if best == default:
        console.print("The usual settings stay: nothing is surely faster.")
    else:
        console.print(f"Loads will use: {best.settings}.", style="bold")
