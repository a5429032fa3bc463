"""The command line: what is a command, what is quick, and how errors end it."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from innkeeper import __version__
from innkeeper.app.serve import Ready
from innkeeper.cli.main import COMMANDS, app, exit_code, main, with_command
from innkeeper.cli.screen import ready_line, ready_panel
from innkeeper.core import ModelFacts
from innkeeper.errors import (
    CorruptModelError,
    EngineLoadError,
    InnkeeperError,
    NotEnoughMemoryError,
    NotFoundError,
    SettingsError,
    StartError,
)
from tests.server_process import free_port

RUN_SECONDS = 120
HEAVY = ("fastapi", "uvicorn", "llama_cpp", "numpy", "pydantic", "jinja2")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``innkeeper`` in a process of its own, with the test's home."""
    command = [sys.executable, "-P", "-m", "innkeeper", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=RUN_SECONDS, stdin=subprocess.DEVNULL
    )


def run_here(
    capsys: pytest.CaptureFixture[str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """The same in this process, for what ends before a server is imported."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out, err = capsys.readouterr()
    return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), out, err)


def assert_one_line(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    lines = result.stderr.strip().splitlines()
    assert result.returncode == code, result.stderr
    assert lines and lines[-1].startswith("innkeeper: "), result.stderr
    assert "Traceback" not in result.stderr
    assert all(word in lines[-1] for word in words), lines[-1]
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["model.gguf"], ["up", "model.gguf"]),
        (["--ctx", "4096", "m.gguf"], ["up", "--ctx", "4096", "m.gguf"]),
        (["org/name:Q4_K_M"], ["up", "org/name:Q4_K_M"]),
        (["up", "m.gguf"], ["up", "m.gguf"]),
        (["doctor"], ["doctor"]),
        (["--help"], ["--help"]),
        (["--version"], ["--version"]),
        ([], []),
    ],
)
def test_a_first_word_that_is_no_command_is_a_model(given: list[str], meant: list[str]) -> None:
    assert with_command(given) == meant


def test_every_command_is_known_by_name() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert names == COMMANDS


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from innkeeper.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert end.code in (0, None)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    for flag in ("--help", "--version"):
        command = [sys.executable, "-P", "-c", code, flag]
        result = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS)
        assert result.stderr.strip() == "[]", result.stderr


def test_version_is_the_package_version() -> None:
    assert run("--version").stdout.strip() == f"innkeeper {__version__}"


def test_a_missing_file_is_bad_input() -> None:
    assert_one_line(run("up", "/no/such/model.gguf"), 2, "there is no file /no/such/model.gguf")


def test_the_demo_and_another_model_are_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_here(capsys, "up", "m.gguf", "--demo")
    assert_one_line(result, 2, "m.gguf cannot be loaded too")


def test_a_bad_setting_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_here(capsys, "up", "m.gguf", "--ctx", "many")
    assert_one_line(result, 2, "ctx = 'many' (--ctx)", "allowed")


def test_an_open_door_without_a_key_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_here(capsys, "up", "m.gguf", "--host", "0.0.0.0")
    assert_one_line(result, 2, "no API key", "INNKEEPER_API_KEY")


def test_a_file_that_is_no_model_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "letter.gguf"
    path.write_text("Dear friend,\n" * 100)
    ports = ("--api-port", str(free_port()), "--no-ui")
    assert_one_line(run("up", str(path), *ports), 2, "letter.gguf", "GGUF")


def test_an_empty_file_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "empty.gguf"
    path.touch()
    assert_one_line(run("up", str(path), "--api-port", str(free_port()), "--no-ui"), 2, "empty")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_file_without_permission_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "secret.gguf"
    path.write_bytes(b"GGUF")
    path.chmod(0)
    assert_one_line(run("up", str(path)), 2, "secret.gguf cannot be read", "Permission denied")


def test_a_model_that_does_not_load_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.touch()
    options = ("--backend", "fake", "--backend-options", "fail_load=the moon is full")
    result = run("up", str(path), *options, "--api-port", str(free_port()), "--no-ui")
    assert_one_line(result, 1, "the moon is full")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("x"), 2),
        (NotFoundError("x"), 2),
        (CorruptModelError("x"), 2),
        (StartError("x"), 1),
        (NotEnoughMemoryError("x"), 1),
        (EngineLoadError("x"), 1),
    ],
)
def test_exit_codes_tell_bad_input_from_failure(error: InnkeeperError, code: int) -> None:
    assert exit_code(error) == code


def test_doctor_prints_json_for_programs(home: Path) -> None:
    result = run("doctor", "--json", "--api-port", str(free_port()))
    found = json.loads(result.stdout)
    assert result.returncode == 0, result.stderr
    assert found["innkeeper"]["home"] == str(home)
    assert found["cpu"]["usable_cores"] >= 1
    assert "package" in found["llama.cpp"] or "error" in found["llama.cpp"]
    assert isinstance(found["problems"], list)


def test_doctor_names_a_port_in_use(listening_port: int) -> None:
    result = run("doctor", "--ui-port", str(listening_port))
    assert f"port {listening_port} (ui) is in use" in " ".join(result.stdout.split())


@pytest.fixture
def facts() -> ModelFacts:
    return ModelFacts(
        name="tiny",
        path="/m/tiny.gguf",
        backend="fake",
        architecture="llama",
        description="llama 1B Q4_K - Medium",
        num_params=10,
        size_bytes=1 << 30,
        num_vocab=258,
        num_ctx=8192,
        num_ctx_train=4096,
        num_pool=8192,
        max_sequences=4,
        bos_text="",
        eos_text="",
        add_bos=False,
        bos_id=None,
        end_ids=(1,),
        max_token_bytes=1,
        chat_template=None,
    )


def test_the_ready_line_has_both_urls(facts: ModelFacts) -> None:
    both = Ready("http://127.0.0.1:5000/", "http://127.0.0.1:7860/", facts)
    assert ready_line(both) == "ready api=http://127.0.0.1:5000/ ui=http://127.0.0.1:7860/"
    assert ready_line(both._replace(ui_url=None)) == "ready api=http://127.0.0.1:5000/"


def test_the_screen_says_what_to_paste_into_sillytavern(facts: ModelFacts) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    ready = Ready("http://127.0.0.1:5000/", None, facts)
    console.print(ready_panel(ready, has_key=True))
    shown = console.export_text()
    for words in ("API URL: http://127.0.0.1:5000/", "Default (Oobabooga)", "API key", "8192"):
        assert words in shown


def test_connect_prints_each_clients_steps_with_its_port(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    flags = ["--home", str(tmp_path), "--also", "ollama:11434", "--api-port", "5005", "--json"]
    with pytest.raises(SystemExit) as ended:
        main(["connect", *flags])
    assert ended.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert "http://127.0.0.1:11434" in found["ollama"]["steps"][0]
    assert "http://127.0.0.1:5005/v1" in found["openai"]["steps"][0]
    with pytest.raises(SystemExit) as ended:
        main(["connect", "nobody", "--home", str(tmp_path)])
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--also", "ollama", "write NAME:PORT"),
        ("--also", "a:5000", "a port that is used"),
        ("--also", "a:6000,a:6001", "twice"),
        ("--also", "a:99999", "write NAME:PORT"),
        ("--cors", "*", "is no origin"),
        ("--cors", "lite.koboldai.net", "is no origin"),
    ],
)
def test_ports_and_origins_that_make_no_sense_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, flag: str, value: str, words: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["up", "--demo", "--home", str(tmp_path), flag, value])
    assert ended.value.code == 2 and words in capsys.readouterr().err
