"""The command line. ``main`` is the entry point of ``innkeeper`` and ``inn``."""

from innkeeper.cli.main import main

__all__ = ["main"]
