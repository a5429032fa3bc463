"""Our engine loop, whose frames another process reads, against a bare ``llama_decode`` loop.

    python -m benchmarks.model_shapes llama-1b /tmp/1b.gguf
    python -m benchmarks.engine_overhead /tmp/1b.gguf --threads 2

Both generate greedily from the same prompts in one process, on one llama.cpp context, in turns: two
processes with the same code and model differ by up to a tenth by themselves. Each pair of turns
gives one ratio; the table gives the medians. Target: at least 0.97 of the bare loop.

Only steps in which every sequence decodes are timed. No finished chats are kept in the pool:
attention walks over every used cell of it, so idle chats slow the others down, in any loop.
"""

import argparse
import asyncio
import multiprocessing
import os
from multiprocessing.connection import Connection
from statistics import median, quantiles
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.report import Table
from innkeeper.core import EngineConfig, GenerateRequest, SamplingParams
from innkeeper.core.frames import (
    LENGTH_BYTES,
    Cancel,
    Delta,
    Submit,
    body_length,
    decode_from_engine,
)

if TYPE_CHECKING:
    from innkeeper.backends.llama_cpp.runner import LlamaRunner
    from innkeeper.engine.loop import Engine

NUM_PROMPT = 16
WARM_UP = 2
"""Tokens of each turn that are not timed."""


def prompt(index: int) -> tuple[int, ...]:
    return tuple(300 + (7 * i + 13 * index) % 5000 for i in range(NUM_PROMPT))


def work(config: EngineConfig, orders: Connection, frames: Connection) -> None:
    """The child. Answers (sequences, tokens) with the seconds a step of (bare, engine) took."""
    from innkeeper.backends.llama_cpp import load
    from innkeeper.engine.child import FrameWriter
    from innkeeper.engine.loop import Engine

    runner = load(config, lambda fraction: None)
    writer = FrameWriter(os.fdopen(os.dup(frames.fileno()), "wb"))
    engine = Engine(runner, writer.write, idle_refresh=False)
    number = 0
    while True:
        num_sequences, num_tokens = orders.recv()
        turns = [bare_turn, engine_turn] if number % 2 else [engine_turn, bare_turn]
        number += 1
        seconds = {turn: turn(runner, engine, num_sequences, num_tokens) for turn in turns}
        orders.send((seconds[bare_turn], seconds[engine_turn]))


def bare_turn(
    runner: "LlamaRunner", engine: "Engine", num_sequences: int, num_tokens: int
) -> float:
    """Seconds a step, as short as such a loop can be in Python."""
    import llama_cpp.llama_cpp as lib
    import numpy as np

    from innkeeper.engine.runner import Row

    batch, context, num_vocab = runner._batch, runner._context, runner.facts.num_vocab

    lib.llama_set_n_threads(context, runner.num_threads, runner.num_threads)

    def decode(rows: list[Row], output: int) -> int:
        batch.fill(rows)
        assert lib.llama_decode(context, batch.batch) == 0
        return best(output)

    def best(output: int) -> int:
        pointer = lib.llama_get_logits_ith(context, output)
        return int(np.ctypeslib.as_array(pointer, (num_vocab,)).argmax())

    last = []
    for s in range(num_sequences):
        rows = [Row(t, i, s, i == NUM_PROMPT - 1) for i, t in enumerate(prompt(s))]
        last.append(decode(rows, NUM_PROMPT - 1))
    started = 0.0
    for step in range(num_tokens):
        if step == WARM_UP:
            started = perf_counter()
        batch.fill([Row(t, NUM_PROMPT + step, s, True) for s, t in enumerate(last)])
        assert lib.llama_decode(context, batch.batch) == 0
        last = [best(s) for s in range(num_sequences)]
    seconds = perf_counter() - started
    for s in range(num_sequences):
        runner.remove(s, 0)
    return seconds / (num_tokens - WARM_UP)


def engine_turn(
    runner: "LlamaRunner", engine: "Engine", num_sequences: int, num_tokens: int
) -> float:
    """Seconds a step of the loop as it runs in an engine process, frames written."""
    to_read = engine.stats().prompt_tokens + num_sequences * NUM_PROMPT
    for s in range(num_sequences):
        sampling = SamplingParams(temperature=0, ban_eos=True)
        request = GenerateRequest(prompt=prompt(s), max_tokens=400, sampling=sampling)
        engine.prepare(Submit(s + 1, request))
    while engine.stats().prompt_tokens < to_read:
        engine.step()
    for _ in range(WARM_UP):
        engine.step()
    before = engine.stats()
    started = perf_counter()
    for _ in range(num_tokens - WARM_UP):
        engine.step()
    seconds = perf_counter() - started
    after = engine.stats()
    predicted = after.predicted_tokens - before.predicted_tokens
    assert predicted == num_sequences * (num_tokens - WARM_UP)
    engine.inbox.put(Cancel())
    engine.step()
    engine.cache.drop_idle()
    return seconds / (num_tokens - WARM_UP)


async def read_frames(source: Connection) -> None:
    """As the gateway reads an engine's, until cancelled."""
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: protocol, os.fdopen(os.dup(source.fileno()))
    )
    while header := await reader.readexactly(LENGTH_BYTES):
        frame = decode_from_engine(await reader.readexactly(body_length(header)))
        if isinstance(frame, Delta):
            frame.text.encode()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=24, help="of each sequence and turn")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--reader-nice", type=int, default=0)
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
        max_ubatch=128,
    )
    orders, child_orders = multiprocessing.Pipe()
    frames, child_frames = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=work, args=(config, child_orders, child_frames), daemon=True)
    child.start()
    child_orders.close()
    os.nice(args.reader_nice)
    reading = asyncio.create_task(read_frames(frames))
    table = Table("sequences", "bare step", "engine step", "bare / engine", "quartiles")
    for num_sequences in (1, 8):
        pairs = []
        for _ in range(args.rounds + 1):
            orders.send((num_sequences, args.tokens))
            pairs.append(await asyncio.to_thread(orders.recv))
        del pairs[0]
        ratios = [bare / ours for bare, ours in pairs]
        low, _, high = quantiles(ratios)
        table.add(
            str(num_sequences),
            f"{median(bare for bare, _ in pairs) * 1e3:.1f} ms",
            f"{median(ours for _, ours in pairs) * 1e3:.1f} ms",
            f"{median(ratios):.3f}",
            f"{low:.3f} to {high:.3f}",
        )
    reading.cancel()
    child.kill()
    print(table.markdown(f"{args.rounds} pairs of turns, the first one left out"))


if __name__ == "__main__":
    asyncio.run(main())
