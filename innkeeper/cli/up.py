"""``innkeeper up``."""

from innkeeper.app import Home, find_model
from innkeeper.cli.options import Options


def up(options: Options, model: str | None) -> None:
    """Serves until it is stopped. Raises: InnkeeperError."""
    settings = options.settings()
    assert settings.home is not None
    home = Home(settings.home)
    home.prepare()
    path = find_model(home, model)

    # the servers take most of a second to import: a mistyped name is answered before that
    from innkeeper.app.logs import start_logging
    from innkeeper.app.serve import run
    from innkeeper.cli.screen import TerminalScreen

    start_logging(home, settings.log_level)
    with TerminalScreen(path, has_key=settings.api_key is not None) as screen:
        run(settings, home, path, screen)
