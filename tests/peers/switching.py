"""Four clients that take turns with two models, of which memory holds one.

``python -m tests.peers.switching 500`` lets them ask, each in any dialect, until the models have
changed places so often. A reply is its model's name: no answer may be an error or come from the
other one, and no two engines may be alive at once.
"""

import asyncio
import itertools
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import msgspec

from innkeeper.core import EngineConfig
from innkeeper.enginelink import EngineLink
from innkeeper.serving import KeepRules
from innkeeper.serving.fit import Need
from innkeeper.units import MIB
from tests.unit.api.gateway import Gateway
from tests.unit.serving.conftest import small_computer

NUM_CLIENTS = 4
NAMES = "ab"
_NEED = Need(600 * MIB, 100 * MIB)
"""More than half of the memory of ``small_computer``."""
_PATIENCE_SECONDS = 120.0
_CHAT = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 9}
CALLS: dict[str, tuple[dict[str, Any], tuple[str | int, ...]]] = {
    "/v1/completions": ({"prompt": "?"}, ("choices", 0, "text")),
    "/v1/chat/completions": (_CHAT, ("choices", 0, "message", "content")),
    "/v1/messages": (_CHAT, ("content", 0, "text")),
    "/completion": ({"prompt": "?"}, ("content",)),
    "/api/chat": ({**_CHAT, "stream": False}, ("message", "content")),
    "/api/generate": ({"prompt": "?", "stream": False}, ("response",)),
}
"""Path: a body, and where the reply's text is."""


class Switches:
    """Engines as they come and go; each says its model's name and nothing else."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.most_alive = 0
        self._alive: set[EngineLink] = set()

    @property
    def count(self) -> int:
        """How often one model took the place of the other."""
        return sum(one != other for one, other in itertools.pairwise(self.started))

    def rules(self) -> dict[str, Any]:
        """For ``Models``: this computer is small, and its memory is what the engines leave."""
        return {
            "start": self.start,
            "keep": KeepRules(),
            "check": lambda _: _NEED,
            "hardware": lambda: small_computer(taken=len(self._alive) * _NEED.ram_bytes),
        }

    async def start(self, config: EngineConfig, **options: Any) -> EngineLink:
        """An engine, as ``EngineLink.start`` gives one."""
        self.started.append(config.name)
        named = msgspec.structs.replace(config, options={"reply": config.name})
        link = await EngineLink.start(named, **options)
        self._alive.add(link)
        self.most_alive = max(self.most_alive, len(self._alive))
        link.lost.add_done_callback(lambda _: self._alive.discard(link))
        return link


async def ask(client: httpx.AsyncClient, name: str, dice: random.Random) -> None:
    """One question in any dialect. Raises: AssertionError if another model answers."""
    path = dice.choice(list(CALLS))
    body, place = CALLS[path]
    answer = await client.post(path, json={**body, "model": name})
    assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
    text = answer.json()
    for step in place:
        text = text[step]
    assert text == name, f"{path}: {name} was asked and {text} answered"


def run(count: int, seed: int, folder: Path) -> tuple[int, Switches]:
    """Number of answers, and the switches there were: at least ``count``."""
    for name in NAMES:
        (folder / f"{name}.gguf").write_bytes(b"GGUF")
    switches = Switches()

    async def client(number: int, url: str) -> int:
        dice = random.Random(f"{seed} {number}")
        async with httpx.AsyncClient(base_url=url, timeout=_PATIENCE_SECONDS) as session:
            for turn in itertools.count(number):
                if switches.count >= count:
                    return turn - number
                await ask(session, NAMES[turn % len(NAMES)], dice)
        raise AssertionError("unreachable")

    async def clients(url: str) -> list[int]:
        return await asyncio.gather(*(client(number, url) for number in range(NUM_CLIENTS)))

    with Gateway(folder, model=None, rules=switches.rules()) as gateway:
        answers = gateway.run(clients(gateway.url), seconds=None)
    assert switches.most_alive == 1, f"{switches.most_alive} engines at once"
    return sum(answers), switches


if __name__ == "__main__":
    wanted = int(sys.argv[1])
    number, found = run(wanted, int((sys.argv[2:] or ["1"])[0]), Path(tempfile.mkdtemp()))
    print(f"{number} answers, {found.count} switches, one engine at a time")
