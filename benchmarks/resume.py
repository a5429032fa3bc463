"""How long a chat takes to go on after a restart, beside reading it again.

    python -m benchmarks.resume --model MODEL.gguf

A chat of ``--tokens`` tokens is read; the server is stopped as by Ctrl-C and started again; then
the chat's next turn is sent. "Cold" is the same turn sent to a server without a disk cache. First
tokens are measured from the request, sent once the server says that it is ready.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from random import Random
from statistics import median

import httpx

from benchmarks.chat_replay import count_tokens, first_token, free_port, server
from benchmarks.report import Table

WORDS = "the inn ford mill road river guest ale lantern bridge winter bell map key harbour moor"
NEXT_TURN = "\nUser: And what did you do then?\nMira:"


async def make_chat(client: httpx.AsyncClient, num_tokens: int) -> str:
    """A text of about ``num_tokens`` tokens."""
    rng, words = Random(1), WORDS.split()
    text = ""
    while await count_tokens(client, text) < num_tokens:
        text += " ".join(rng.choice(words) for _ in range(50)) + ".\n"
    return text


async def restart(command: list[str], url: str, home: str) -> tuple[float, dict[str, float]]:
    """Seconds to the first token of the next turn in a new process, and its timings."""
    async with server(command, url, home), httpx.AsyncClient(base_url=url, timeout=900) as client:
        text = await make_chat(client, args.tokens)
        return await first_token(client, text + NEXT_TURN)


async def main() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        *(sys.executable, "-m", "innkeeper", "up", args.model, "--no-ui", "--yes"),
        *("--ctx", str(args.ctx), "--pool", str(args.ctx), "--api-port", str(port)),
        *("--threads", str(args.threads)),
    ]
    table = Table("first token", "median s", "tokens evaluated", "restored")
    with tempfile.TemporaryDirectory() as home:
        async with server(command, url, home), httpx.AsyncClient(base_url=url, timeout=900) as c:
            await first_token(c, await make_chat(c, args.tokens))
        size = sum(e.stat().st_size for e in os.scandir(os.path.join(home, "cache")))
        for name, extra, runs in (
            ("after a restart", [], args.runs),
            ("cold", ["--disk-cache", "0"], args.cold_runs),
        ):
            found = [await restart([*command, *extra], url, home) for _ in range(runs)]
            table.add(
                name,
                f"{median(seconds for seconds, _ in found):.2f}",
                f"{found[0][1]['prompt_n']}",
                f"{found[0][1]['restored_n']}",
            )
    print(
        table.markdown(f"{args.runs} restarts, {args.cold_runs} cold; {size / 1e6:.0f} MB on disk")
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--ctx", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cold-runs", type=int, default=1)
    args = parser.parse_args()
    asyncio.run(main())
