"""The composition root: builds every object from the settings and runs the servers.

``run(settings, model_path, screen)`` is the whole program; it returns after a clean stop. What it
says on the way goes to a ``Screen``, so that a terminal, a log or a test may show it.
"""

from innkeeper.app.home import Home, HomeLock
from innkeeper.app.model import find_model
from innkeeper.app.serve import Ready, Screen, run

__all__ = ["Home", "HomeLock", "Ready", "Screen", "find_model", "run"]
