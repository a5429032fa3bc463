"""What reusing the cache over an edit costs in quality, by kind of edit.

    python -m benchmarks.reuse_quality MODEL.gguf

Each case is a chat whose prompt changes as a front end changes it. The true answer to a question
about a fact is fed token by token (teacher-forced) after the new prompt, read three ways: afresh
(``exact``), over the edit (``fast``), and with the edit ignored (the old prompt and the question).
The table gives, over the tokens where ignoring the edit costs at least 0.1 nats, the mean KL
divergence from ``exact``; how often the likeliest token is the same; how often the fact's value is
the likeliest answer (recall); and how likely a fact is that the edit removed.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import mean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Table
from innkeeper.backends.llama_cpp import load
from innkeeper.backends.llama_cpp.runner import LlamaRunner
from innkeeper.core import EngineConfig
from innkeeper.engine.kv_cache import KVCache
from innkeeper.engine.reuse import Policy
from innkeeper.engine.runner import Row
from tools.demo_model.chat import Chat, plain_text
from tools.demo_model.documents import line, opening
from tools.demo_model.facts import Fact

NUM_CTX = 4096
MIN_COST = 0.1
"""Nats that ignoring the edit must cost for a token to count."""
NUM_MESSAGES = 14
NUM_OUT = 6
"""Messages that fall out, or come in, between two prompts."""

Logits = NDArray[np.float32]


class Case(NamedTuple):
    """``answer`` is asked for at the end of ``new``; ``is_gone``: the edit removed the fact."""

    old: str
    new: str
    ignored: str
    answer: str
    value: str
    is_gone: bool


@dataclass
class Tally:
    """What was measured for one kind of edit."""

    num_moved: list[int] = field(default_factory=list)
    """Tokens of each prompt whose cache was reused over the edit."""
    divergences: list[float] = field(default_factory=list)
    ignored: list[float] = field(default_factory=list)
    same_top: list[bool] = field(default_factory=list)
    recall: dict[str, list[bool]] = field(default_factory=lambda: {"exact": [], "fast": []})
    gone: dict[str, list[float]] = field(default_factory=lambda: {"exact": [], "fast": []})


def messages(chat: Chat, first: int, last: int) -> str:
    return plain_text("".join(line(turn) + "\n" for turn in chat.turns[first:last]))


def begin(rng: Random) -> tuple[Chat, str]:
    """A chat of enough messages, and its card."""
    chat, card = opening(rng, 1200, held_out=True)
    while len(chat.turns) < NUM_MESSAGES + NUM_OUT:
        chat.step()
    return chat, card


def new_fact(chat: Chat) -> Fact:
    while (fact := chat.new_fact(False)) is None:
        pass
    return fact


def question(chat: Chat, rng: Random, fact: Fact) -> str:
    return f"{chat.cast.user}: {fact.ask(rng)}\n{chat.cast.char}:"


def make_case(kind: str, rng: Random) -> Case:
    """One chat edited in the way that ``kind`` names."""
    chat, card = begin(rng)
    fact = new_fact(chat)
    told = fact.tell(rng)
    ask = question(chat, rng, fact)
    early, late = messages(chat, 0, NUM_MESSAGES), messages(chat, NUM_MESSAGES, 99)
    head = card + "\n***\n"
    if kind == "deleted messages":
        gone = rng.random() < 0.5
        first = messages(chat, 0, NUM_OUT) + (f"{chat.cast.user}: {told}\n" if gone else "")
        rest = ("" if gone else f"{chat.cast.user}: {told}\n") + messages(chat, NUM_OUT, 99)
        old, new = head + first + rest, head + rest
    elif kind in ("inserted lore", "removed lore"):
        without, with_lore = head + early + late, card + "\n" + told + "\n***\n" + early + late
        gone = kind == "removed lore"
        old, new = (with_lore, without) if gone else (without, with_lore)
    elif kind == "moved note":
        gone, note = False, f"[Note: {told}]\n"
        old, new = head + early + note + late, head + early + late + note
        middle = messages(chat, NUM_MESSAGES, NUM_MESSAGES + 2)
        new = head + early + middle + note + messages(chat, NUM_MESSAGES + 2, 99)
    else:
        gone, other = False, begin(rng)[1]
        old, new = other + "\n***\n" + early + late, card + "\n" + told + "\n***\n" + early + late
    answer = " " + plain_text(fact.answer(rng))
    return Case(old, new + ask, old + ask, answer, fact.value, gone)


KINDS = ("deleted messages", "inserted lore", "removed lore", "moved note", "changed card")


class Reader:
    """Reads prompts through the engine's own cache, and gives the logits of what follows."""

    def __init__(self, runner: LlamaRunner) -> None:
        self._runner = runner
        self._cache = KVCache(runner, runner.facts.num_pool, num_scratch=2)
        self.num_moved = 0
        """Tokens that the last ``read`` reused over an edit."""

    def encode(self, text: str, *, bos: bool = True) -> list[int]:
        return self._runner.tokenizer.encode(text, add_special=bos, parse_special=True)

    def read(self, prompt: Sequence[int], reply: Sequence[int], policy: Policy) -> Logits:
        """Logits (len(reply), num_vocab): at each place where a token of ``reply`` comes next."""
        lease = self._cache.lease(prompt, policy)
        assert lease is not None
        place, logits = lease.sequence_id, []
        self.num_moved = 0
        while (start := self._cache.length(place)) < len(prompt):
            stop = self._cache.next_stop(place) or len(prompt)
            logits = [self._evaluate(place, prompt[start : min(stop, start + 256)], start)]
        for token in reply[:-1]:
            logits.append(self._evaluate(place, [token], self._cache.length(place)))
        self._cache.release(place)
        return np.stack(logits)

    def forget(self) -> None:
        self._cache.drop_idle()

    def _evaluate(self, place: int, tokens: Sequence[int], start: int) -> Logits:
        last = len(tokens) - 1
        assert self._cache.make_room(len(tokens))
        rows = [Row(t, start + i, place, i == last) for i, t in enumerate(tokens)]
        logits = self._runner.forward(rows)[0].copy()
        self._cache.append(place, tokens)
        self.num_moved += self._cache.attach(place)
        return logits


