"""How much of a recorded chat each server reads again, and how long the first token takes.

    python -m benchmarks.chat_replay TRACE.jsonl --model MODEL.gguf
    python -m benchmarks.chat_replay TRACE.jsonl --model MODEL.gguf --llama-server PATH

TRACE has one JSON object a line, in the order of the chat, with at least ``prompt`` (text). Each
prompt is sent to ``/v1/completions`` with ``max_tokens`` 1; the replies are those of the recording,
so each is new text to every server. The table counts the tokens that each server says it
evaluated, less those of the reply before, which no cache could hold; with ``--generated`` they are
in the cache, as when a chat goes on, and the time to the first token is that of a real turn.

``new lines`` is what is in no earlier prompt that asks the same one to speak, counted in the same
way: all that must be read of a group chat, at the least, if nothing is taken over from the prompts
of the others, which begin with other cards.

Ours runs once in each policy of ``kv_reuse``; llama-server as it starts by default and with its
``--cache-reuse``, at the same context, threads and KV type. All of them are up at once and take
each turn one after the other, since the speed of a shared machine changes within minutes. So beside
llama-server, whose turns would be idle time for ours, ours does no idle work.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import httpx

from benchmarks.report import Table


class Turn(NamedTuple):
    evaluated: int
    approximate: int
    reply: int
    """Tokens of the reply before, new to every server."""
    new: int
    """Tokens of lines that no earlier prompt for the same speaker had, nor a reply to one."""
    first_token_seconds: float


def reply_before(previous: str, prompt: str) -> str:
    """The recorded reply to ``previous``, found in the next prompt; empty if it is not there: the
    last that was said by the one whom ``previous`` asked to speak."""
    cue = "\n" + previous.rsplit("\n", 1)[-1]
    start = prompt.rfind(cue + " ")
    if prompt == previous or start < 0:
        return ""
    start += len(cue)
    end = prompt.find("\nUser:", start)
    return prompt[start : end if end >= 0 else prompt.rfind("\n")]


class Heard:
    """The lines that were in a prompt for each speaker."""

    def __init__(self) -> None:
        self._lines: dict[str, set[str]] = {}

    def add(self, prompt: str, reply: str = "") -> str:
        """Those lines of ``prompt`` that are new to whom it asks to speak."""
        cue = prompt.rsplit("\n", 1)[-1]
        held = self._lines.setdefault(cue, {""})
        new = [line for line in prompt.split("\n") if line not in held]
        held.update((prompt + reply).split("\n"))
        held.discard(cue)
        return "\n".join(new)


async def first_token(client: httpx.AsyncClient, prompt: str) -> tuple[float, dict[str, Any]]:
    """Seconds to the first text, and the ``timings`` of the last chunk."""
    body = {
        "prompt": prompt,
        "max_tokens": 1,
        "temperature": 0,
        "stream": True,
        "ban_eos_token": True,
        "cache_prompt": True,
        "timings_per_token": True,
    }
    started, seconds, timings = time.perf_counter(), 0.0, {}
    async with client.stream("POST", "/v1/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            if not seconds and chunk["choices"] and chunk["choices"][0].get("text"):
                seconds = time.perf_counter() - started
            timings = chunk.get("timings") or timings
    return seconds, timings


class Replay:
    """One server's way through the chat."""

    def __init__(self, client: httpx.AsyncClient, prompts: Sequence[str], is_generated: bool):
        """is_generated: each reply is put behind its prompt, untimed."""
        self.turns: list[Turn] = []
        self._client = client
        self._prompts = prompts
        self._is_generated = is_generated
        self._heard = Heard()

    async def turn(self, index: int) -> None:
        """Takes the turns in order."""
        client, prompt = self._client, self._prompts[index]
        before = "" if self._is_generated else self._reply(index - 1)
        reply_tokens = await count_tokens(client, before) if before else 0
        num_new = await count_tokens(client, self._heard.add(prompt))
        seconds, timings = await first_token(client, prompt)
        approximate = timings.get("cache_approx_n", 0)
        self.turns.append(Turn(timings["prompt_n"], approximate, reply_tokens, num_new, seconds))
        if self._is_generated and (reply := self._reply(index)):
            await first_token(client, prompt + reply)
            self._heard.add(prompt, reply)

    def _reply(self, index: int) -> str:
        """The recorded reply to a prompt; empty if the next one does not have it."""
        if not 0 <= index < len(self._prompts) - 1:
            return ""
        return reply_before(self._prompts[index], self._prompts[index + 1])


