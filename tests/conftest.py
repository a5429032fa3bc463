"""What all tests have: a home of their own, and nothing of the user's settings."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary ``INNKEEPER_HOME``; no other ``INNKEEPER_*`` setting is left."""
    for name in list(os.environ):
        if name.startswith("INNKEEPER_") and name != "INNKEEPER_SHARED":
            monkeypatch.delenv(name)
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("INNKEEPER_HOME", str(folder))
    return folder
