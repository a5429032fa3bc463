"""The handle on an engine process, against a scripted one."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from innkeeper.core import EngineConfig, GenerateRequest
from innkeeper.core.frames import Delta, Finished
from innkeeper.enginelink import EngineLink, LinkLimits
from innkeeper.enginelink.process import clean_environment
from innkeeper.errors import EngineCrashedError, EngineHungError, EngineLoadError

CONFIG = EngineConfig(backend="scripted", path="", name="scripted", num_ctx=64, num_pool=64)
QUICK = LinkLimits(
    ping_seconds=0.05, quiet_seconds=0.2, hung_seconds=0.5, step_seconds=10, close_seconds=0.3
)
Start = Callable[..., Awaitable[EngineLink]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    links: list[EngineLink] = []

    async def run(mode: str, **options: object) -> EngineLink:
        command = (sys.executable, "-m", "tests.unit.enginelink.scripted", mode)
        limits = options.pop("limits", LinkLimits(close_seconds=0.3))
        link = await EngineLink.start(CONFIG, command=command, limits=limits, **options)  # type: ignore[arg-type]
        links.append(link)
        return link

    yield run
    for link in links:
        await link.close()


async def collect(link: EngineLink, prompt: str = "hi") -> list[Delta | Finished]:
    return [event async for event in link.stream(GenerateRequest(prompt=prompt))]


async def test_loading_reports_progress_then_facts(start: Start) -> None:
    seen: list[tuple[float, str]] = []
    link = await start("good", on_progress=lambda fraction, stage: seen.append((fraction, stage)))
    assert seen == [(0.5, "weights")]
    assert link.facts.name == "scripted"


async def test_stream_ends_with_finished(start: Start) -> None:
    events = await collect(await start("good"))
    assert [type(event) for event in events] == [Delta, Finished]


async def test_tokenizing_answers_beside_an_open_stream(start: Start) -> None:
    link = await start("good")
    async with contextlib.aclosing(link.stream(GenerateRequest(prompt="endless"))) as events:
        await anext(events)
        assert await link.tokenize("ab") == (97, 98)
        assert link.num_open == 1
    assert link.num_open == 0


async def test_closing_a_stream_cancels_the_request(start: Start, tmp_path: Path) -> None:
    link = await start("good", log_path=tmp_path / "logs" / "engine.log")
    async with contextlib.aclosing(link.stream(GenerateRequest(prompt="endless"))) as events:
        await anext(events)
    await link.tokenize("the cancel frame came before this one")
    await link.close()
    assert "cancelled 1" in (tmp_path / "logs" / "engine.log").read_text()


async def test_death_ends_every_open_request_within_a_second(start: Start) -> None:
    link = await start("good")
    streams = [asyncio.ensure_future(collect(link, "endless")) for _ in range(5)]
    while link.num_open < 5:
        await asyncio.sleep(0.001)
    os.kill(link.process_id, signal.SIGKILL)
    killed = time.monotonic()
    results = await asyncio.gather(*streams, return_exceptions=True)
    assert time.monotonic() - killed < 1
    assert [type(result) for result in results] == [EngineCrashedError] * 5
    assert "SIGKILL" in str(results[0])
    assert not link.alive
    with pytest.raises(EngineCrashedError):
        await link.tokenize("afterwards")


async def test_crash_names_the_cause_from_the_log(start: Start) -> None:
    link = await start("abort")
    with pytest.raises(EngineCrashedError, match=r"SIGABRT: GGML_ASSERT\(n_tokens > 0\) failed"):
        await collect(link)


async def test_death_while_loading_says_why(start: Start) -> None:
    with pytest.raises(EngineLoadError, match="exit code 3: error: this GPU has no memory"):
        await start("die-loading")


async def test_unreadable_frames_end_the_engine(start: Start) -> None:
    before = psutil.Process().children()
    with pytest.raises(EngineLoadError):
        await start("garbage")
    assert psutil.Process().children() == before


async def test_engine_that_answers_no_ping_is_killed_as_hung(start: Start) -> None:
    link = await start("deaf", limits=QUICK)
    with pytest.raises(EngineHungError, match="has not answered"):
        await collect(link, "endless")
    assert isinstance(await link.lost, EngineHungError)


async def test_endless_step_is_killed_as_hung(start: Start) -> None:
    link = await start("slow-step", limits=QUICK)
    with pytest.raises(EngineHungError, match="one step has taken 100 s"):
        await collect(link, "endless")


async def test_first_step_may_take_its_time(start: Start) -> None:
    link = await start("slow-first-step", limits=QUICK)
    for _ in range(3):
        seen = link.stats
        while link.stats is seen:
            await asyncio.sleep(0.01)
    assert link.alive


async def test_stopped_process_is_unresponsive_before_it_is_hung(start: Start) -> None:
    link = await start("good", limits=QUICK)
    assert link.responsive
    os.kill(link.process_id, signal.SIGSTOP)
    while link.responsive:
        await asyncio.sleep(0.01)
    assert link.alive
    assert isinstance(await link.lost, EngineHungError)


async def test_close_kills_a_process_that_will_not_end(start: Start) -> None:
    link = await start("stubborn", limits=LinkLimits(close_seconds=0.3, save_seconds=0.3))
    process = psutil.Process(link.process_id)
    await link.close()
    await link.close()
    assert not process.is_running()
    assert await link.lost is None


async def test_cancelled_load_leaves_no_process(start: Start) -> None:
    before = psutil.Process().children()
    command = (sys.executable, "-c", "import time; time.sleep(60)")
    loading = asyncio.ensure_future(
        EngineLink.start(CONFIG, command=command, limits=LinkLimits(close_seconds=0.2))
    )
    while psutil.Process().children() == before:
        await asyncio.sleep(0.01)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert psutil.Process().children() == before


async def test_engine_sees_no_secrets(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNKEEPER_API_KEY", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    link = await start("environment")
    delta = (await collect(link))[0]
    assert isinstance(delta, Delta)
    names = delta.text.split(",")
    assert "CUDA_VISIBLE_DEVICES" in names and "PATH" in names
    assert not {"INNKEEPER_API_KEY", "HF_TOKEN"} & set(names)


def test_device_settings_pass_but_never_a_secret() -> None:
    kept = clean_environment({"GGML_X": "1", "OMP_NUM_THREADS": "2", "CUDA_API_KEY": "k", "A": "b"})
    assert set(kept) == {"GGML_X", "OMP_NUM_THREADS", "PYTHONPATH", "PYTHONUNBUFFERED"}
