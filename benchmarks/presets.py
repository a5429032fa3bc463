"""What do the named presets do to a model's memory, and to its loops?

    python benchmarks/presets.py [MODEL.gguf] [--cases N] [--chats N]

Recall of facts told up to 512 tokens ago, in three chat formats; and chats of the model with
itself: the share of different runs of four words, and of turns that end by themselves.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.recall import (
    CHAT_FORMATS,
    DISTANCES,
    Case,
    Reply,
    Score,
    distinct_4grams,
    make_cases,
    score,
)
from benchmarks.report import Table
from innkeeper import demo
from innkeeper.backends import llama_cpp as backend
from innkeeper.core import EngineConfig, GenerateRequest, SamplingParams
from innkeeper.core.frames import Delta, Finished
from innkeeper.core.presets import PRESETS, with_preset
from innkeeper.engine.loop import Engine, Prepared
from innkeeper.engine.prompt import tokenize_prompt
from tools.demo_model.documents import opening

REPLY_TOKENS, TURN_TOKENS, NUM_TURNS = 60, 160, 40

Sample = Callable[[int], SamplingParams]
"""The sampling of one reply, by its seed."""


class Bench:
    """One model, asked for one reply at a time."""

    def __init__(self, path: Path) -> None:
        config = EngineConfig(
            backend="llama_cpp", path=str(path), name=path.stem, num_ctx=4096, num_pool=8192
        )
        self._runner = backend.load(config, lambda fraction: None)
        self._frames: list[Any] = []
        self._engine = Engine(self._runner, self._frames.extend, kv_reuse="exact")

    def reply(self, prompt: str, sampling: SamplingParams, **fields: Any) -> Reply:
        request = GenerateRequest(prompt=prompt, sampling=sampling, **fields)
        tokens, _ = tokenize_prompt(request, self._runner.tokenizer, self._runner.facts)
        self._frames.clear()
        self._engine.inbox.put(Prepared(1, request, tokens))
        while self._engine.step():
            pass
        text = "".join(frame.text for frame in self._frames if isinstance(frame, Delta))
        (end,) = [frame for frame in self._frames if isinstance(frame, Finished)]
        return Reply(text, end.reason == "stop")

    def count(self, text: str) -> int:
        tokenizer = self._runner.tokenizer
        return len(tokenizer.encode(text, add_special=False, parse_special=True))


def preset(name: str, seed: int) -> SamplingParams:
    return with_preset(SamplingParams(seed=seed), name)


def recall(bench: Bench, sample: Sample, num_cases: int) -> Score:
    seeds = iter(range(1_000_000))

    def complete(case: Case) -> Reply:
        sampling = sample(next(seeds))
        return bench.reply(case.prompt, sampling, stop=case.stops, max_tokens=REPLY_TOKENS)

    total = Score(0, 0, 0)
    for fmt in CHAT_FORMATS:
        total += score(complete, make_cases(11, num_cases, DISTANCES[0], fmt, bench.count))
    return total


def self_chat(bench: Bench, sample: Sample, seed: int) -> tuple[list[str], int]:
    """The texts of a chat of the model with itself, and how many turns ended."""
    _, card = opening(Random(f"self/{seed}"), 600, held_out=True)
    prompt, texts, num_ended = f"<|im_start|>system\n{card}<|im_end|>\n", [], 0
    for turn in range(NUM_TURNS):
        prompt += f"<|im_start|>{'assistant' if turn % 2 else 'user'}\n"
        reply = bench.reply(prompt, sample(1000 * seed + turn), max_tokens=TURN_TOKENS)
        texts.append(reply.text)
        num_ended += reply.ended
        prompt += f"{reply.text}<|im_end|>\n"
    return texts, num_ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", default=demo.MODEL)
    parser.add_argument("--cases", type=int, default=20, help="questions in each format")
    parser.add_argument("--chats", type=int, default=2)
    options = parser.parse_args()
    bench = Bench(options.model)
    samplers: dict[str, Sample] = {
        "greedy": lambda seed: SamplingParams(temperature=0),
        "no samplers": lambda seed: SamplingParams(seed=seed),
        **{name: partial(preset, name) for name in PRESETS},
    }
    table = Table("preset", "recall", "distinct 4-grams", "turns that end")
    for name, sample in samplers.items():
        found = recall(bench, sample, options.cases)
        chats = [self_chat(bench, sample, seed) for seed in range(options.chats)]
        distinct = sum(distinct_4grams(texts) for texts, _ in chats) / len(chats)
        ended = 100 * sum(count for _, count in chats) / (len(chats) * NUM_TURNS)
        table.add(name, f"{found.recall:.0f} %", f"{distinct:.1f} %", f"{ended:.0f} %")
    print(table.markdown(f"{options.model.name}, {found.num_cases} questions, {len(chats)} chats"))


if __name__ == "__main__":
    main()
