"""litellm, llm, LangChain's classes and schemathesis against a gateway with the fake engine."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from innkeeper.serving import EngineDefaults
from tests.unit.api.gateway import Gateway

SCRIPT = Path(__file__).with_name("other_clients.py")
LEAST_CALLS = {"litellm": 75, "llm": 25, "langchain-openai": 25, "langchain-ollama": 25}
RUN_SECONDS = 900


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("models")) as running:
        yield running


@pytest.mark.parametrize("library", LEAST_CALLS)
def test_every_call_of_the_library_works(
    other_clients: Path, gateway: Gateway, library: str
) -> None:
    command = [str(other_clients), str(SCRIPT), library, gateway.url]
    result = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS)
    assert result.returncode == 0, f"{result.stdout[-500:]}\n{result.stderr}"
    found = re.search(r"calls: (\d+)", result.stdout)
    assert found and int(found[1]) >= LEAST_CALLS[library]


def test_schemathesis_finds_no_server_error(other_clients: Path, tmp_path: Path) -> None:
    """501 is designed: what a dialect has and this server does not."""
    command = [
        str(other_clients.with_name("schemathesis")),
        "run",
        "--checks",
        "not_a_server_error",
    ]
    command += ["--phases", "fuzzing", "--max-examples", "4", "--seed", "1", "--no-color"]
    command += ["--request-timeout", "120", "--exclude-path-regex", "unload|load/events"]
    defaults = EngineDefaults(backend="fake", num_ctx=64)
    with Gateway(tmp_path, defaults=defaults) as gateway:
        command.append(f"{gateway.url}/openapi.json")
        result = subprocess.run(  # it leaves a cache where it runs
            command, capture_output=True, text=True, timeout=RUN_SECONDS, cwd=tmp_path
        )
        assert gateway.models.healthy
    assert "Tested:" in result.stdout, result.stdout
    assert set(re.findall(r"\[(5\d\d)\]", result.stdout)) <= {"501"}, result.stdout
