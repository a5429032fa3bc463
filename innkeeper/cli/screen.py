"""What ``innkeeper up`` shows: progress and instructions on stderr, the ready line on stdout."""

from pathlib import Path

from rich.console import Console, Group
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from innkeeper.app.serve import Ready
from innkeeper.core import ModelFacts
from innkeeper.planner.llama_build import unused_gpu
from innkeeper.serving import LoadState
from innkeeper.units import format_bytes, format_seconds


class TerminalScreen:
    """A progress bar on a terminal; elsewhere (a log, a service) whole lines."""

    def __init__(self, model_path: Path, *, has_key: bool) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._name = model_path.stem
        self._has_key = has_key
        self._progress = Progress(
            TextColumn("Loading {task.fields[name]}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("", total=1.0, name=self._name)

    def __enter__(self) -> "TerminalScreen":
        if not self._console.is_terminal:
            self._console.print(f"Loading {self._name} ...")
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()

    def loading(self, state: LoadState) -> None:
        self._progress.update(self._task, completed=state.fraction, description=state.stage)

    def ready(self, ready: Ready) -> None:
        self._progress.stop()
        self._console.print(ready_panel(ready, has_key=self._has_key))
        for warning in _warnings(ready.facts):
            self._console.print(Text(f"Note: {warning}", style="yellow"))
        print(ready_line(ready), flush=True)

    def stopping(self) -> None:
        self._progress.stop()
        self._console.print("Stopping ...")


def ready_line(ready: Ready) -> str:
    """The one line on stdout, for programs: ``ready api=URL ui=URL``."""
    ui = f" ui={ready.ui_url}" if ready.ui_url else ""
    return f"ready api={ready.api_url}{ui}"


def ready_panel(ready: Ready, *, has_key: bool) -> Panel:
    """Where to go, and what to paste into SillyTavern."""
    places = Table.grid(padding=(0, 2))
    places.add_row("Model", describe(ready.facts))
    if ready.ui_url:
        places.add_row("Chat", Text(ready.ui_url, style="bold cyan"))
    places.add_row("API", Text(f"{ready.api_url}  (its pages: {ready.api_url}docs)"))
    steps = [
        "API Connections (the plug) > API: Text Completion",
        "API Type: Default (Oobabooga)",
        *(["API key: the one you set"] if has_key else []),
        f"API URL: {ready.api_url}    <- paste this",
        "Connect",
        f"Sliders icon > Context (tokens): {ready.facts.num_ctx}",
    ]
    lines = [Text(f"  {number}. {step}") for number, step in enumerate(steps, 1)]
    silly = Group(Text("\nSillyTavern:", style="bold"), *lines)
    return Panel(
        Group(places, silly, Text("\nCtrl-C stops the server.", style="dim")),
        title="Innkeeper is ready",
        title_align="left",
        expand=False,
    )


def describe(facts: ModelFacts) -> str:
    """A model in one line: name, kind, size, place, context, time to load."""
    parts = [facts.description or facts.architecture, format_bytes(facts.size_bytes)]
    parts += [_place(facts), f"context {facts.num_ctx}"]
    parts += [f"loaded in {format_seconds(facts.load_seconds)}"] if facts.load_seconds else []
    return f"{facts.name} ({', '.join(part for part in parts if part)})"


def _place(facts: ModelFacts) -> str:
    if not facts.num_gpu_layers:
        return f"on the {facts.device}"
    if facts.num_gpu_layers >= facts.num_layers:
        return "on the GPU"
    return f"{facts.num_gpu_layers} of {facts.num_layers} layers on the GPU"


def _warnings(facts: ModelFacts) -> list[str]:
    unused = None if facts.num_gpu_layers else unused_gpu()
    return list(dict.fromkeys([*facts.notes, *facts.warnings, *([unused] if unused else [])]))
