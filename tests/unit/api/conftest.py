"""One gateway with a fast fake engine for all tests that change nothing."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.unit.api.gateway import Gateway


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("models")) as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with gateway.client() as client:
        yield client


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Gateway]:
    """Two models, none loaded."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.gguf").write_bytes(b"GGUF")
    with Gateway(tmp_path, model=None) as running:
        yield running
