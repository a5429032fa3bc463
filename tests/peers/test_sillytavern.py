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


@pytest.mark.parametrize(("model", "num_tokens"), [("stories", 200), ("model_1b", 40)])
def test_every_operation_works(
    harness: Path, home: Path, request: pytest.FixtureRequest, model: str, num_tokens: int
) -> None:
    path: Path = request.getfixturevalue(model)
    with ServerProcess(home, str(path), "--ctx", "8192") as server:
        ops = ("--stream", "both", "--ops", "send,regenerate,swipe,continue,impersonate")
        drive(harness, server, *ops, "--max-tokens", str(num_tokens))
        assert server.stop() == 0
