"""Loading, replacing, losing and listing models."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from innkeeper.core import EngineConfig, GenerateRequest
from innkeeper.enginelink import EngineLink
from innkeeper.errors import (
    BusyError,
    EngineCrashedError,
    EngineLoadError,
    ModelFileError,
    NoModelError,
    NotEnoughMemoryError,
    NotFoundError,
)
from innkeeper.serving import EngineDefaults, Generate, Models, Overrides
from innkeeper.serving.fit import Need
from innkeeper.units import GIB, MIB
from tests.unit.serving.conftest import MakeModels, small_computer

FAKE = Path("/models/fake.gguf")


async def reply(models: Models, prompt: str = "hi") -> str:
    request = GenerateRequest(prompt=prompt, max_tokens=4)
    events = [event async for event in Generate(models).stream(request)]
    return "".join(getattr(event, "text", "") for event in events)


async def test_load_job_tells_its_progress_to_every_watcher(make_models: MakeModels) -> None:
    job = make_models().start_load_file(FAKE)

    async def watch() -> list[str]:
        return [state.status async for state in job.watch()]

    first, second = await asyncio.gather(watch(), watch())
    assert first[0] == second[0] == "running"
    assert first[-1] == second[-1] == "done"
    assert (await job.wait()).name == "fake"


async def test_nothing_loaded_answers_no_model(make_models: MakeModels) -> None:
    models = make_models()
    with pytest.raises(NoModelError):
        await models.engine()
    assert models.facts is None and not models.healthy


async def test_request_waits_for_the_load_under_way(make_models: MakeModels) -> None:
    models = make_models()
    models.start_load_file(FAKE)
    assert len(await reply(models)) == 4


async def test_second_load_at_the_same_time_is_refused(make_models: MakeModels) -> None:
    models = make_models()
    job = models.start_load_file(FAKE)
    with pytest.raises(BusyError, match="fake is being loaded"):
        models.start_load_file(FAKE)
    await job.wait()


async def test_failed_load_leaves_the_old_model_answering(tmp_path: Path) -> None:
    started: list[EngineConfig] = []

    async def start(config: EngineConfig, **options: Any) -> EngineLink:
        started.append(config)
        if len(started) == 2:
            raise EngineLoadError("no room")
        return await EngineLink.start(config, **options)

    models = Models(tmp_path, EngineDefaults(backend="fake"), start=start)
    try:
        await models.start_load_file(FAKE).wait()
        process_id = models.link and models.link.process_id
        with pytest.raises(EngineLoadError, match="no room"):
            await models.start_load_file(Path("/models/other.gguf")).wait()
        assert models.facts and models.facts.name == "fake"
        assert models.link and models.link.process_id == process_id
        assert len(await reply(models)) == 4
    finally:
        await models.close()


async def test_old_model_comes_back_if_memory_had_room_for_one_only(tmp_path: Path) -> None:
    failing = {"other"}

    async def start(config: EngineConfig, **options: Any) -> EngineLink:
        if config.name in failing:
            raise EngineLoadError("no room")
        return await EngineLink.start(config, **options)

    models = Models(
        tmp_path,
        EngineDefaults(backend="fake"),
        start=start,
        check=lambda _: Need(600 * MIB, 424 * MIB),
        hardware=small_computer,
    )
    try:
        await models.start_load_file(FAKE).wait()
        with pytest.raises(EngineLoadError, match="no room"):
            await models.start_load_file(Path("/models/other.gguf")).wait()
        assert len(await reply(models)) == 4
        failing.clear()
        await models.start_load_file(Path("/models/other.gguf")).wait()
        assert models.facts and models.facts.name == "other"
        assert len(await reply(models)) == 4
    finally:
        await models.close()


@pytest.mark.parametrize(
    ("need", "words"),
    [
        (Need(GIB + MIB, 0), "1.0 GiB of memory; 1.0 GiB is free"),
        (Need(GIB // 2, GIB), "needs 1.5 GiB of memory; 1.0 GiB is in this computer"),
    ],
)
async def test_model_too_big_is_refused_and_the_old_one_answers(
    tmp_path: Path, need: Need, words: str
) -> None:
    needs = {"fake": Need(), "huge": need}
    models = Models(
        tmp_path,
        EngineDefaults(backend="fake"),
        check=lambda config: needs[config.name],
        hardware=small_computer,
    )
    try:
        await models.start_load_file(FAKE).wait()
        with pytest.raises(NotEnoughMemoryError, match=words) as caught:
            await models.start_load_file(Path("/models/huge.gguf")).wait()
        assert "--ctx" in str(caught.value)
        assert len(await reply(models)) == 4
    finally:
        await models.close()


async def test_replaced_engine_finishes_its_replies_then_ends(make_models: MakeModels) -> None:
    models = make_models(tokens_per_second="500")
    await models.start_load_file(FAKE).wait()
    old = models.link
    assert old is not None
    request = GenerateRequest(prompt="hi", max_tokens=100)
    async with contextlib.aclosing(Generate(models).stream(request)) as events:
        await anext(events)
        await models.start_load_file(Path("/models/other.gguf")).wait()
        assert models.facts and models.facts.name == "other"
        rest = [event async for event in events]
    assert len(rest) == 100, "99 deltas and the end"
    assert await old.lost is None


async def test_crash_restarts_the_engine_for_the_next_request(make_models: MakeModels) -> None:
    models = make_models()
    await models.start_load_file(FAKE).wait()
    for _ in range(3):
        assert models.link is not None
        lost = models.link.lost
        os.kill(models.link.process_id, signal.SIGKILL)
        assert isinstance(await lost, EngineCrashedError)
        assert models.facts is not None, "the model is still the loaded one"
        assert len(await reply(models)) == 4


async def test_restart_that_fails_tells_waiting_requests_and_goes_on(tmp_path: Path) -> None:
    fail = [False, True, True, False]

    async def start(config: EngineConfig, **options: Any) -> EngineLink:
        if fail.pop(0):
            raise EngineLoadError("the disk is gone")
        return await EngineLink.start(config, **options)

    models = Models(
        tmp_path, EngineDefaults(backend="fake"), start=start, retry_seconds=(0.0, 0.05)
    )
    try:
        await models.start_load_file(FAKE).wait()
        assert models.link is not None
        os.kill(models.link.process_id, signal.SIGKILL)
        await models.link.lost
        for _ in range(2):
            with pytest.raises(EngineLoadError, match="the disk is gone"):
                await reply(models)
        assert len(await reply(models)) == 4
        assert not fail
    finally:
        await models.close()


async def test_restarts_wait_longer_each_time(tmp_path: Path) -> None:
    waits: list[float] = []
    crashed = asyncio.Event()

    async def start(config: EngineConfig, **options: Any) -> EngineLink:
        return await EngineLink.start(config, **options)

    models = Models(tmp_path, EngineDefaults(backend="fake"), start=start, retry_seconds=(0, 0, 7))
    real_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if seconds == 7:
            crashed.set()
        await real_sleep(min(seconds, 0))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("innkeeper.serving.loaded.asyncio.sleep", sleep)
        try:
            await models.start_load_file(FAKE).wait()
            while not crashed.is_set():
                link = await models.engine()
                os.kill(link.process_id, signal.SIGKILL)
                await link.lost
            assert [w for w in waits if w in (0, 7)][:3] == [0, 0, 7]
        finally:
            await models.close()


async def test_unload_ends_the_process_and_the_replies(make_models: MakeModels) -> None:
    models = make_models(tokens_per_second="100")
    await models.start_load_file(FAKE).wait()
    assert models.link is not None
    process = psutil.Process(models.link.process_id)
    stream = Generate(models).stream(GenerateRequest(prompt="hi"))
    await anext(stream)
    await models.unload()
    with pytest.raises(EngineCrashedError, match="unloaded"):
        while True:
            await anext(stream)
    assert not process.is_running()
    assert models.facts is None


async def test_close_during_a_load_leaves_no_process(make_models: MakeModels) -> None:
    before = psutil.Process().children()
    models = make_models()
    models.start_load_file(FAKE)
    while psutil.Process().children() == before:
        await asyncio.sleep(0.005)
    await models.close()
    assert psutil.Process().children() == before


async def test_header_is_checked_before_the_old_model_is_touched(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\xff" * 20)
    models = Models(tmp_path, EngineDefaults())
    with pytest.raises(ModelFileError):
        await models.start_load("bad").wait()
    with pytest.raises(NotFoundError):
        await models.start_load_file(tmp_path / "absent.gguf").wait()
    await models.close()


def touch(path: Path, num_bytes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * num_bytes)


async def test_entries_are_models_not_parts_or_projectors(
    make_models: MakeModels, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    touch(folder / "b.gguf", 3)
    touch(folder / "org" / "A.Q4_K.gguf", 4)
    touch(folder / "big-00001-of-00002.gguf", 5)
    touch(folder / "big-00002-of-00002.gguf", 6)
    touch(folder / "mmproj-b.gguf", 1)
    touch(folder / "notes.txt", 1)
    found = [(entry.name, entry.size_bytes) for entry in make_models().entries()]
    assert found == [("b", 3), ("big", 11), ("org/A.Q4_K", 4)]


@pytest.mark.parametrize(
    "name", ["../b", "/etc/passwd", "org/../b", ".", "", "b.gguf.gguf", "b\0", "org\\A"]
)
async def test_only_listed_names_can_be_loaded(
    make_models: MakeModels, tmp_path: Path, name: str
) -> None:
    touch(tmp_path / "models" / "b.gguf", 3)
    with pytest.raises(NotFoundError):
        make_models().start_load(name)


async def test_overrides_change_only_what_they_name(
    make_models: MakeModels, tmp_path: Path
) -> None:
    touch(tmp_path / "models" / "b.gguf", 3)
    facts = await make_models().start_load("b.gguf", Overrides(num_ctx=512)).wait()
    assert (facts.num_ctx, facts.num_pool, facts.max_sequences) == (512, 512, 4)


def test_pool_is_never_smaller_than_the_context() -> None:
    make: Callable[..., EngineDefaults] = EngineDefaults
    assert make(num_ctx=100, num_pool=50).config(FAKE, "fake", None).num_pool == 100
    assert make(num_ctx=100, num_pool=300).config(FAKE, "fake", None).num_pool == 300
