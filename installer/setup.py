"""The steps of a set-up, each done once and remembered in the virtual environment."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from installer.environment import Environment, SetupError, digest
from installer.llama import install_llama
from installer.progress import Progress, StepError, say

ROOT = Path(__file__).resolve().parent.parent
_NETWORK = "a set-up downloads packages: is this computer online? ./start goes on from here"
TEST_FOLDERS = ("tests/unit", "tests/model")


def main(arguments: list[str]) -> int:
    """Sets up what is missing, then becomes the command; returns only to report a failure."""
    wants_tests = arguments[:1] == ["test"]
    environment = Environment(ROOT)
    try:
        with environment.locked():
            set_up(environment, with_tests=wants_tests)
    except StepError as error:
        say(str(error))
        if error.help_text:
            say(error.help_text)
        return 1
    except (SetupError, OSError) as error:  # a full disk, a folder of somebody else
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("stopped; the next ./start goes on from here")
        return 130
    return run_tests(environment, arguments[1:]) if wants_tests else run(environment, arguments)


def set_up(environment: Environment, *, with_tests: bool) -> None:
    """Brings the environment up to date with the lock files. Raises: SetupError."""
    progress = Progress(environment.logs)
    steps = [(_make_venv, True), (_install_uv, True), (_install_requirements, True)]
    steps += [(install_llama, True), (_install_project, True), (_install_test_tools, with_tests)]
    for step, is_needed in steps:
        if is_needed:
            step(environment, progress)
    environment.write_stamp()
    progress.finish()


def _make_venv(environment: Environment, progress: Progress) -> None:
    if environment.works():
        return
    progress.run(
        "making .venv",
        [sys.executable, "-m", "venv", "--clear", str(environment.venv)],
        help_text=_venv_help(),
    )


def _venv_help() -> str:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if sys.platform == "linux":
        return f"on Debian and Ubuntu run: sudo apt install python{version}-venv"
    return "this Python lacks venv or ensurepip; install one from python.org"


def _once(
    environment: Environment, progress: Progress, key: str, files: list[Path], label: str
) -> Callable[[list[str]], None]:
    """Runs a command once for each content of ``files``."""

    def run(command: list[str]) -> None:
        wanted = digest(*(file.read_bytes() for file in files), str(environment.root).encode())
        if environment.state.get(key) == wanted:
            return
        progress.run(label, command, help_text=_NETWORK)
        environment.remember(key, wanted)

    return run


def _install_uv(environment: Environment, progress: Progress) -> None:
    lock = environment.root / "installer" / "uv-tool.lock"
    command = [environment.python, "-m", "pip", "install", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--require-hashes", "-r", str(lock)]
    _once(environment, progress, "uv", [lock], "installing uv")(command)


def _install_requirements(environment: Environment, progress: Progress) -> None:
    lock = environment.root / "requirements.lock"
    rest = environment.split_lock(lock)[1]
    command = environment.uv("install", "--require-hashes", "-r", str(rest))
    _once(environment, progress, "requirements", [lock], "installing dependencies")(command)


def _install_project(environment: Environment, progress: Progress) -> None:
    project = environment.root / "pyproject.toml"
    constraints = environment.root / "installer" / "build.lock"
    command = environment.uv("install", "--no-deps", "--build-constraints", str(constraints))
    command += ["--require-build-hashes", "--editable", str(environment.root)]
    _once(environment, progress, "project", [project], "installing innkeeper")(command)


def _install_test_tools(environment: Environment, progress: Progress) -> None:
    lock = environment.root / "requirements-dev.lock"
    command = environment.uv("install", "--require-hashes", "-r", str(lock))
    _once(environment, progress, "tests", [lock], "installing test tools")(command)


def run(environment: Environment, arguments: list[str]) -> int:
    """Becomes ``innkeeper``, with ``up`` when no command is named."""
    return _become([environment.script("innkeeper"), *(arguments or ["up"])])


def run_tests(environment: Environment, arguments: list[str]) -> int:
    """Becomes pytest, over the tests that need nothing but this machine unless paths are given."""
    names_paths = any((ROOT / a.split("::")[0]).exists() for a in arguments if a[:1] != "-")
    folders = [] if names_paths else [f for f in TEST_FOLDERS if (ROOT / f).is_dir()]
    os.chdir(ROOT)
    return _become([environment.python, "-m", "pytest", *folders, *arguments])


def _become(command: list[str]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "nt":  # exec returns to the shell at once there
        import subprocess

        return subprocess.call(command)
    os.execv(command[0], command)
