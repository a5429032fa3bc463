"""The real SillyTavern, in a real browser, against ``innkeeper up``.

The harness's exit code is 0 only if every operation showed the server's text in the chat.
"""

import subprocess
from pathlib import Path

import pytest

from tests.server_process import ServerProcess, free_port

DRIVE_SECONDS = 1500
OPERATION_SECONDS = "600"
"""On a busy machine the first prompt of the larger model takes minutes to read."""
ATTEMPTS = 2


def drive(harness: Path, server: ServerProcess, *options: str) -> None:
    """Runs the harness; once more if it fails, since a browser on a busy machine may be late."""
    command = ["node", "drive.mjs", "--api", "ooba", "--server", server.api_url, *options]
    for attempt in range(1, ATTEMPTS + 1):
        ports = ["--port", str(free_port()), "--timeout", OPERATION_SECONDS]
        result = subprocess.run(
            [*command, *ports], cwd=harness, capture_output=True, text=True, timeout=DRIVE_SECONDS
        )
        print(result.stdout)
        if result.returncode == 0:
            return
        print(f"attempt {attempt} failed:\n{result.stderr}\n{server.log}")
    pytest.fail(f"SillyTavern failed {ATTEMPTS} times; the output above says at what")


def test_every_operation_works_with_a_trained_model(
    harness: Path, stories: Path, home: Path
) -> None:
    with ServerProcess(home, str(stories), "--ctx", "8192") as server:
        ops = ("--stream", "both", "--ops", "send,regenerate,swipe,continue,impersonate")
        drive(harness, server, *ops, "--max-tokens", "200")
        assert server.stop() == 0


def test_every_operation_works_with_a_model_of_real_size(
    harness: Path, model_1b: Path, home: Path
) -> None:
    with ServerProcess(home, str(model_1b), "--ctx", "8192") as server:
        ops = ("--stream", "both", "--ops", "send,regenerate,swipe,continue,impersonate")
        drive(harness, server, *ops, "--max-tokens", "40")
        assert server.stop() == 0
