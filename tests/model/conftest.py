"""Tiny models for every test here, written once a session."""

from pathlib import Path

import pytest

from tests.model.tiny_models import write_all


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> file, for ``llama llama-q8_0 qwen2 gemma3 mixtral mamba jamba lfm2``."""
    return write_all(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def tiny_llama(tiny_models: dict[str, Path]) -> Path:
    return tiny_models["llama"]


@pytest.fixture(scope="session")
def tiny_qwen2(tiny_models: dict[str, Path]) -> Path:
    return tiny_models["qwen2"]


@pytest.fixture(scope="session")
def tiny_gemma3(tiny_models: dict[str, Path]) -> Path:
    return tiny_models["gemma3"]


@pytest.fixture(scope="session")
def tiny_mixtral(tiny_models: dict[str, Path]) -> Path:
    return tiny_models["mixtral"]


@pytest.fixture(scope="session")
def tiny_mamba(tiny_models: dict[str, Path]) -> Path:
    return tiny_models["mamba"]
