"""``innkeeper identify``: what a file, a folder or a repository is."""

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from innkeeper.cli.ls import open_library
from innkeeper.cli.options import Options, with_settings
from innkeeper.cli.pull import open_hub
from innkeeper.units import format_bytes

if TYPE_CHECKING:
    from innkeeper.config import Settings
    from innkeeper.formats.identity import Identity


@with_settings("home", "offline")
def identify(
    options: Options,
    target: Annotated[
        str,
        typer.Argument(
            metavar="PATH|REPO",
            help="A file, a folder, a name that innkeeper ls shows, or org/name[:quant].",
            show_default=False,
        ),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Tell what a model is: format, size, quantization, context, chat format, dangers."""
    found = _identify(options.settings(), target)
    if json:
        print(json_text.dumps(found.to_json(), indent=2))
        return
    _show(found)


def _identify(settings: "Settings", target: str) -> "Identity":
    from innkeeper.errors import InvalidRequestError, NotFoundError
    from innkeeper.formats.identify import identify as identify_path
    from innkeeper.hub.address import looks_remote
    from innkeeper.library import resolve

    path = Path(target).expanduser()
    if path.exists():
        return identify_path(path)
    try:
        return identify_path(resolve(target, open_library(settings)))
    except (NotFoundError, InvalidRequestError):
        if not looks_remote(target):
            raise
    return _identify_remote(settings, target)


def _identify_remote(settings: "Settings", target: str) -> "Identity":
    from innkeeper.formats.identify import identify_source
    from innkeeper.hub.address import parse_address
    from innkeeper.hub.listing import list_repo
    from innkeeper.hub.source import HubSource
    from innkeeper.hub.variants import choose_variant, variants

    address = parse_address(target)
    hub = open_hub(settings)
    listing = list_repo(hub, address.repo_id)
    source = HubSource(hub, listing)
    name, page = address.repo_id.partition("/")[2], f"{hub.endpoint}/{address.repo_id}"
    if not any(variant.is_safe for variant in variants(listing)):
        return identify_source(source, name=name, path=page)
    chosen = choose_variant(listing, address.wanted)
    file = chosen.main.name if chosen.kind == "gguf" else "config.json"
    found = identify_source(source, name=name, path=f"{page}/{file}", chosen=file)
    return msgspec.structs.replace(found, path=page)


def _show(found: "Identity") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for label, value in _rows(found):
        table.add_row(label, Text(value))
    console.print(table)
    for warning in found.warnings:
        console.print(Text(f"! {warning}", style="yellow"))
    if found.advice:
        console.print(Text(f"What to do: {found.advice}"))


def _rows(found: "Identity") -> list[tuple[str, str]]:
    """(label, value) of what is known."""
    params = shown_params(found.num_params) if found.num_params else None
    bits = f", {found.bits_per_weight:g} bits per weight" if found.bits_per_weight else ""
    source = " (a guess by its name)" if found.chat_format_source == "name" else ""
    rows: list[tuple[str, Any]] = [
        ("Name", found.name),
        ("Format", found.format),
        (
            "Runs in",
            {"llama_cpp": "llama.cpp", "torch": "torch"}.get(found.loader or "", "nothing here"),
        ),
        ("Architecture", found.architecture),
        ("Parameters", params),
        ("Quantization", f"{found.quant}{bits}" if found.quant else None),
        ("Size", format_bytes(found.size_bytes) if found.size_bytes else None),
        ("Files", str(len(found.files)) if len(found.files) > 1 else None),
        ("Missing", ", ".join(found.missing_files[:5]) or None),
        ("Context", f"{found.num_ctx_train:,} tokens" if found.num_ctx_train else None),
        ("RoPE scaling", found.rope_scaling),
        ("Experts", str(found.num_experts) if found.num_experts else None),
        ("Chat format", f"{found.chat_format}{source}" if found.chat_format else None),
        ("Licence", found.licence),
        ("Safe", None if found.is_safe else "no: loading it could run a program"),
    ]
    return [(label, str(value)) for label, value in rows if value]


def shown_params(num_params: int) -> str:
    """``7_240_000_000`` -> ``7.24 billion``."""
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if num_params >= size:
            return f"{num_params / size:.3g} {word}"
    return f"{num_params:,}"