def log_softmax(logits: Logits) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def measure(reader: Reader, case: Case, tally: Tally) -> None:
    prompt, reply = reader.encode(case.new), reader.encode(case.answer, bos=False)
    found = {}
    for name, before, text, policy in (
        ("exact", None, prompt, Policy.EXACT),
        ("fast", case.old, prompt, Policy.TURBO),
        ("ignored", None, reader.encode(case.ignored), Policy.EXACT),
    ):
        reader.forget()
        if before is not None:
            reader.read(reader.encode(before), [0], Policy.EXACT)
        found[name] = log_softmax(reader.read(text, reply, policy))
        if name == "fast":
            tally.num_moved.append(reader.num_moved)
    exact = np.exp(found["exact"])
    costs = {
        name: (exact * (found["exact"] - found[name])).sum(axis=-1) for name in ("fast", "ignored")
    }
    counts = costs["ignored"] >= MIN_COST
    tally.divergences += costs["fast"][counts].tolist()
    tally.ignored += costs["ignored"][counts].tolist()
    same = found["exact"].argmax(axis=-1) == found["fast"].argmax(axis=-1)
    tally.same_top += same[counts].tolist()
    for name in ("exact", "fast"):
        chosen = found[name].argmax(axis=-1)
        likely = found[name][np.arange(len(reply)), reply]
        places = value_places(reader, reply, case.value)
        if case.is_gone:
            tally.gone[name].append(float(np.exp(likely[places].sum())))
        else:
            tally.recall[name].append(bool((chosen == np.asarray(reply))[places].all()))


def value_places(reader: Reader, reply: Sequence[int], value: str) -> list[int]:
    """Indices of the reply's tokens that spell ``value``."""
    texts = [reader._runner.tokenizer.decode([t]) for t in reply]
    start = "".join(texts).find(value)
    ends = np.cumsum([len(t) for t in texts])
    return [
        i for i, end in enumerate(ends) if end > start and end - len(texts[i]) < start + len(value)
    ]


def row(kind: str, tally: Tally) -> tuple[str, ...]:
    def share(values: Sequence[float | bool]) -> str:
        return f"{100 * mean(values):.1f} %" if values else "-"

    return (
        kind,
        f"{mean(tally.num_moved):.0f}",
        str(len(tally.divergences)),
        f"{mean(tally.divergences):.4f}" if tally.divergences else "-",
        f"{mean(tally.ignored):.3f}" if tally.ignored else "-",
        share(tally.same_top),
        f"{share(tally.recall['exact'])} / {share(tally.recall['fast'])}",
        f"{share(tally.gone['exact'])} / {share(tally.gone['fast'])}",
    )


def main(progress: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--cases", type=int, default=250, help="for each kind of edit")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    config = EngineConfig(
        backend="llama_cpp",
        path=str(args.model),
        name="quality",
        num_ctx=NUM_CTX,
        num_pool=2 * NUM_CTX,
        max_sequences=2,
        max_ubatch=256,
        num_threads=args.threads,
    )
    reader = Reader(load(config, lambda fraction: None))
    table = Table(
        *("edit", "reused a case", "tokens", "KL, fast", "KL, edit ignored", "same top token"),
        *("recall, exact / fast", "removed fact, exact / fast"),
    )
    for kind in KINDS:
        tally = Tally()
        for index in range(args.cases):
            measure(reader, make_case(kind, Random(f"{kind}/{args.seed}/{index}")), tally)
        table.add(*row(kind, tally))
    progress(table.markdown(f"{args.cases} cases a kind, seed {args.seed}"))


if __name__ == "__main__":
    main()
