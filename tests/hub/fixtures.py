"""Fixtures for tests that talk to the local hub; a conftest imports them."""

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from innkeeper.hub.client import Hub
from tests.hub.server import LocalHub


@pytest.fixture
def hf_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home of Hugging Face's library: no token, nothing in its cache."""
    home = tmp_path / "hf-home"
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setenv("OLLAMA_MODELS", str(home / "ollama"))
    assert huggingface_hub.get_token() is None
    return home


@pytest.fixture
def server(hf_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    # the hub is spoken to over plain HTTP, and reading the authorities takes 50 ms
    monkeypatch.setenv("SSL_CERT_DIR", str(hf_home))
    with LocalHub() as running:
        yield running
        close_session()


@pytest.fixture
def waits() -> list[float]:
    """The seconds that ``hub`` would have waited between tries."""
    return []


@pytest.fixture
def hub(server: LocalHub, waits: list[float]) -> Hub:
    """A client of ``server`` that does not really wait."""
    return Hub(server.url, sleep=waits.append)
