"""The real SillyTavern, in a real browser, against ``innkeeper up``.

The harness's exit code is 0 only if every operation showed the server's text in the chat.
"""

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.in_character import LEAST_ENGLISH, english_share
from tests.server_process import ServerProcess, free_port

DRIVE_SECONDS = 1500
OPERATION_SECONDS = "600"
"""On a busy machine the first prompt of the larger model takes minutes to read."""
ATTEMPTS = 2
MOST_CHARS = 700
"""A reply that long was cut at SillyTavern's 350 tokens."""


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


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("stories", ()),
        # replies so long that the stop, which waits for the prompt to be read, is in their midst
        ("model_1b", ("--max-tokens", "300", "--stop-after", "8000")),
    ],
)
def test_every_operation_works(
    harness: Path, home: Path, request: pytest.FixtureRequest, model: str, options: tuple[str, ...]
) -> None:
    path: Path = request.getfixturevalue(model)
    with ServerProcess(home, str(path), "--ctx", "8192") as server:
        ops = "send,regenerate,swipe,continue,impersonate,stop"
        drive(harness, server, "--stream", "both", "--ops", ops, *options)
        assert server.stop() == 0


def test_the_demo_model_answers_in_character_and_ends_by_itself(
    harness: Path, home: Path, tmp_path: Path
) -> None:
    """SillyTavern's own card and first question, its default sampling, streamed and not.

    Every reply must be English and end. The client sends no seed, and one reply in fifteen of so
    small a model has another name or none, so half of six must have hers.
    `tests/model/test_demo_model.py` asks more, with seeds, on cards nearly as long.
    """
    out = tmp_path / "result.json"
    with ServerProcess(home, "--demo") as server:
        drive(harness, server, "--stream", "both", "--ops", "send,swipe,send", "--out", str(out))
    steps = json.loads(out.read_text())["steps"]
    assert len(steps) == 6
    for step in steps:
        assert english_share(step["shown"]) >= LEAST_ENGLISH, f"no English: {step['shown']}"
        assert step["chars"] < MOST_CHARS, f"did not end by itself: {step['shown']}"
    named = ["Seraphina" in step["shown"] for step in steps]
    assert sum(named) >= 3, [step["shown"] for step in steps]
