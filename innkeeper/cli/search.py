"""``innkeeper search``: finds models on the Hugging Face hub."""

import json as json_text
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from innkeeper.cli.options import Options, with_settings
from innkeeper.cli.pull import open_hub
from innkeeper.errors import InvalidRequestError

if TYPE_CHECKING:
    from innkeeper.hub.listing import FoundRepo


@with_settings("offline")
def search(
    options: Options,
    words: Annotated[
        list[str] | None, typer.Argument(help="Words of the name.", show_default=False)
    ] = None,
    author: Annotated[
        str | None, typer.Option(help="Only models of this account.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Most results.")] = 20,
    any_format: Annotated[
        bool, typer.Option("--any-format", help="Also models that are no GGUF.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Find models on the Hugging Face hub, the most downloaded first."""
    from msgspec import to_builtins

    from innkeeper.hub.listing import search as search_hub

    if not words and not author:
        raise InvalidRequestError(
            "nothing was named to search for", hint="give words, or --author NAME"
        )
    found = search_hub(
        open_hub(options.settings()),
        " ".join(words or []),
        author=author,
        tag=None if any_format else "gguf",
        limit=limit,
    )
    if json:
        print(json_text.dumps(to_builtins(found), indent=2))
    elif found:
        _show(found)
    else:
        print("Nothing was found. Fewer words find more, --any-format too.", file=sys.stderr)


def _show(found: "list[FoundRepo]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Repository")
    table.add_column("Downloads", justify="right")
    table.add_column("")
    for repo in found:
        note = "asks for its licence to be accepted" if repo.is_gated else ""
        table.add_row(Text(repo.repo_id), f"{repo.num_downloads:,}", Text(note, style="dim"))
    console.print(table)
    console.print(Text(f"innkeeper fit {found[0].repo_id} shows what of it fits.", style="dim"))
