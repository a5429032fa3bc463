"""Starting and stopping: homes, locks, ports, and the whole server over the fake backend."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from innkeeper.app import Home, HomeLock, find_model
from innkeeper.app.engines import engine_defaults
from innkeeper.app.model import models_in
from innkeeper.app.ports import bind
from innkeeper.config import Settings
from innkeeper.core import LoraAdapter
from innkeeper.errors import (
    InvalidRequestError,
    ModelFileError,
    NotFoundError,
    SettingsError,
    StartError,
)
from tests.server_process import ServerProcess, free_port

FAKE = ("--backend", "fake", "--ctx", "512")


@pytest.fixture
def prepared(home: Path) -> Home:
    prepared = Home(home)
    prepared.prepare()
    return prepared


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.touch()
    return path


# --- home and lock ------------------------------------------------------------------------------


def test_prepare_makes_the_folders(prepared: Home) -> None:
    assert prepared.models.is_dir() and prepared.logs.is_dir() and prepared.cache.is_dir()


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(StartError, match="--home FOLDER"):
        Home(tmp_path / "home").prepare()


def test_a_second_lock_names_the_holder(prepared: Home) -> None:
    with HomeLock(prepared), pytest.raises(StartError, match=rf"process {os.getpid()}\b"):
        with HomeLock(prepared):
            pass


def test_a_released_lock_can_be_taken_again(prepared: Home) -> None:
    for _ in range(2):
        with HomeLock(prepared):
            pass


def test_a_killed_holder_leaves_no_stale_lock(prepared: Home) -> None:
    code = (
        "import sys, time; from pathlib import Path; from innkeeper.app import Home, HomeLock\n"
        "with HomeLock(Home(Path(sys.argv[1]))): print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(prepared.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(StartError, match=str(holder.pid)):
            HomeLock(prepared).__enter__()
        holder.kill()
        holder.wait()
    with HomeLock(prepared):
        pass


# --- models -------------------------------------------------------------------------------------


def test_a_path_is_taken_as_it_is(prepared: Home, model: Path) -> None:
    assert find_model(prepared, str(model)) == model


@pytest.mark.parametrize("name", ["mine", "mine.gguf", "deep/mine"])
def test_a_name_is_looked_up_in_the_models_folder(prepared: Home, name: str) -> None:
    path = prepared.models / (name.removesuffix(".gguf") + ".gguf")
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert find_model(prepared, name) == path


def test_a_name_does_not_lead_out_of_the_models_folder(prepared: Home) -> None:
    (prepared.root / "outside.gguf").touch()
    with pytest.raises(NotFoundError):
        find_model(prepared, "../outside")


def test_a_folder_stands_for_its_one_model(prepared: Home, tmp_path: Path) -> None:
    for name in ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "mmproj-m.gguf"):
        (tmp_path / name).touch()
    assert find_model(prepared, str(tmp_path)).name == "m-00001-of-00002.gguf"


def test_a_folder_with_two_models_names_them(prepared: Home, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(InvalidRequestError, match=r"a\.gguf, b\.gguf"):
        find_model(prepared, str(tmp_path))


def test_a_folder_without_a_model_is_not_found(prepared: Home, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        find_model(prepared, str(tmp_path))


def test_without_a_name_the_newest_model_is_taken(prepared: Home) -> None:
    for age, name in ((10, "old"), (0, "new"), (20, "older")):
        path = prepared.models / f"{name}.gguf"
        path.touch()
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    assert [path.stem for path in models_in(prepared.models)] == ["new", "old", "older"]
    assert find_model(prepared, None).stem == "new"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_an_unreadable_file_is_refused(prepared: Home, model: Path) -> None:
    model.chmod(0)
    with pytest.raises(ModelFileError, match="Permission denied"):
        find_model(prepared, str(model))


# --- ports --------------------------------------------------------------------------------------


def test_a_port_in_use_names_the_flag_and_the_holder(listening_port: int) -> None:
    with pytest.raises(StartError) as caught:
        bind("127.0.0.1", listening_port, "API", "--api-port")
    assert f"port {listening_port} (API) is in use" in str(caught.value)
    assert str(os.getpid()) in str(caught.value) and "--api-port" in str(caught.value)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host.invalid", "x" * 300])
def test_an_address_of_another_computer_is_refused(host: str) -> None:
    with pytest.raises(SettingsError) as caught:
        bind(host, 5000, "API", "--api-port")
    assert caught.value.field == "host"


def test_a_bound_port_takes_connections_at_once() -> None:
    with bind("localhost", 0, "API", "--api-port") as bound:
        with socket.create_connection(bound.getsockname(), timeout=5):
            pass


async def test_answers_do_not_wait_for_nagle() -> None:
    taken: asyncio.Queue[int] = asyncio.Queue()

    def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        taken.put_nowait(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    with bind("127.0.0.1", 0, "API", "--api-port") as bound:
        async with await asyncio.start_server(accept, sock=bound):
            with socket.create_connection(bound.getsockname(), timeout=5):
                assert await taken.get() != 0


# --- the whole server ---------------------------------------------------------------------------


@pytest.fixture
def server(home: Path, model: Path) -> Iterator[ServerProcess]:
    with ServerProcess(home, str(model), *FAKE) as server:
        yield server


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """For tests that leave it as it is."""
    home = tmp_path_factory.mktemp("shared-home")
    (home / "tiny.gguf").touch()
    with ServerProcess(home, str(home / "tiny.gguf"), *FAKE) as server:
        yield server


def get(url: str, body: object = None, **headers: str) -> tuple[int, Any]:
    """(status, decoded JSON) of a GET, or of a POST with ``body``."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_ready_means_that_health_answers_and_both_urls_are_printed(
    shared_server: ServerProcess,
) -> None:
    server = shared_server
    assert server.ready_line == f"ready api={server.api_url} ui={server.ui_url}"
    assert get(server.api_url + "health")[0] == 200
    assert get(server.ui_url + "innkeeper/v1/state")[1]["status"] == "ready"
    assert server.api_url in server.log and "SillyTavern" in server.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_and_its_engine_too(server: ServerProcess, number: int) -> None:
    engines = server.engines
    assert engines
    assert server.stop(number) == 0
    assert "Traceback" not in server.log
    assert not [engine for engine in engines if engine.is_running()]


