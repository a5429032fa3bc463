"""Clients that take turns with two models; ``python -m tests.peers.switching 500`` is longer."""

import asyncio
import random
from pathlib import Path
from typing import Any

import httpx

from innkeeper.core import EngineConfig
from innkeeper.enginelink import EngineLink
from tests.peers.switching import CALLS, Switches, ask, run
from tests.unit.api.gateway import Gateway

NUM_LEAVING = 100


def test_clients_that_alternate_get_their_own_model_in_every_dialect(tmp_path: Path) -> None:
    num_answers, switches = run(8, seed=1, folder=tmp_path)
    assert switches.count >= 8 and num_answers >= 8


class SlowLoads(Switches):
    """Loads that go on when they may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = asyncio.Event()

    async def start(self, config: EngineConfig, **options: Any) -> EngineLink:
        link = await super().start(config, **options)
        await self.may_go_on.wait()
        return link


def test_a_hundred_clients_that_leave_during_a_load_make_one_load(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    loads = SlowLoads()

    async def leave(url: str, dice: random.Random) -> None:
        path = dice.choice(list(CALLS))
        body = {**CALLS[path][0], "model": "a", "stream": dice.random() < 0.5}
        async with httpx.AsyncClient(base_url=url, timeout=dice.uniform(0.2, 0.5)) as client:
            try:
                answer = await client.post(path, json=body)
            except httpx.TimeoutException:
                return
        raise AssertionError(f"{path} answered during the load: {answer.text}")

    async def all_leave(url: str) -> None:
        await asyncio.gather(*(leave(url, random.Random(i)) for i in range(NUM_LEAVING)))

    async def last(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            await ask(client, "a", random.Random(0))

    rules = loads.rules()
    with Gateway(tmp_path, model=None, rules=rules, max_queued=NUM_LEAVING) as gateway:
        gateway.run(all_leave(gateway.url))
        gateway.run(_set(loads.may_go_on))
        gateway.run(last(gateway.url))
        assert loads.started == ["a"]
        assert not gateway.models.loaded[0].is_busy


async def _set(event: asyncio.Event) -> None:
    event.set()
