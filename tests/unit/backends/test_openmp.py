"""The environment that llama.cpp's threads start in."""

import os
import subprocess
import sys

import pytest

PRINT = "import innkeeper.backends.llama_cpp, os; print(os.environ.get('GOMP_SPINCOUNT'))"


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "None")],
)
def test_threads_spin_briefly_unless_told_otherwise(given: dict[str, str], expected: str) -> None:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    result = subprocess.run(
        [sys.executable, "-c", PRINT],
        env={**inherited, **given},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == expected
