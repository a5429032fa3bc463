"""The set-up: which build of llama.cpp suits which machine, and what is done once."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from installer import builds, llama, setup
from installer.builds import Build, choose, help_for
from installer.environment import Environment, SetupError, digest
from installer.machine import Machine, look
from installer.progress import Progress, StepError, reason_in

ROOT = Path(__file__).resolve().parents[2]
PLAIN = Machine("Linux", "x86_64", "cpu", 8, "/usr/bin/c++")
NVIDIA = replace(
    PLAIN,
    gpu_vendors=("NVIDIA",),
    nvidia_gpu="RTX 4090",
    driver_cuda=(12, 4),
    nvcc="/usr/bin/nvcc",
    nvcc_cuda=(12, 1),
)
AMD = replace(PLAIN, gpu_vendors=("AMD",), has_vulkan_driver=True, has_vulkan_sdk=True)
MAC = replace(PLAIN, system="Darwin", arch="arm64")


def names(machine: Machine, wanted: str = "") -> list[str]:
    return [build.name for build in choose(machine, wanted)]


# --- which build --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (PLAIN, ["cpu-compiled", "cpu-prebuilt"]),
        (replace(PLAIN, compiler=None), ["cpu-prebuilt"]),
        (NVIDIA, ["cuda-compiled", *["cuda-prebuilt"] * 3, "cpu-compiled", "cpu-prebuilt"]),
        (
            replace(NVIDIA, nvcc=None, nvcc_cuda=None),
            [*["cuda-prebuilt"] * 3, "cpu-compiled", "cpu-prebuilt"],
        ),
        (replace(NVIDIA, driver_cuda=(11, 0), nvcc=None), ["cpu-compiled", "cpu-prebuilt"]),
        (AMD, ["vulkan-compiled", "vulkan-prebuilt", "cpu-compiled", "cpu-prebuilt"]),
        (
            replace(AMD, has_vulkan_sdk=False),
            ["vulkan-prebuilt", "cpu-compiled", "cpu-prebuilt"],
        ),
        (MAC, ["metal-compiled", "metal-prebuilt", "cpu-compiled", "cpu-prebuilt"]),
        (replace(MAC, arch="x86_64"), ["cpu-compiled", "cpu-prebuilt"]),
    ],
)
def test_builds_come_best_first(machine: Machine, expected: list[str]) -> None:
    assert names(machine) == expected


def test_nvcc_without_a_gpu_means_a_cpu_build() -> None:
    machine = replace(PLAIN, nvcc="/usr/bin/nvcc", nvcc_cuda=(12, 1))
    assert names(machine) == ["cpu-compiled", "cpu-prebuilt"]
    assert choose(machine)[0].unused_gpu is None


def test_prebuilt_cuda_is_the_newest_that_the_driver_runs() -> None:
    machine = replace(NVIDIA, nvcc=None, nvcc_cuda=None, driver_cuda=(12, 9))
    indexes = [build.index for build in choose(machine, "cuda")]
    assert indexes[0] == builds.WHEELS + "cu125"
    assert builds.WHEELS + "cu130" not in indexes


def test_a_toolkit_newer_than_the_driver_is_not_used() -> None:
    machine = replace(NVIDIA, nvcc_cuda=(13, 0))
    assert "cuda-compiled" not in names(machine)
    unused = choose(machine)[-1].unused_gpu
    assert unused is not None and "CUDA 13" in unused and "12.4" in unused


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (replace(NVIDIA, nvcc=None, nvcc_cuda=None), "no nvcc"),
        (replace(PLAIN, gpu_vendors=("NVIDIA",)), "no working driver"),
        (replace(AMD, has_vulkan_driver=False), "mesa-vulkan-drivers"),
        (replace(AMD, gpu_vendors=("AMD", "Intel")), "AMD and Intel"),
    ],
)
def test_a_cpu_build_says_why_a_gpu_stays_unused(machine: Machine, words: str) -> None:
    unused = choose(machine, "cpu")[0].unused_gpu
    assert unused is not None and words in unused


def test_one_build_can_be_asked_for() -> None:
    assert names(NVIDIA, "cpu-prebuilt") == ["cpu-prebuilt"]
    assert names(PLAIN, "cuda") == []


def test_help_names_one_command_for_each_system() -> None:
    assert "apt install build-essential" in help_for(PLAIN)
    assert "xcode-select --install" in help_for(MAC)
    assert "winget install" in help_for(replace(PLAIN, system="Windows"))


def test_this_machine_can_be_looked_at() -> None:
    machine = look()
    assert machine.num_cores >= 1 and len(machine.cpu) == 16
    assert machine.cpu == look().cpu
    assert choose(machine)


# --- what is done once --------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    environment = Environment(tmp_path)
    environment.venv.mkdir()
    environment.logs.mkdir()
    return environment


class Recorder(Progress):
    """Runs nothing; commands with a word of ``failing`` in their label fail."""

    def __init__(self, logs: Path, failing: tuple[str, ...] = ()) -> None:
        super().__init__(logs)
        self.labels: list[str] = []
        self.commands: list[list[str]] = []
        self._failing = failing

    def run(self, label: str, command: list[str], **_: object) -> None:
        self.labels.append(label)
        self.commands.append(command)
        if any(word in label for word in self._failing):
            raise StepError(label, Path("x.log"))


@pytest.fixture
def locked(environment: Environment) -> Environment:
    (environment.root / "requirements.lock").write_text(
        "idna==3.20 \\\n    --hash=sha256:aa\n"
        "llama-cpp-python==0.3.36 \\\n    --hash=sha256:bb\n"
        "rich==15.0.0 \\\n    --hash=sha256:cc\n"
    )
    return environment


def test_a_lock_file_is_split_into_llama_and_the_rest(locked: Environment) -> None:
    ours, rest = locked.split_lock(locked.root / "requirements.lock")
    assert ours.read_text() == "llama-cpp-python==0.3.36 \\\n    --hash=sha256:bb\n"
    assert "idna" in rest.read_text() and "rich" in rest.read_text()
    assert "llama" not in rest.read_text()


@pytest.fixture
def plain_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(llama, "look", lambda: PLAIN)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(llama.subprocess, "run", lambda *args, **options: None)


@pytest.mark.usefixtures("plain_machine")
def test_llama_is_compiled_with_the_fast_flags_and_its_hash(locked: Environment) -> None:
    progress = Recorder(locked.logs)
    llama.install_llama(locked, progress)
    command = " ".join(progress.commands[0])
    assert all(flag in command for flag in builds.FAST_ARGS)
    assert "--require-hashes" in command and "--no-binary llama-cpp-python" in command
    assert "CMAKE_PROJECT_llama_cpp_INCLUDE" in command
    assert locked.state["llama"]["build"] == "cpu-compiled"


@pytest.mark.usefixtures("plain_machine")
def test_llama_is_installed_once(locked: Environment) -> None:
    llama.install_llama(locked, Recorder(locked.logs))
    again = Recorder(locked.logs)
    llama.install_llama(locked, again)
    assert again.labels == []


@pytest.mark.usefixtures("plain_machine")
def test_another_cpu_gets_another_build(
    locked: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama.install_llama(locked, Recorder(locked.logs))
    monkeypatch.setattr(llama, "look", lambda: replace(PLAIN, cpu="other"))
    again = Recorder(locked.logs)
    llama.install_llama(locked, again)
    assert again.labels and "other" in " ".join(again.commands[0])


@pytest.mark.usefixtures("plain_machine")
def test_a_failed_build_is_followed_by_the_next(locked: Environment) -> None:
    progress = Recorder(locked.logs, failing=("compiled for this CPU",))
    llama.install_llama(locked, progress)
    assert locked.state["llama"]["build"] == "cpu-prebuilt"


@pytest.mark.usefixtures("plain_machine")
def test_a_build_that_does_not_load_is_followed_by_the_next(locked: Environment) -> None:
    progress = Recorder(locked.logs, failing=("trying llama.cpp (cpu-compiled)",))
    llama.install_llama(locked, progress)
    assert locked.state["llama"]["build"] == "cpu-prebuilt"


@pytest.mark.usefixtures("plain_machine")
def test_when_nothing_fits_one_command_is_named(
    locked: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama, "look", lambda: replace(PLAIN, compiler=None))
    with pytest.raises(SetupError, match="apt install build-essential"):
        llama.install_llama(locked, Recorder(locked.logs, failing=("prebuilt",)))
    assert "llama" not in locked.state


def test_a_damaged_state_file_means_doing_it_again(environment: Environment) -> None:
    environment.remember("uv", "x")
    assert environment.state == {"uv": "x"}
    (environment.venv / "innkeeper-setup.json").write_text('{"uv": ')
    assert environment.state == {}


def test_digests_tell_contents_apart() -> None:
    assert digest(b"a", b"bc") != digest(b"ab", b"c")


# --- what is said -------------------------------------------------------------------------------


def test_a_failed_step_shows_why_and_keeps_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "print('fine'); print('x.cpp:1: error: no room'); raise SystemExit(1)"
    with pytest.raises(StepError) as caught:
        Progress(tmp_path).run("building it", [sys.executable, "-c", code])
    shown = capsys.readouterr().err
    assert "x.cpp:1: error: no room" in shown and "FAILED" in shown and "fine" not in shown
    assert "fine" in caught.value.log.read_text()


def test_a_step_says_how_long_it_took(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Progress(tmp_path).run("thinking", [sys.executable, "-c", "pass"])
    assert "thinking ... done in" in capsys.readouterr().err


def test_the_reason_is_the_errors_else_the_end() -> None:
    assert reason_in("a\nfoo: error: b\nc\n") == ["foo: error: b"]
    assert reason_in("a\n\nb\n") == ["a", "b"]


def test_arguments_of_the_tests_are_passed_on(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(setup, "_become", lambda command: commands.append(command) or 0)
    monkeypatch.chdir(ROOT)
    setup.run_tests(environment, ["-k", "layers"])
    setup.run_tests(environment, ["tests/unit/test_layers.py::test_x", "-q"])
    assert commands[0][3:] == ["tests/unit", "tests/model", "-k", "layers"]
    assert commands[1][3:] == ["tests/unit/test_layers.py::test_x", "-q"]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "goes on from here"),
        (SetupError("no compiler; run: x"), 1, "no compiler; run: x"),
        (PermissionError(13, "Permission denied", ".setup"), 1, "Permission denied: '.setup'"),
        (StepError("making .venv", Path("venv.log"), "run: apt y"), 1, "run: apt y"),
    ],
)
def test_a_set_up_that_cannot_go_on_ends_with_one_clear_line(
    error: BaseException,
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "set_up", fail)
    assert setup.main(["up"]) == code
    assert words in capsys.readouterr().err.splitlines()[-1]


# --- ./start ------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="a POSIX script")
def test_start_goes_straight_to_the_program_while_nothing_changed(tmp_path: Path) -> None:
    home = copy_of_start(tmp_path)
    stamp = subprocess.run(
        ["sh", "-c", extracted_fingerprint(home)], capture_output=True, text=True, check=True
    ).stdout
    (home / ".venv" / "innkeeper-stamp").write_text(stamp)
    result = subprocess.run([home / "start"], capture_output=True, text=True)
    assert result.stdout == "program up\n"
    result = subprocess.run([home / "start", "doctor", "a b"], capture_output=True, text=True)
    assert result.stdout == "program doctor a b\n"
    (home / "requirements.lock").write_text("changed")
    result = subprocess.run([home / "start", "x"], capture_output=True, text=True)
    assert result.stdout == "installer x\n"


def copy_of_start(folder: Path) -> Path:
    """``start`` beside a stand-in for the installer and an installed program."""
    (folder / "installer").mkdir()
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / "start").write_text((ROOT / "start").read_text())
    (folder / "start").chmod(0o755)
    for name in ("pyproject.toml", "requirements.lock", "installer/a.lock", "installer/a.py"):
        (folder / name).write_text(name)
    (folder / "installer" / "__main__.py").write_text(
        "import sys; print('installer', *sys.argv[1:])"
    )
    for name in ("python", "innkeeper"):
        (folder / ".venv" / "bin" / name).write_text('#!/bin/sh\necho program "$@"\n')
        (folder / ".venv" / "bin" / name).chmod(0o755)
    return folder


def extracted_fingerprint(home: Path) -> str:
    """The shell code that ``start`` computes its stamp with."""
    text = (home / "start").read_text()
    function = text[text.index("fingerprint()") : text.index("is_new_enough()")]
    return f"root={home.resolve()}\n{function}\nfingerprint"


def test_the_build_types_are_what_the_page_says() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert all(f"`{device}`" in page for device in builds.CPU_SECONDS)
    assert Build("cpu", True, "x").name == "cpu-compiled"
