"""Our engine loop, its process and its frames, against a bare ``llama_decode`` loop.

    python -m benchmarks.model_shapes llama-1b /tmp/1b.gguf
    python -m benchmarks.engine_overhead /tmp/1b.gguf --threads 2

Both generate greedily with the same threads, kernels and batch size, in processes of their own, in
turns, ``--rounds`` times; the table gives the medians. Target: at least 0.97 of the bare loop.

No finished chats are kept in the pool: attention walks over every used cell of a unified pool, so
idle chats that wait there for their next turn slow the others down, in any loop.
"""

import argparse
import asyncio
import multiprocessing
import multiprocessing.connection
import os
import time
from statistics import median

from benchmarks.report import Table
from innkeeper.core import EngineConfig, GenerateRequest, SamplingParams
from innkeeper.core.frames import Delta
from innkeeper.enginelink import EngineLink

NUM_PROMPT = 64
MAX_ROWS = 128


def prompt(index: int) -> tuple[int, ...]:
    return tuple(300 + (7 * i + 13 * index) % 5000 for i in range(NUM_PROMPT))


def bare_loop(pipe: multiprocessing.connection.Connection, config: EngineConfig) -> None:
    """Answers (sequences, tokens) with the seconds that the bare decode loop took."""
    import llama_cpp.llama_cpp as lib
    import numpy as np

    from innkeeper.backends.llama_cpp import load
    from innkeeper.engine.runner import Row

    runner = load(config, lambda fraction: None)
    batch, context = runner._batch, runner._context
    lib.llama_set_n_threads(context, config.num_threads, config.num_threads)
    num_vocab = runner.facts.num_vocab
    while True:
        num_sequences, num_tokens = pipe.recv()
        last = []
        for s in range(num_sequences):
            tokens = prompt(s)
            batch.fill([Row(t, i, s, i == NUM_PROMPT - 1) for i, t in enumerate(tokens)])
            assert lib.llama_decode(context, batch.batch) == 0
            pointer = lib.llama_get_logits_ith(context, NUM_PROMPT - 1)
            last.append(int(np.ctypeslib.as_array(pointer, (num_vocab,)).argmax()))
        started = time.perf_counter()
        for step in range(num_tokens):
            batch.fill([Row(t, NUM_PROMPT + step, s, True) for s, t in enumerate(last)])
            assert lib.llama_decode(context, batch.batch) == 0
            for s in range(num_sequences):
                pointer = lib.llama_get_logits_ith(context, s)
                last[s] = int(np.ctypeslib.as_array(pointer, (num_vocab,)).argmax())
        pipe.send(time.perf_counter() - started)
        for s in range(num_sequences):
            runner.remove(s, 0)


async def engine_rate(link: EngineLink, num_sequences: int, num_tokens: int) -> float:
    """Tokens a second while all sequences decode: from the last one's first token to the first
    one's last."""
    arrivals: list[list[tuple[float, int]]] = [[] for _ in range(num_sequences)]

    async def one(index: int) -> None:
        request = GenerateRequest(
            prompt=prompt(index),
            max_tokens=num_tokens,
            sampling=SamplingParams(temperature=0, ban_eos=True),
        )
        async for event in link.stream(request):
            if isinstance(event, Delta):
                arrivals[index].append((time.perf_counter(), event.num_tokens))

    await asyncio.gather(*(one(index) for index in range(num_sequences)))
    start = max(times[0][0] for times in arrivals)
    end = min(times[-1][0] for times in arrivals)
    counted = 0
    for times in arrivals:
        inside = [count for at, count in times if start <= at <= end]
        counted += inside[-1] - inside[0]
    return counted / (end - start)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--reader-nice",
        type=int,
        default=0,
        help="priority of this process, which reads the frames",
    )
    args = parser.parse_args()
    config = EngineConfig(
        backend="llama_cpp",
        path=args.model,
        name="bench",
        num_ctx=512,
        num_pool=4096,
        max_sequences=8,
        max_kept=0,
        num_threads=args.threads,
        max_ubatch=MAX_ROWS,
    )
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    bare = context.Process(target=bare_loop, args=(there, config), daemon=True)
    bare.start()
    link = await EngineLink.start(config)
    os.nice(args.reader_nice)  # once the others run, who would inherit it
    table = Table("sequences", "bare tok/s", "engine tok/s", "engine / bare (median of rounds)")
    for num_sequences in (1, 8):
        rates: list[tuple[float, float]] = []
        for _ in range(args.rounds):
            here.send((num_sequences, args.tokens))
            seconds = await asyncio.to_thread(here.recv)
            ours = await engine_rate(link, num_sequences, args.tokens)
            rates.append((num_sequences * args.tokens / seconds, ours))
        table.add(
            str(num_sequences),
            f"{median(b for b, _ in rates):.1f}",
            f"{median(o for _, o in rates):.1f}",
            f"{median(o / b for b, o in rates):.3f}",
        )
    await link.close()
    bare.kill()
    print(table.markdown(f"{args.threads} threads, {args.tokens} tokens, {args.rounds} rounds"))


if __name__ == "__main__":
    asyncio.run(main())
