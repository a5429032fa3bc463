"""What all tests have: a home of their own, and nothing of the user's settings."""

import gc
import os
import sys
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Where nothing may be compiled beside the sources, it is kept in pytest's cache: hundreds of
    processes are started here, and each would compile all that it imports."""
    if sys.dont_write_bytecode:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        sys.pycache_prefix = str(config.rootpath / ".pytest_cache" / "bytecode")
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
        sys.dont_write_bytecode = False


def pytest_collection_finish() -> None:
    """Modules and thousands of collected tests are never garbage: full collections, a third of a
    second each, need not look at them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary ``INNKEEPER_HOME``; no other ``INNKEEPER_*`` setting is left."""
    for name in list(os.environ):
        if name.startswith("INNKEEPER_") and name != "INNKEEPER_SHARED":
            monkeypatch.delenv(name)
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("INNKEEPER_HOME", str(folder))
    return folder