def test_a_signal_while_a_reply_is_written_ends_it_cleanly(home: Path, model: Path) -> None:
    slow = ("--backend-options", "tokens_per_second=20")
    with ServerProcess(home, str(model), *FAKE, *slow) as server:
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 400}
        request = urllib.request.Request(
            server.ui_url + "innkeeper/v1/chat", json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            assert "text" in json.loads(response.readline())
            assert server.stop() == 0
        assert "Traceback" not in server.log


def test_a_killed_server_leaves_no_engine(server: ServerProcess) -> None:
    engines = server.engines
    server.process.kill()
    server.process.wait()
    _, alive = psutil.wait_procs(engines, timeout=5)
    assert not alive


def test_a_second_server_on_the_same_home_is_refused(
    shared_server: ServerProcess, model: Path
) -> None:
    command = [sys.executable, "-P", "-m", "innkeeper", "up", str(model), *FAKE, "--no-ui"]
    command += ["--home", str(shared_server.home)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert f"another Innkeeper (process {shared_server.process.pid})" in result.stderr
    assert get(shared_server.api_url + "health")[0] == 200


def test_a_port_in_use_is_one_line_and_frees_the_other(
    home: Path, model: Path, listening_port: int
) -> None:
    command = [sys.executable, "-P", "-m", "innkeeper", "up", str(model), *FAKE]
    command += ["--api-port", str(listening_port), "--no-ui"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert f"port {listening_port} (API) is in use" in result.stderr.splitlines()[-1]


def test_the_key_guards_the_data_of_the_page_but_not_the_page(home: Path, model: Path) -> None:
    key = {"INNKEEPER_API_KEY": "s3cret"}
    with ServerProcess(home, str(model), *FAKE, environment=key) as server:
        with urllib.request.urlopen(server.ui_url, timeout=30) as page:
            assert page.status == 200
        assert get(server.ui_url + "innkeeper/v1/state")[0] == 401
        bearer = {"Authorization": "Bearer s3cret"}
        assert get(server.ui_url + "innkeeper/v1/state", **bearer)[0] == 200
        assert "s3cret" not in server.log


def test_a_foreign_page_cannot_reach_the_chat(shared_server: ServerProcess) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}]}
    chat = shared_server.ui_url + "innkeeper/v1/chat"
    assert get(chat, body, Origin="http://evil.example")[0] == 403
    assert get(chat, body, Host="evil.example")[0] == 403


def test_further_ports_and_pages_from_elsewhere(home: Path, model: Path) -> None:
    port, page = free_port(), "https://lite.koboldai.net"
    flags = ("--also", f"kobold:{port}", "--cors", page)
    with ServerProcess(home, str(model), *FAKE, *flags) as server:
        for url in (server.api_url, f"http://127.0.0.1:{port}/"):
            answer = httpx.get(f"{url}api/v1/model", headers={"origin": page}, trust_env=False)
            assert answer.json()["result"].startswith("koboldcpp/")
            assert answer.headers["access-control-allow-origin"] == page
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("text", "path", "scale"),
    [
        ("/a/b.gguf", "/a/b.gguf", 1.0),
        ("/a/b.gguf:0.5", "/a/b.gguf", 0.5),
        ("/a:b/c.gguf", "/a:b/c.gguf", 1.0),
        ("/a:b/c.gguf:-1", "/a:b/c.gguf", -1.0),
    ],
)
def test_a_lora_is_a_file_with_a_scale(text: str, path: str, scale: float) -> None:
    defaults = engine_defaults(Settings(lora=(text,)), Home(Path("home")))
    assert defaults.loras == (LoraAdapter(path, scale),)
