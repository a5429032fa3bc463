"""What the gateway and HTTP add to the engine: per token, to the first token, to a token count.

    python -m benchmarks.api_overhead
    python -m benchmarks.api_overhead --model MODEL.gguf    # token counts beside a real prefill

The fake engine decodes at 200 tokens a second. The same replies are read from the engine's frames
and through HTTP as server-sent events, in turns; the differences of the medians are what is added.
Targets: 0.3 ms a token, 5 ms to the first token, token counts of 8 kB within 20 ms (p95) while a
prompt is read.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from statistics import median, quantiles
from typing import NamedTuple

import httpx

from benchmarks.chat_replay import free_port
from benchmarks.report import Table
from innkeeper.core import EngineConfig, GenerateRequest, SamplingParams
from innkeeper.core.frames import Delta
from innkeeper.enginelink import EngineLink

SPEED = "200"
NUM_TOKENS = 200
TEXT_8_KB = "The rain had been falling on the inn since noon. " * 167


class Reply(NamedTuple):
    first_seconds: float
    seconds: float


async def over_frames(link: EngineLink) -> Reply:
    request = GenerateRequest(
        prompt="Hello", max_tokens=NUM_TOKENS, sampling=SamplingParams(temperature=0)
    )
    started, first = time.perf_counter(), 0.0
    async for event in link.stream(request):
        if isinstance(event, Delta) and not first:
            first = time.perf_counter() - started
    return Reply(first, time.perf_counter() - started)


async def over_http(client: httpx.AsyncClient) -> Reply:
    body = {"prompt": "Hello", "max_tokens": NUM_TOKENS, "temperature": 0, "stream": True}
    started, first = time.perf_counter(), 0.0
    async with client.stream("POST", "/v1/completions", json=body) as response:
        async for line in response.aiter_lines():
            if not first and line.startswith("data: {") and '"text":""' not in line:
                first = time.perf_counter() - started
    return Reply(first, time.perf_counter() - started)


async def count_beside_prefill(client: httpx.AsyncClient, prompt: str, count: int) -> list[float]:
    """Seconds of each token count while ``prompt`` is being read."""
    body = {"prompt": prompt, "max_tokens": 1, "temperature": 0}
    reading = asyncio.create_task(client.post("/v1/completions", json=body))
    await asyncio.sleep(0.2)
    seconds = []
    while len(seconds) < count and not reading.done():
        started = time.perf_counter()
        reply = await client.post("/v1/internal/token-count", json={"text": TEXT_8_KB})
        reply.raise_for_status()
        seconds.append(time.perf_counter() - started)
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    return seconds


@contextlib.asynccontextmanager
async def gateway(*arguments: str) -> AsyncIterator[httpx.AsyncClient]:
    """``innkeeper up`` on a free port, in a home of its own."""
    port = free_port()
    command = (sys.executable, "-m", "innkeeper", "up", *arguments, "--no-ui", "--yes")
    with tempfile.TemporaryDirectory() as home:
        process = await asyncio.create_subprocess_exec(
            *command,
            *("--api-port", str(port)),
            env={**os.environ, "INNKEEPER_HOME": home},
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                if line.startswith(b"ready "):
                    break
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", timeout=600
            ) as client:
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--model", help="a GGUF for the token counts, instead of the fake engine")
    args = parser.parse_args()
    fake = ("--backend", "fake", "--backend-options", f"tokens_per_second={SPEED}")
    config = EngineConfig(
        backend="fake",
        path="",
        name="fake",
        num_ctx=4096,
        num_pool=4096,
        options={"tokens_per_second": SPEED},
    )
    link = await EngineLink.start(config)
    frames, http = [], []
    async with gateway(__file__, *fake) as client:  # any file: the fake engine opens none
        for _ in range(args.rounds):
            frames.append(await over_frames(link))
            http.append(await over_http(client))
    await link.close()
    slow = ("--backend-options", "prefill_per_second=100")
    counted = (args.model, "--ctx", "4096") if args.model else (__file__, *fake[:2], *slow)
    async with gateway(*counted) as client:
        counts = await count_beside_prefill(client, TEXT_8_KB[:3000], 200)
    report(frames, http, counts)


def report(frames: list[Reply], http: list[Reply], counts: list[float]) -> None:
    first = median(r.first_seconds for r in http) - median(r.first_seconds for r in frames)
    whole = median(r.seconds for r in http) - median(r.seconds for r in frames)
    table = Table("what", "median", "target")
    table.add("added to the first token", f"{1000 * first:.2f} ms", "5 ms")
    table.add("added to each token", f"{1000 * (whole - first) / NUM_TOKENS:.3f} ms", "0.3 ms")
    p95 = quantiles(counts, n=20)[-1]
    table.add("token count of 8 kB beside a prefill, p95", f"{1000 * p95:.1f} ms", "20 ms")
    print(table.markdown(f"{len(http)} rounds of {NUM_TOKENS} tokens, {len(counts)} counts"))


if __name__ == "__main__":
    asyncio.run(main())
