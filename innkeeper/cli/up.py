"""``innkeeper up``."""

import sys
from pathlib import Path

from innkeeper import demo as built_in
from innkeeper.app import Home, find_model
from innkeeper.app.model import models_in
from innkeeper.cli.options import Options
from innkeeper.cli.pull import looks_like_repo, obtain
from innkeeper.config import Settings
from innkeeper.errors import InvalidRequestError, NotEnoughMemoryError, NotFoundError
from innkeeper.hub.errors import HubBusyError, HubUnreachableError


def up(options: Options, model: str | None, *, demo: bool = False) -> None:
    """Serves until it is stopped. Raises: InnkeeperError."""
    settings = options.settings()
    assert settings.home is not None
    home = Home(settings.home)
    home.prepare()
    path = _choose(settings, home, model, demo=demo)

    # the servers take most of a second to import: a mistyped name is answered before that
    from innkeeper.app.logs import start_logging
    from innkeeper.app.serve import run
    from innkeeper.cli.screen import TerminalScreen

    start_logging(home, settings.log_level)
    with TerminalScreen(path, has_key=settings.api_key is not None) as screen:
        run(settings, home, path, screen)


def _choose(settings: Settings, home: Home, model: str | None, *, demo: bool) -> Path:
    """The model that was asked for, downloaded if need be; without one, the newest here, the best
    of the catalogue (after a question), or the built-in one."""
    if demo and model is not None:
        raise InvalidRequestError(
            f"--demo loads the built-in model, so {model} cannot be loaded too",
            hint="leave one of the two out",
        )
    if demo:
        return built_in.MODEL
    if model is not None:
        return _named(settings, home, model)
    if models_in(home.models):
        return find_model(home, None)
    return _first(settings, home)


def _named(settings: Settings, home: Home, model: str) -> Path:
    try:
        return find_model(home, model)
    except NotFoundError as error:
        try:
            return obtain(settings, model)
        except NotFoundError as other:
            raise (other if looks_like_repo(model) else error) from None


def _first(settings: Settings, home: Home) -> Path:
    """What an empty home begins with."""
    why = f"No model in {home.models}"
    if not settings.offline and (settings.yes or sys.stdin.isatty()):
        try:
            return obtain(settings, None)
        except (HubUnreachableError, HubBusyError, NotEnoughMemoryError) as error:
            why += f" ({error})"
    print(
        f"{why}: this is the small built-in one, for a first look.\n"
        "Yours: innkeeper up MODEL.gguf, or up ORG/NAME from Hugging Face.",
        file=sys.stderr,
    )
    return built_in.MODEL
