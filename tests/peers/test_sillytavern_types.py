"""The real SillyTavern with each of its API types: send and stop, streamed and not.

The harness's exit code is 0 only if every reply was shown and every stop ended its request.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server_process import ServerProcess, free_port

API_TYPES = "ooba kobold koboldcpp llamacpp ollama tabby vllm aphrodite generic custom".split()
DRIVE_SECONDS = 300
ATTEMPTS = 2


@pytest.fixture(scope="module")
def server(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Slow enough to be stopped, quick enough to wait for."""
    fake = ("--backend", "fake", "--backend-options", "tokens_per_second=60")
    home = tmp_path_factory.mktemp("home")
    with ServerProcess(home, str(stories), "--ctx", "16384", *fake) as running:
        yield running


@pytest.mark.parametrize("api_type", API_TYPES)
def test_send_and_stop_work(
    harness: Path, server: ServerProcess, tmp_path: Path, api_type: str
) -> None:
    url = f"{server.api_url}v1" if api_type == "custom" else server.api_url
    command = ["node", "drive.mjs", "--api", api_type, "--server", url, "--stream", "both"]
    command += ["--ops", "send,stop", "--max-tokens", "120", "--stop-after", "1000"]
    for _ in range(ATTEMPTS):
        ports = ["--port", str(free_port()), "--out", str(tmp_path / "result.json")]
        result = subprocess.run(
            [*command, *ports], cwd=harness, capture_output=True, text=True, timeout=DRIVE_SECONDS
        )
        print(result.stdout, result.stderr)
        if result.returncode == 0:
            return
    pytest.fail(f"SillyTavern's {api_type} failed {ATTEMPTS} times; the output above says at what")
