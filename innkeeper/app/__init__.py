"""The composition root: builds every object from the settings and runs the servers.

``home`` and ``model`` find out what is meant, and are quick to import; ``serve.run(settings, home,
model_path, screen)`` is the whole program, and returns after a clean stop. What it says on the way
goes to a ``Screen``, so that a terminal, a log or a test may show it.
"""

from innkeeper.app.home import Home, HomeLock
from innkeeper.app.model import find_model

__all__ = ["Home", "HomeLock", "find_model"]
