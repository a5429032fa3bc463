"""``innkeeper rm``."""

import sys
from typing import Annotated

import typer

from innkeeper.cli.ls import open_library
from innkeeper.cli.options import Options, with_settings
from innkeeper.errors import InvalidRequestError
from innkeeper.units import format_bytes


@with_settings("home", "yes")
def rm(
    options: Options,
    name: Annotated[str, typer.Argument(help="As innkeeper ls shows it.", show_default=False)],
) -> None:
    """Delete a model from the home's models folder, all parts of it."""
    settings = options.settings()
    library = open_library(settings)
    path = library.resolve(name)
    if not settings.yes:
        if not sys.stdin.isatty():
            raise InvalidRequestError(
                f"{path} would be deleted, and nobody can be asked", hint="say --yes"
            )
        typer.confirm(f"Delete {path}?", abort=True, err=True)
    freed = library.remove(name)
    print(f"Deleted {name}; {format_bytes(freed)} are free again.", file=sys.stderr)