async def count_tokens(client: httpx.AsyncClient, text: str) -> int:
    """By whichever of the two token routes the server has."""
    response = await client.post("/v1/internal/token-count", json={"text": text})
    if response.status_code == 200:
        return int(response.json()["length"])
    response = await client.post("/tokenize", json={"content": text})
    return len(response.raise_for_status().json()["tokens"])


@contextlib.asynccontextmanager
async def server(command: Sequence[str], url: str, home: str) -> AsyncIterator[None]:
    """Runs ``command`` until the block ends; waits until ``/health`` says ok."""
    with open(os.path.join(home, "server.log"), "ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=log, stderr=log, env={**os.environ, "INNKEEPER_HOME": home}
        )
    try:
        async with httpx.AsyncClient() as client:
            while process.returncode is None:
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(url + "/health")).status_code == 200:
                        break
                await asyncio.sleep(0.2)
        if process.returncode is not None:
            sys.exit(f"{command[0]} ended with {process.returncode}")
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def commands(args: argparse.Namespace) -> dict[str, list[str]]:
    """By name, the servers to compare, but for their ports."""
    threads = ["--threads", str(args.threads)]
    ours = [
        *(sys.executable, "-m", "innkeeper", "up", args.model, "--no-ui", "--yes"),
        *("--ctx", str(args.ctx), "--pool", str(args.pool), *threads),
        *(["--no-idle-refresh", "--disk-cache", "0"] if args.llama_server else []),
    ]
    policies = args.policies.split(",")
    found = {f"innkeeper {p}": [*ours, "--kv-reuse", p, "--api-port"] for p in policies}
    if args.llama_server:
        peer = [args.llama_server, "-m", args.model, "-c", str(args.ctx), *threads, "-np", "1"]
        found["llama-server"] = [*peer, "--port"]
        found["llama-server --cache-reuse 1"] = [*peer, "--cache-reuse", "1", "--port"]
        found["llama-server --cache-reuse 256"] = [*peer, "--cache-reuse", "256", "--port"]
    return {name: line for name, line in found.items() if args.only in ("", name)}


async def replay(args: argparse.Namespace, prompts: Sequence[str]) -> dict[str, list[Turn]]:
    """The turns of each server, by its name."""
    # A connection for each request: llama-server closes them while they are kept alive.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with contextlib.AsyncExitStack() as stack:
        replays = {}
        for name, command in commands(args).items():
            home = stack.enter_context(tempfile.TemporaryDirectory())
            port = free_port()
            url = f"http://127.0.0.1:{port}"
            await stack.enter_async_context(server([*command, str(port)], url, home))
            client = httpx.AsyncClient(base_url=url, timeout=600, limits=limits)
            await stack.enter_async_context(client)
            replays[name] = Replay(client, prompts, args.generated)
        for index in range(len(prompts)):
            for each in replays.values():
                await each.turn(index)
                await asyncio.sleep(args.pause)
        return {name: each.turns for name, each in replays.items()}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--ctx", type=int, default=4096)
    parser.add_argument("--pool", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--policies", default="exact,auto,fast")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between turns")
    parser.add_argument("--turns", type=int, default=1000)
    parser.add_argument("--skip", type=int, default=5, help="turns before the chat is full")
    parser.add_argument(
        "--generated",
        action="store_true",
        help="put each reply behind its prompt, untimed, as if it had been written here",
    )
    parser.add_argument("--llama-server", help="its binary")
    parser.add_argument("--only", default="", help="the one server of this name")
    args = parser.parse_args()
    lines = args.trace.read_text().splitlines()[: args.turns]
    prompts = [json.loads(line)["prompt"] for line in lines]
    table = Table(
        *("server", "evaluated a turn: mean", "median", "p90", "new lines, mean"),
        "approximate, mean",
        *("first token: mean s", "median s"),
    )
    for name, every in (await replay(args, prompts)).items():
        turns = every[args.skip :]
        new = sorted(max(0, turn.evaluated - turn.reply) for turn in turns)
        seconds = [turn.first_token_seconds for turn in turns]
        table.add(
            name,
            f"{mean(new):.0f}",
            f"{median(new):.0f}",
            f"{new[int(0.9 * (len(new) - 1))]}",
            f"{mean(max(0, turn.new - turn.reply) for turn in turns):.0f}",
            f"{mean(turn.approximate for turn in turns):.0f}",
            f"{mean(seconds):.2f}",
            f"{median(seconds):.2f}",
        )
        print(name, seconds, file=sys.stderr)
    print(table.markdown(f"{len(prompts)} turns, {args.pause:g} s between them"))


if __name__ == "__main__":
    asyncio.run(main())
