"""Where log lines go: the terminal, by ``--log-level``, and ``logs/innkeeper.log``."""

import logging
import logging.handlers
import sys

from innkeeper.app.home import Home
from innkeeper.units import MIB

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def start_logging(home: Home, level: str) -> None:
    """Errors and warnings of all libraries go to both places; ``level`` is the terminal's."""
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(level.upper())
    terminal.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    file = logging.handlers.RotatingFileHandler(
        home.logs / "innkeeper.log", maxBytes=4 * MIB, backupCount=2, encoding="utf-8"
    )
    file.setFormatter(logging.Formatter(_FORMAT))
    # no library's debug lines: they may hold what a user wrote
    logging.basicConfig(level=logging.WARNING, handlers=[terminal, file], force=True)
    logging.getLogger("innkeeper").setLevel(logging.DEBUG if level == "debug" else logging.INFO)
