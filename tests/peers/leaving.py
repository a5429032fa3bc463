"""Clients that leave whenever: in the queue, while a prompt is read, while a reply is written.

``python -m tests.peers.leaving 1000`` makes so many, in every dialect, streamed and not. After each
group of them every place of the engine must be free within a second.
"""

import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from innkeeper.enginelink import LinkLimits
from innkeeper.serving import EngineDefaults
from tests.unit.api.gateway import Gateway

PATHS = (
    "/v1/completions /v1/chat/completions /v1/responses /v1/messages /completion /infill"
    " /api/generate /api/chat /api/v1/generate /api/extra/generate/stream"
).split()
GROUP = 24
FREE_SECONDS = 1.0
_MOST_SECONDS = 0.4
_NEVER_SECONDS = 120.0


def body_of(dice: random.Random) -> bytes:
    """One that every dialect understands; a long prompt is still being read when it goes."""
    text = "abc " * dice.choice((2, 50, 400))
    body = {
        "model": "fake",
        "prompt": text,
        "input": text,
        "input_prefix": text,
        "input_suffix": text,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 2000,
        "options": {"num_predict": 2000},
        "stream": dice.random() < 0.5,
    }
    return json.dumps(body).encode()


async def leave(port: int, dice: random.Random) -> None:
    """Asks, and is gone a moment later."""
    path, body = dice.choice(PATHS), body_of(dice)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    try:
        await asyncio.wait_for(reader.read(1 << 20), dice.uniform(0, _MOST_SECONDS))
    except TimeoutError:
        pass
    writer.close()


def seconds_to_free(gateway: Gateway) -> float:
    """How long it takes until nothing runs or waits, on both sides of the pipe.

    Raises: AssertionError if that never happens.
    """
    started = time.monotonic()
    while time.monotonic() - started < _NEVER_SECONDS:
        before = gateway.stats()
        while (stats := gateway.stats()) is before:
            time.sleep(0.002)
        link = gateway.models.link
        assert link is not None and link.alive
        if stats is not None and stats.num_running + stats.num_waiting + link.num_open == 0:
            return time.monotonic() - started
    raise AssertionError("the places were never free again")


def run(count: int, seed: int, folder: Path) -> list[float]:
    """Seconds until all places were free, after each group of leaving clients."""
    dice = random.Random(seed)
    defaults = EngineDefaults(
        backend="fake",
        num_ctx=4096,
        max_sequences=2,
        options={"tokens_per_second": "300", "prefill_per_second": "4000", "fill": "yes"},
    )
    limits = LinkLimits(ping_seconds=0.02)
    waits = []
    with Gateway(folder, defaults=defaults, limits=limits, max_queued=GROUP) as gateway:
        port = int(gateway.url.rpartition(":")[2])

        async def group(size: int) -> None:
            await asyncio.gather(*(leave(port, dice) for _ in range(size)))

        for start in range(0, count, GROUP):
            gateway.run(group(min(GROUP, count - start)))
            waits.append(seconds_to_free(gateway))
    return waits


if __name__ == "__main__":
    number = int(sys.argv[1])
    found = run(number, int((sys.argv[2:] or ["1"])[0]), Path(tempfile.mkdtemp()))
    late = [seconds for seconds in found if seconds > FREE_SECONDS]
    print(f"{number} clients left; free after {max(found):.2f} s at most, {len(late)} groups late")
    sys.exit(1 if late else 0)
