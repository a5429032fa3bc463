"""``innkeeper up`` with real model files: good, damaged, strange, and too big."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.server_process import ServerProcess, free_port

RUN_SECONDS = 120


def refused(path: Path, *flags: str) -> tuple[int, str]:
    """(exit code, last line) of a start that must not succeed."""
    command = [sys.executable, "-P", "-m", "innkeeper", "up", str(path), *flags]
    command += ["--api-port", str(free_port()), "--no-ui"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS)
    assert "Traceback" not in result.stderr and result.stdout == ""
    return result.returncode, result.stderr.strip().splitlines()[-1]


def changed(source: Path, target: Path, old: bytes, new: bytes) -> Path:
    """A copy of ``source`` with the first ``old`` replaced."""
    data = source.read_bytes()
    assert old in data and len(old) == len(new)
    target.write_bytes(data.replace(old, new, 1))
    return target


def test_a_model_is_served_and_answers(home: Path, tiny_llama: Path) -> None:
    with ServerProcess(home, str(tiny_llama), "--ctx", "256", "--threads", "1") as server:
        body = {"prompt": "Once upon a time", "max_tokens": 5, "temperature": 0}
        request = urllib.request.Request(
            server.api_url + "v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.loads(response.read())
        assert answer["usage"]["completion_tokens"] in range(1, 6)
        assert server.stop() == 0


def test_a_truncated_model_is_bad_input(tmp_path: Path, tiny_llama: Path) -> None:
    path = tmp_path / "half.gguf"
    path.write_bytes(tiny_llama.read_bytes()[: tiny_llama.stat().st_size // 2])
    code, line = refused(path)
    assert code == 2 and "half.gguf" in line


def test_an_unknown_architecture_is_bad_input(tmp_path: Path, tiny_llama: Path) -> None:
    path = changed(
        tiny_llama, tmp_path / "odd.gguf", b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lhama"
    )
    code, line = refused(path)
    assert code == 2 and "lhama" in line


@pytest.mark.parametrize("flags", [("--ctx", "4194304", "--kv-type", "f32", "--parallel", "64")])
def test_a_context_that_no_memory_holds_is_a_failure(
    tmp_path: Path, tiny_llama: Path, flags: tuple[str, ...]
) -> None:
    pool = ("--pool", "16777216")
    code, line = refused(tiny_llama, *flags, *pool)
    assert code == 1 and "memory" in line and "GiB" in line
