"""``innkeeper tune``: which settings are fastest for a model on this CPU."""

import json as json_text
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from innkeeper.cli.ls import open_library
from innkeeper.cli.options import Options, with_settings
from innkeeper.errors import UnsupportedModelError

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
    if found is None:
        raise UnsupportedModelError(
            f"{Path(model).name} cannot be measured in part, or memory has no room for that",
            hint="it runs with the usual settings",
        )
    remember(Home(settings.home).tuning, header, hardware, found)
    rows = _rows(found)
    if json:
        print(json_text.dumps({"gain": found.gain, "settings": rows}, indent=2))
    else:
        _show(rows)


def _rows(found: "Tuned") -> list[dict[str, Any]]:
    from dataclasses import asdict

    return [
        {
            **asdict(timing.settings),
            "read_tokens_per_second": 1 / timing.read_seconds,
            "write_tokens_per_second": 1 / timing.write_seconds,
            "turn_seconds": timing.turn_seconds,
            "chosen": timing == found.best,
        }
        for timing in found.timings
    ]


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from innkeeper.planner.tune import CpuSettings

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Settings")
    for column in ("Read tok/s", "Write tok/s", "A turn"):
        table.add_column(column, justify="right")
    names = CpuSettings.__dataclass_fields__
    for row in rows:
        settings = CpuSettings(**{name: row[name] for name in names})
        table.add_row(
            str(settings),
            f"{row['read_tokens_per_second']:.1f}",
            f"{row['write_tokens_per_second']:.1f}",
            f"{row['turn_seconds']:.1f} s",
            style="bold green" if row["chosen"] else "",
        )
    Console(highlight=False).print(table)
