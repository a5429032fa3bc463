"""How long the first token takes of a prompt that no cache knows, through the API.

    python -m benchmarks.first_token                     # the built-in model
    python -m benchmarks.first_token --model MODEL.gguf

Starts `innkeeper up`, sends one short prompt to warm it up, then `--rounds` prompts of `--tokens`
tokens each; each begins with another word, so nothing of it was read before.
"""

import argparse
import asyncio
import sys
import tempfile
from statistics import median

import httpx

from benchmarks.chat_replay import count_tokens, first_token, free_port, server
from benchmarks.report import Table

SENTENCE = "Number {} of the inn is warm, and the mail coach leaves at noon. "


async def prompt_of(client: httpx.AsyncClient, number: int, num_tokens: int) -> str:
    """At most `num_tokens` tokens, and less than a sentence fewer."""
    text = f"Chat {number}. "
    length = await count_tokens(client, text + SENTENCE.format(number))
    each = length - await count_tokens(client, text)
    text += SENTENCE.format(number) * (num_tokens // each)
    while await count_tokens(client, text) > num_tokens:
        text = text[: -len(SENTENCE.format(number))]
    return text


async def measure(url: str, num_tokens: int, rounds: int) -> list[tuple[int, float]]:
    """Tokens that were evaluated and seconds to the first text, of every round."""
    found = []
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        await first_token(client, "Good evening.")
        for number in range(100, 100 + rounds):
            prompt = await prompt_of(client, number, num_tokens)
            seconds, timings = await first_token(client, prompt)
            found.append((timings["prompt_n"], seconds))
    return found


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="--demo", help="the built-in one if not given")
    parser.add_argument("--tokens", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    port = free_port()
    command = [sys.executable, "-m", "innkeeper", "up", args.model, "--no-ui", "--yes"]
    command += ["--threads", str(args.threads), "--api-port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as home:
        async with server(command, url, home):
            found = await measure(url, args.tokens, args.rounds)
    seconds = [each for _, each in found]
    table = Table("tokens evaluated", "first token: median s", "fastest s", "slowest s")
    table.add(
        f"{median(tokens for tokens, _ in found):.0f}",
        *(f"{value:.3f}" for value in (median(seconds), min(seconds), max(seconds))),
    )
    print(table.markdown(f"{args.rounds} rounds, {args.threads} threads"))


if __name__ == "__main__":
    asyncio.run(main())
