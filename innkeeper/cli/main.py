"""Commands, and what becomes of their errors.

Nothing here imports the servers before a command needs them, so that ``--help`` is quick.
"""

import sys
from typing import Annotated

import typer

from innkeeper import __version__
from innkeeper.cli.fit import fit
from innkeeper.cli.identify import identify
from innkeeper.cli.ls import ls
from innkeeper.cli.options import Options, with_settings
from innkeeper.cli.pull import pull
from innkeeper.cli.rm import rm
from innkeeper.cli.search import search
from innkeeper.cli.tune import tune
from innkeeper.errors import (
    InnkeeperError,
    InvalidRequestError,
    ModelFileError,
    NotFoundError,
    SettingsError,
)

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
_BAD_INPUT = (SettingsError, ModelFileError, NotFoundError, InvalidRequestError)

app = typer.Typer(
    name="innkeeper",
    help="Serve a language model on this computer, for SillyTavern and every other client.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start here:  [bold]innkeeper up path/to/model.gguf[/bold]",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"innkeeper {__version__}")
        raise typer.Exit


@app.callback()
def innkeeper(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Serve a language model on this computer, for SillyTavern and every other client."""


@app.command()
@with_settings()
def up(
    options: Options,
    model: Annotated[
        str | None,
        typer.Argument(
            help="A .gguf file, a folder with one in it, a name that innkeeper ls shows, or a"
            " Hugging Face repository such as org/name:Q4_K_M. Without it: the newest that is here,"
            " else the best that fits (it asks first), else the built-in demo model.",
            show_default=False,
        ),
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Load the built-in demo model: small, for a first look.")
    ] = False,
) -> None:
    """Load a model and serve it: the API, and a web page to chat.

    When it is ready, one line on stdout has both URLs. Ctrl-C stops it.
    """
    from innkeeper.cli.up import up as run_up

    run_up(options, model, demo=demo)


@app.command()
@with_settings("home", "host", "api_port", "ui_port")
def doctor(
    options: Options,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show what this computer offers, what is used of it, and what is in the way."""
    from innkeeper.cli.doctor import doctor as run_doctor

    run_doctor(options, as_json=json)


@app.command()
@with_settings("home", "host", "api_port", "no_ui", "ui_port", "api_key", "api_key_file", "also")
def connect(
    options: Options,
    client: Annotated[
        str | None,
        typer.Argument(
            help="sillytavern, ollama, openai, ...; without it all.", show_default=False
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show what to type into a client, so that it uses this server."""
    from innkeeper.cli.connect import connect as run_connect

    run_connect(options, client, as_json=json)


for _command in (search, fit, identify, pull, ls, rm, tune):
    app.command()(_command)

COMMANDS = frozenset(
    {"up", "fit", "identify", "pull", "ls", "rm", "tune", "doctor", "connect", "search"}
)


def main(arguments: list[str] | None = None) -> None:
    """Runs a command line and exits: 0, 2 for bad input, 1 for a failure, 130 for Ctrl-C."""
    arguments = with_command(sys.argv[1:] if arguments is None else arguments)
    try:
        app(arguments)
    except InnkeeperError as error:
        print(f"innkeeper: {error}", file=sys.stderr)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def with_command(arguments: list[str]) -> list[str]:
    """``arguments`` with ``up`` before a first word that is a model or one of its options."""
    is_general = arguments[:1] in ([], ["-h"], ["--help"], ["--version"])
    if is_general or arguments[0] in COMMANDS:
        return arguments
    return ["up", *arguments]


def exit_code(error: InnkeeperError) -> int:
    """2 where the user gave something wrong, 1 where something failed."""
    return EXIT_BAD_INPUT if isinstance(error, _BAD_INPUT) else EXIT_FAILED
