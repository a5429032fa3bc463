"""Clients that leave, engines that die, and silence in between."""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message

from innkeeper.api.errors import ClientLeftError
from innkeeper.api.stream import EventStream, unless_client_leaves
from innkeeper.enginelink import LinkLimits
from innkeeper.errors import BusyError, EngineCrashedError
from tests.unit.api.gateway import Gateway

PATH = "/v1/completions"
LONG: dict[str, Any] = {"prompt": "hi", "max_tokens": 2000}
ANY: dict[str, Any] = {
    **LONG,
    "model": "fake",
    "messages": [{"role": "user", "content": "hi"}],
    "max_length": 2000,
    "n_predict": 2000,
    "options": {"num_predict": 2000},
}
"""A body that each dialect understands."""
PATHS = (
    "/v1/completions /v1/chat/completions /completion /api/generate /api/chat /v1/messages"
).split()
QUICK = LinkLimits(ping_seconds=0.02, step_seconds=1)
"""Engines tell their state every 20 ms."""
SCOPE: dict[str, Any] = {"type": "http"}


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """200 tokens a second. Each test leaves it with nothing to do, or its engine killed."""
    folder = tmp_path_factory.mktemp("models")
    with Gateway(folder, limits=QUICK, tokens_per_second="200") as running:
        yield running


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> float:
    """How long it took until ``condition`` held."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "it never happened"
        time.sleep(0.002)
    return time.monotonic() - started


def num_running(gateway: Gateway) -> int:
    """Sequences that the engine works on at this moment."""

    async def ask() -> int:
        link = await gateway.models.engine()
        seen = link.stats
        while link.stats is seen:
            await asyncio.sleep(0.005)
        assert link.stats is not None
        return link.stats.num_running + link.stats.num_waiting

    return gateway.run(ask())


@pytest.mark.parametrize("path", [*PATHS, "/api/extra/generate/stream"])
def test_streaming_client_that_leaves_frees_its_slot(slow: Gateway, path: str) -> None:
    body = {**ANY, "stream": True}
    with slow.client() as client:
        with client.stream("POST", path, json=body) as response:
            lines = response.iter_lines()
            assert next(lines)
            assert num_running(slow) == 1
        assert wait_for(lambda: num_running(slow) == 0) < 1


@pytest.mark.parametrize("path", [*PATHS, "/api/v1/generate"])
def test_waiting_client_that_leaves_frees_its_slot(slow: Gateway, path: str) -> None:
    body = {**ANY, "stream": False}
    with slow.client(timeout=0.3) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post(path, json=body)
    assert wait_for(lambda: num_running(slow) == 0) < 1


def test_probing_client_that_leaves_frees_its_slot(tmp_path: Path) -> None:
    with Gateway(tmp_path, limits=QUICK, prefill_per_second="500") as gateway:
        with gateway.client(timeout=0.3) as client:
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/internal/logits", json={"prompt": "x" * 1900})
        assert wait_for(lambda: num_running(gateway) == 0) < 1.5


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/extra/generate/stream", '"finish_reason":"error","detail":{"msg":'),
        ("/api/generate", '{"error":"'),
        ("/api/chat", '{"error":"'),
        ("/completion", 'data: {"error":{"code":503,'),
        ("/v1/messages", 'data: {"type":"error","error":{"type":"overloaded_error"'),
    ],
)
def test_death_in_mid_stream_ends_it_in_the_dialects_words(
    slow: Gateway, path: str, expected: str
) -> None:
    with slow.client() as client:
        with client.stream("POST", path, json={**ANY, "stream": True}) as response:
            lines = response.iter_lines()
            assert next(lines)
            slow.kill_engine(signal.SIGKILL)
            *_, last = (line for line in lines if line)
        assert expected in last
        assert "SIGKILL" in last


def chunks(response: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def test_death_in_mid_stream_is_an_error_event_and_the_next_request_works(
    slow: Gateway,
) -> None:
    with slow.client() as client:
        for _ in range(3):
            with client.stream("POST", PATH, json={**LONG, "stream": True}) as response:
                pieces = chunks(response)
                assert next(pieces)["choices"]
                slow.kill_engine(signal.SIGKILL)
                killed = time.monotonic()
                *_, last = pieces
                assert time.monotonic() - killed < 1
            assert last["error"]["code"] == "engine_crashed"
            assert "SIGKILL" in last["error"]["message"]
            answer = client.post(PATH, json={"prompt": "hi", "max_tokens": 3})
            assert len(answer.json()["choices"][0]["text"]) == 3


def test_death_before_the_first_byte_is_an_http_error(tmp_path: Path) -> None:
    with Gateway(tmp_path, prefill_per_second="500") as gateway, gateway.client() as client:
        answers: list[httpx.Response] = []

        def ask(stream: bool) -> None:
            with gateway.client() as own:
                answers.append(own.post(PATH, json={"prompt": "x" * 1500, "stream": stream}))

        threads = [threading.Thread(target=ask, args=(stream,)) for stream in (True, False)]
        for thread in threads:
            thread.start()

        def num_open() -> int:
            link = gateway.models.link
            return link.num_open if link else 0

        wait_for(lambda: num_open() == 2)
        gateway.kill_engine(signal.SIGKILL)
        for thread in threads:
            thread.join()
        for answer in answers:
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "engine_crashed"
        assert client.get("/v1/models").json()["data"]


def test_health_is_503_while_the_engine_is_stopped(tmp_path: Path) -> None:
    limits = LinkLimits(ping_seconds=0.02, quiet_seconds=0.5)
    with Gateway(tmp_path, limits=limits) as gateway, gateway.client() as client:

        async def process_id() -> int:
            return (await gateway.models.engine()).process_id

        stopped = gateway.run(process_id())
        os.kill(stopped, signal.SIGSTOP)
        try:
            assert wait_for(lambda: client.get("/health").status_code == 503) < 5
        finally:
            os.kill(stopped, signal.SIGCONT)
        wait_for(lambda: client.get("/health").status_code == 200)


def test_engine_hung_in_a_step_is_replaced(tmp_path: Path) -> None:
    with Gateway(tmp_path, limits=QUICK, hang_after="5") as gateway, gateway.client() as client:
        with client.stream("POST", PATH, json={**LONG, "stream": True}) as response:
            *_, last = chunks(response)
        assert last["error"]["code"] == "engine_hung"
        answer = client.post(PATH, json={"prompt": "hi", "max_tokens": 3})
        assert len(answer.json()["choices"][0]["text"]) == 3


def test_queue_over_its_limit_is_429_with_retry_after(tmp_path: Path) -> None:
    with Gateway(tmp_path, max_queued=0, tokens_per_second="100") as gateway:
        with gateway.client() as client, gateway.client() as other:
            with client.stream("POST", PATH, json={**LONG, "n": 4, "stream": True}) as response:
                lines = response.iter_lines()
                assert next(lines)
                refused = other.post(PATH, json=LONG)
            assert refused.status_code == 429
            assert refused.headers["retry-after"].isdigit()
            assert refused.json()["error"]["code"] == "busy"


# --- the response class by itself ----------------------------------------------------------------


class Client:
    """An ASGI client that notes what it gets, and may leave."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status


