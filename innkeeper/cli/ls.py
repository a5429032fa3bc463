"""``innkeeper ls``: the models on this computer."""

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from innkeeper.cli.options import Options, with_settings
from innkeeper.units import format_bytes

if TYPE_CHECKING:
    from innkeeper.config import Settings
    from innkeeper.library import Library, LocalModel


@with_settings("home")
def ls(
    options: Options,
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Other folders with models, such as LM Studio's.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """List the models on this computer: yours, and those of other programs."""
    from rich.console import Console

    library = open_library(options.settings(), folders or [])
    models = library.models()
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    for folder in library.missing_folders():
        notes.print(f"There is no folder {folder}, which model_folders names.", markup=False)
    if json:
        print(json_text.dumps([model.to_json() for model in models], indent=2))
        return
    if models:
        Console(highlight=False).print(_table(models))
    if not models:
        notes.print(f"There is no model in {library.models_folder} yet. innkeeper pull gets one.")
    for part in library.unfinished():
        size = format_bytes(part.stat().st_size)
        notes.print(f"Unfinished: {part.name} ({size}). Pull the same again to go on.")


def open_library(settings: "Settings", folders: list[Path] | None = None) -> "Library":
    """The home's models, ``folders``, the settings' folders, Hugging Face's cache and Ollama's."""
    from huggingface_hub import constants

    from innkeeper.library import Library
    from innkeeper.library.ollama import ollama_folder

    assert settings.home is not None
    further = [Path(folder).expanduser() for folder in settings.model_folders]
    return Library(
        settings.home / "models",
        [*(folders or []), *further],
        Path(constants.HF_HUB_CACHE),
        ollama_folder(),
    )


_OWNERS = {"hf_cache": "Hugging Face's cache", "ollama": "Ollama's"}


def _short(num_params: int) -> str:
    """``7.2B``, ``160M``."""
    if num_params < 5e8:
        return f"{num_params / 1e6:.0f}M"
    return f"{num_params / 1e9:.1f}B"


def _table(models: "list[LocalModel]") -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("Name", "Format", "Quant", "Params", "Size", "Context", ""):
        table.add_column(
            column, justify="right" if column in ("Params", "Size", "Context") else "left"
        )
    for model in models:
        found = model.identity
        params = found.num_params if found else None
        context = found.num_ctx_train if found else None
        note = model.problem or _OWNERS.get(model.origin, "")
        table.add_row(
            Text(model.name),
            found.format if found else "?",
            (found.quant or "") if found else "",
            _short(params) if params else "",
            format_bytes(model.size_bytes),
            f"{context:,}" if context else "",
            Text(note, style="yellow" if model.problem else "dim"),
        )
    return table
