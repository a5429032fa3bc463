"""``innkeeper up``."""

import sys
from pathlib import Path

from innkeeper import demo as built_in
from innkeeper.app import Home, find_model
from innkeeper.app.model import models_in
from innkeeper.cli.options import Options
from innkeeper.errors import InvalidRequestError


def up(options: Options, model: str | None, *, demo: bool = False) -> None:
    """Serves until it is stopped. Raises: InnkeeperError."""
    settings = options.settings()
    assert settings.home is not None
    home = Home(settings.home)
    home.prepare()
    path = _choose(home, model, demo=demo)

    # the servers take most of a second to import: a mistyped name is answered before that
    from innkeeper.app.logs import start_logging
    from innkeeper.app.serve import run
    from innkeeper.cli.screen import TerminalScreen

    start_logging(home, settings.log_level)
    with TerminalScreen(path, has_key=settings.api_key is not None) as screen:
        run(settings, home, path, screen)


def _choose(home: Home, model: str | None, *, demo: bool) -> Path:
    """The model that was asked for, or the built-in one where there is none."""
    if demo and model is not None:
        raise InvalidRequestError(
            f"--demo loads the built-in model, so {model} cannot be loaded too",
            hint="leave one of the two out",
        )
    if not demo and (model is not None or models_in(home.models)):
        return find_model(home, model)
    if not demo:
        print(
            f"No model in {home.models}: this is the small built-in one, for a first look.\n"
            "Yours: innkeeper up MODEL.gguf, or put a .gguf file into that folder.",
            file=sys.stderr,
        )
    return built_in.MODEL