async def pieces_then(
    error: Exception | None = None, num_pieces: int = 0
) -> AsyncGenerator[bytes, None]:
    for _ in range(num_pieces):
        yield b"data: {}\n\n"
    if error is not None:
        raise error
    await asyncio.sleep(0.1)
    yield b"data: late\n\n"


async def test_error_before_the_first_event_has_its_status() -> None:
    client = Client()
    await EventStream(pieces_then(BusyError("full")))(SCOPE, client.receive, client.send)
    assert client.status == 429
    assert json.loads(client.body)["error"]["message"] == "full"


async def test_error_after_the_first_event_is_an_event() -> None:
    client = Client()
    stream = EventStream(pieces_then(EngineCrashedError("gone"), num_pieces=1))
    await stream(SCOPE, client.receive, client.send)
    assert client.status == 200
    events = client.body.decode().split("\n\n")
    assert json.loads(events[1].removeprefix("data: "))["error"]["message"] == "gone"
    assert events[2:] == ["data: [DONE]", ""]
    assert client.sent[-1]["more_body"] is False


async def test_unexpected_error_shows_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    client = Client()
    stream = EventStream(pieces_then(ZeroDivisionError("secret"), num_pieces=1))
    await stream(SCOPE, client.receive, client.send)
    assert b"secret" not in client.body and b"internal_error" in client.body
    assert "secret" in caplog.text


async def test_silence_is_filled_with_comments() -> None:
    client = Client()
    stream = EventStream(pieces_then(num_pieces=1), ping_seconds=0.02)
    await stream(SCOPE, client.receive, client.send)
    blocks = client.body.split(b"\n\n")
    assert blocks[0] == b"data: {}" and blocks[-2] == b"data: late"
    assert set(blocks[1:-2]) == {b": ping"}


async def test_long_wait_for_the_first_event_begins_the_answer() -> None:
    client = Client()
    stream = EventStream(pieces_then(), ping_seconds=0.02)
    await stream(SCOPE, client.receive, client.send)
    assert client.status == 200
    assert client.body.startswith(b": ping\n\n")


async def test_leaving_client_closes_the_source_at_once() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncGenerator[bytes, None]:
        try:
            yield b"data: {}\n\n"
            await asyncio.Event().wait()
        finally:
            closed.set()

    client = Client()
    running = asyncio.create_task(EventStream(endless())(SCOPE, client.receive, client.send))
    while not client.body:
        await asyncio.sleep(0)
    client.gone.set()
    await running
    assert closed.is_set()


@pytest.mark.parametrize("leaver", ["client", "server"])
async def test_work_is_cancelled_when_nobody_waits_for_it(leaver: str) -> None:
    client = Client()
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    running = asyncio.create_task(unless_client_leaves(client.receive, work()))
    await started.wait()
    if leaver == "client":
        client.gone.set()
        with pytest.raises(ClientLeftError):
            await running
    else:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert cancelled.is_set()
