"""Jobs by themselves."""

import asyncio

import pytest

from innkeeper.core import ModelFacts
from innkeeper.errors import EngineLoadError
from innkeeper.serving import LoadJob


async def never() -> ModelFacts:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("num_turns", [0, 1, 3])
async def test_cancelled_job_has_failed_however_early(num_turns: int) -> None:
    job = LoadJob("it")
    job.run(never)
    for _ in range(num_turns):
        await asyncio.sleep(0)
    await job.cancel()
    assert job.state.status == "failed"
    assert isinstance(job.state.error, EngineLoadError)


async def test_watchers_of_a_failing_job_see_why() -> None:
    async def fail() -> ModelFacts:
        await asyncio.sleep(0)
        raise EngineLoadError("no")

    job = LoadJob("it")
    job.run(fail)
    states = [state async for state in job.watch()]
    assert states[-1].status == "failed" and str(states[-1].error) == "no"
    with pytest.raises(EngineLoadError, match="no"):
        await job.wait()


async def test_slow_watcher_gets_the_newest_state() -> None:
    job = LoadJob("it")
    job.run(never)
    watching = job.watch()
    assert (await anext(watching)).fraction == 0
    for fraction in (0.1, 0.2, 0.3):
        job.progress(fraction, "weights")
    assert (await anext(watching)).fraction == 0.3
    await job.cancel()
    assert (await anext(watching)).status == "failed"
