"""The real SillyTavern with each of its API types: send and stop, streamed and not; and what it
derives from the server.

The harness's exit code is 0 only if every reply was shown and every stop ended its request.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server_process import ServerProcess, free_port

API_TYPES = "ooba kobold koboldcpp llamacpp ollama tabby vllm aphrodite generic custom".split()
NUM_CTX = 16384
MAX_TOKENS = 120
FEW_TOKENS = 60
DRIVE_SECONDS = 300
ATTEMPTS = 2


@pytest.fixture(scope="module")
def server(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Slow enough to be stopped, quick enough to wait for."""
    fake = ("--backend", "fake", "--backend-options", "tokens_per_second=60")
    home = tmp_path_factory.mktemp("home")
    with ServerProcess(home, str(stories), "--ctx", str(NUM_CTX), *fake) as running:
        yield running


def drive(
    harness: Path, server: ServerProcess, out: Path, api_type: str, *options: str
) -> dict[str, Any]:
    """The harness's result; once more if it fails: a browser on a busy machine may be late."""
    url = f"{server.api_url}v1" if api_type == "custom" else server.api_url
    command = ["node", "drive.mjs", "--api", api_type, "--server", url, "--out", str(out), *options]
    for _ in range(ATTEMPTS):
        result = subprocess.run(
            [*command, "--port", str(free_port())],
            cwd=harness,
            capture_output=True,
            text=True,
            timeout=DRIVE_SECONDS,
        )
        print(result.stdout, result.stderr)
        if result.returncode == 0:
            found: dict[str, Any] = json.loads(out.read_text())
            return found
    pytest.fail(f"SillyTavern's {api_type} failed {ATTEMPTS} times; the output above says at what")


@pytest.mark.parametrize("api_type", API_TYPES)
def test_send_and_stop_work(
    harness: Path, server: ServerProcess, tmp_path: Path, api_type: str
) -> None:
    operations = ["--stream", "both", "--ops", "send,stop", "--stop-after", "1000"]
    out = tmp_path / "result.json"
    drive(harness, server, out, api_type, *operations, "--max-tokens", str(MAX_TOKENS))


@pytest.mark.parametrize("stream", ["on", "off"])
@pytest.mark.parametrize("api_type", ["koboldcpp", "llamacpp"])
def test_templates_and_context_are_derived_and_probabilities_shown(
    harness: Path, server: ServerProcess, tmp_path: Path, api_type: str, stream: str
) -> None:
    """SillyTavern asks the server for what it should derive; its viewer lists the tokens."""
    options = ["--derive", "--logprobs", "--shots", str(tmp_path), "--stream", stream]
    out = tmp_path / "result.json"
    found = drive(harness, server, out, api_type, *options, "--max-tokens", str(FEW_TOKENS))
    assert found["contextSize"] == NUM_CTX
    templates = found["templates"]
    assert templates["instructEnabled"]
    assert (templates["instruct"], templates["context"]) == ("ChatML", "ChatML")
    assert found["logprobTokens"] > FEW_TOKENS // 2
