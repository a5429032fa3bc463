"""How long the planner takes to find what a cached prompt of 32k tokens gives a new one.

    python -m benchmarks.reuse_planner

Each row is one kind of change to a long chat of random tokens; `tokens reused` is what the plan
keeps.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from random import Random
from statistics import median

from benchmarks.report import Table
from innkeeper.engine.reuse import Policy, plan_reuse

NUM_WORDS = 32_000
Tokens = list[int]


class Chat:
    """A card and messages of 40 to 300 tokens, as many as make ``length``."""

    def __init__(self, rng: Random, length: int) -> None:
        self._rng = rng
        self.card = self.text(1500)
        self.messages: list[Tokens] = []
        while len(self.card) + sum(map(len, self.messages)) < length:
            self.messages.append(self.text(rng.randint(40, 300)))

    def text(self, length: int) -> Tokens:
        return [self._rng.randrange(NUM_WORDS) for _ in range(length)]

    def prompt(self, *parts: Tokens) -> Tokens:
        return join(self.card, *(parts or self.messages))


def join(*parts: Tokens) -> Tokens:
    return [token for part in parts for token in part]


def changes(rng: Random, length: int) -> dict[str, tuple[Tokens, Tokens]]:
    """Name -> (cached, prompt)."""
    chat = Chat(rng, length)
    old, messages = chat.prompt(), chat.messages
    note, said = chat.text(60), chat.text(200)
    shuffled = rng.sample(messages, len(messages))
    few = [rng.randrange(50) for _ in range(length)]
    return {
        "old messages fall out": (old, chat.prompt(*messages[4:], said)),
        "lore comes in, the note moves": (
            chat.prompt(*messages[:-2], note, *messages[-2:]),
            chat.prompt(chat.text(150), *messages[6:-1], note, messages[-1], said),
        ),
        "another card": (old, join(chat.text(1500), *messages, said)),
        "every third message deleted": (
            old,
            chat.prompt(*(m for i, m in enumerate(messages) if i % 3)),
        ),
        "messages shuffled": (old, chat.prompt(*shuffled)),
        "a vocabulary of 50": (few, [*few[:1000], *few[1400:], *said]),
        "nothing in common": (old, chat.text(length)),
    }


def seconds(run: Callable[[], object], times: int) -> float:
    found = []
    for _ in range(times):
        started = time.perf_counter()
        run()
        found.append(time.perf_counter() - started)
    return median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=32_768)
    parser.add_argument("--times", type=int, default=50)
    args = parser.parse_args()
    table = Table("change", "median ms", "tokens", "tokens reused")
    for name, (cached, prompt) in changes(Random(1), args.tokens).items():
        plan = plan_reuse(cached, prompt, Policy.TURBO)
        took = seconds(partial(plan_reuse, cached, prompt, Policy.TURBO), args.times)
        table.add(name, f"{1000 * took:.1f}", str(len(prompt)), str(plan.num_reused()))
    print(table.markdown(f"{args.times} times each"))


if __name__ == "__main__":
    main()
