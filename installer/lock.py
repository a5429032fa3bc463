"""Writes the lock files: ``python installer/lock.py`` after a change in ``pyproject.toml``.

They hold exact versions and hashes for every supported system and Python, and no address: each
machine asks the package index that it is set up with. Needs ``uv`` (``./start test`` installs it).
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = ["uv==0.13.9"]
BUILD = [
    "cmake>=3.29",
    "editables>=0.5",
    "hatchling>=1.27",
    "ninja>=1.11",
    "scikit-build-core[pyproject]>=0.9.2",
]
OPTIONS = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url"]
OPTIONS += ["--no-annotate", "--no-header", "--quiet"]


def compile_lock(target: Path, arguments: list[str], requirements: list[str] | None = None) -> None:
    """Resolves ``arguments`` (or ``requirements``, given on stdin) into ``target``."""
    command = [sys.executable, "-m", "uv", "pip", "compile", *OPTIONS, *arguments]
    # a resolution replaces uv's copy of llama-cpp-python, and with it the wheel compiled from it
    command += ["--cache-dir", str(ROOT / ".setup" / "lock-cache")]
    stdin = None if requirements is None else "\n".join(requirements)
    command += [] if stdin is None else ["-"]
    subprocess.run(
        [*command, "--output-file", str(target)], input=stdin, text=True, check=True, cwd=ROOT
    )
    print(f"{target.relative_to(ROOT)}: {target.read_text().count('==')} packages")


def main() -> None:
    upgrade = ["--upgrade"] if "--upgrade" in sys.argv[1:] else []
    runtime = ROOT / "requirements.lock"
    compile_lock(runtime, ["pyproject.toml", *upgrade])
    compile_lock(
        ROOT / "requirements-dev.lock",
        ["--group", "pyproject.toml:dev", "--constraint", str(runtime), *upgrade],
    )
    compile_lock(ROOT / "installer" / "build.lock", upgrade, BUILD)
    compile_lock(ROOT / "installer" / "uv-tool.lock", upgrade, UV)


if __name__ == "__main__":
    main()
