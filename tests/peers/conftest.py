"""The real SillyTavern, installed once into a cache, and what else the tests need from outside."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "innkeeper-tests"
INSTALL_SECONDS = 900
WRITE_SECONDS = 600


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the project that has the harness and its data; skips without it."""
    folder = Path(os.environ.get("INNKEEPER_SHARED") or ROOT.parent / "shared")
    if not (folder / "sillytavern" / "drive.mjs").is_file():
        pytest.skip(f"no SillyTavern harness in {folder}")
    return folder


@pytest.fixture(scope="session")
def harness(shared: Path) -> Path:
    """The harness with SillyTavern installed beside it; skips without node or a browser."""
    for tool in ("node", "npm", "chromium"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    folder = CACHE / "sillytavern"
    shutil.copytree(shared / "sillytavern", folder, dirs_exist_ok=True)
    wanted = (folder / "package.json").read_text()
    installed = folder / "installed.json"
    if not installed.exists() or installed.read_text() != wanted:
        command = ["npm", "install", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_SECONDS)
        installed.write_text(wanted)
    return folder


@pytest.fixture(scope="session")
def stories(shared: Path) -> Path:
    """A trained model of 260,000 parameters."""
    return shared / "data" / "stories260K-f32.gguf"


@pytest.fixture(scope="session")
def model_1b() -> Path:
    """A random model of a 1B model's shape: slow enough to be stopped while it writes."""
    path = CACHE / "llama-1b.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        script = ROOT / "benchmarks" / "model_shapes.py"
        command = [sys.executable, str(script), "llama-1b", str(partial)]
        subprocess.run(command, check=True, timeout=WRITE_SECONDS)
        partial.rename(path)
    return path


@pytest.fixture(scope="session")
def other_clients() -> Path:
    """The Python of an environment with the clients of ``clients.txt``, made once per list."""
    wanted = Path(__file__).with_name("clients.txt")
    folder = CACHE / f"clients-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run(
            [*uv, "venv", "--clear", "--python", sys.executable, str(folder)], check=True
        )
        command = [*uv, "pip", "install", "--python", str(python), "-r", str(wanted)]
        subprocess.run(command, check=True, timeout=INSTALL_SECONDS)
        (folder / "complete").touch()
    return python
