"""What reusing the cache over an edit costs in quality, by kind of edit.

    python -m benchmarks.reuse_quality MODEL.gguf

Each case is a chat whose prompt changes as a front end changes it, and questions about facts that
the change brings in, takes out, moves or leaves. The true answer is fed token by token (teacher-
forced) behind the new prompt and the question. The prompt is read three ways: afresh (``exact``),
over the edit (``fast``), and with the edit ignored (the old prompt instead).

A probe is one question; it counts if ignoring the edit costs at least 0.1 nats at some token of its
answer. The table gives the mean KL divergence from ``exact`` over those tokens and how often the
likeliest token is the same there; and over all questions, how often the fact's value is the
likeliest answer (recall), and how likely a fact is that the edit removed. In every tenth case the
approximate prompt is then refreshed, as in idle time, and asked again; beside it, what other
batches and other places in the pool alone change ("noise").
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
NUM_FACTS = 8
"""Facts that one edit touches."""
NUM_KEPT = 3
"""Those of them that deleted messages leave."""
MAX_KL, MAX_RECALL_LOSS, MAX_LEAK = 0.05, 0.02, 0.01
SLICE, OTHER_SLICE = 256, 96
"""Tokens of a batch, and of another split to measure the noise."""
REFRESH_EVERY = 10
NUM_KEPT_TEXTS = 30
HOLE = 37
"""Tokens."""

Logits = NDArray[np.float32]
LogProbs = NDArray[np.float64]


class Probe(NamedTuple):
    """A question; ``is_gone``: the edit removed the fact."""

    ask: str
    answer: str
    value: str
    is_gone: bool


class Case(NamedTuple):
    """A prompt before and after an edit, and what is asked behind it."""

    old: str
    new: str
    probes: list[Probe]


@dataclass
class Tally:
    """What was measured for one kind of edit."""

    num_probes: int = 0
    """Those that count."""
    num_moved: list[int] = field(default_factory=list)
    """Tokens of each prompt whose cache was reused over the edit."""
    divergences: list[float] = field(default_factory=list)
    ignored: list[float] = field(default_factory=list)
    same_top: list[bool] = field(default_factory=list)
    recall: dict[str, list[bool]] = field(default_factory=lambda: {"exact": [], "fast": []})
    gone: dict[str, list[float]] = field(default_factory=lambda: {"exact": [], "fast": []})
    refreshed: list[float] = field(default_factory=list)
    noise: list[float] = field(default_factory=list)


def messages(chat: Chat, first: int, last: int) -> str:
    return plain_text("".join(line(turn) + "\n" for turn in chat.turns[first:last]))


def begin(rng: Random) -> tuple[Chat, str]:
    """A chat of enough messages, and its card."""
    chat, card = opening(rng, 1200, held_out=True)
    while len(chat.turns) < NUM_MESSAGES + NUM_OUT:
        chat.step()
    return chat, card


def new_facts(chat: Chat) -> list[Fact]:
    facts: list[Fact] = []
    while len(facts) < NUM_FACTS:
        if (fact := chat.new_fact(False)) is not None:
            facts.append(fact)
    return facts


def said(chat: Chat, rng: Random, facts: Sequence[Fact]) -> str:
    """The user tells each of them in a message."""
    return "".join(f"{chat.cast.user}: {fact.tell(rng)}\n" for fact in facts)


def outdated(rng: Random, fact: Fact) -> Fact:
    """The same with another value."""
    while (value := fact.kind.value(rng)) == fact.value:
        pass
    return Fact(fact.kind, {**fact.slots, "value": value}, value, fact.key)


def make_probe(chat: Chat, rng: Random, fact: Fact, *, is_gone: bool = False) -> Probe:
    ask = f"{chat.cast.user}: {fact.ask(rng)}\n{chat.cast.char}:"
    return Probe(ask, " " + plain_text(fact.answer(rng)), fact.value, is_gone)


def deleted_messages(rng: Random) -> Case:
    """Old messages fall out. Most of the facts were told in them, some in those that stay."""
    chat, card = begin(rng)
    facts = new_facts(chat)
    gone, kept = facts[:-NUM_KEPT], facts[-NUM_KEPT:]
    rest = said(chat, rng, kept) + messages(chat, NUM_OUT, 99)
    head = card + "\n***\n"
    probes = [make_probe(chat, rng, fact, is_gone=fact in gone) for fact in facts]
    return Case(
        head + messages(chat, 0, NUM_OUT) + said(chat, rng, gone) + rest, head + rest, probes
    )


def inserted_lore(rng: Random) -> Case:
    """A lorebook entry comes in behind the card."""
    chat, card = begin(rng)
    facts = new_facts(chat)
    body = "\n***\n" + messages(chat, 0, 99)
    lore = "".join("\n" + fact.tell(rng) for fact in facts)
    return Case(card + body, card + lore + body, [make_probe(chat, rng, f) for f in facts])


def removed_lore(rng: Random) -> Case:
    """A lorebook entry goes."""
    new, old, probes = inserted_lore(rng)
    return Case(old, new, [probe._replace(is_gone=True) for probe in probes])


def moved_note(rng: Random) -> Case:
    """The author's note moves down past two messages, which say otherwise."""
    chat, card = begin(rng)
    facts = new_facts(chat)
    note = "[Note: " + " ".join(fact.tell(rng) for fact in facts) + "]\n"
    past = said(chat, rng, [outdated(rng, fact) for fact in facts])
    past += messages(chat, NUM_MESSAGES, NUM_MESSAGES + 1)
    head = card + "\n***\n" + messages(chat, 0, NUM_MESSAGES)
    rest = messages(chat, NUM_MESSAGES + 1, 99)
    probes = [make_probe(chat, rng, fact) for fact in facts]
    return Case(head + note + past + rest, head + past + note + rest, probes)


def changed_card(rng: Random) -> Case:
    """Another card, which tells the facts, takes the first one's place."""
    chat, card = begin(rng)
    facts = new_facts(chat)
    body = "\n***\n" + messages(chat, 0, 99)
    told = "".join("\n" + fact.tell(rng) for fact in facts)
    other = begin(rng)[1]
    return Case(other + body, card + told + body, [make_probe(chat, rng, f) for f in facts])


KINDS: dict[str, Callable[[Random], Case]] = {
    "deleted messages": deleted_messages,
    "inserted lore": inserted_lore,
    "removed lore": removed_lore,
    "moved note": moved_note,
    "changed card": changed_card,
}


class Reader:
    """Reads prompts through the engine's own cache, and gives the logits of what follows."""

    def __init__(self, runner: LlamaRunner) -> None:
        self._runner = runner
        self._cache = KVCache(runner, runner.facts.num_pool, num_scratch=2)
        self.slice = SLICE

    def encode(self, text: str, *, bos: bool = True) -> list[int]:
        return self._runner.tokenizer.encode(text, add_special=bos, parse_special=True)

    def texts(self, tokens: Sequence[int]) -> list[str]:
        return [self._runner.tokenizer.decode([token]) for token in tokens]

    def read(self, tokens: Sequence[int], policy: Policy = Policy.EXACT) -> int:
        """Reads a prompt; how many tokens of it were reused over an edit."""
        lease = self._cache.lease(tokens, policy)
        assert lease is not None
        place, num_moved = lease.sequence_id, 0
        while (start := self._cache.length(place)) < len(tokens):
            stop = min(self._cache.next_stop(place) or len(tokens), start + self.slice)
            self._evaluate(place, tokens[start:stop])
            num_moved += self._cache.attach(place)
        self._cache.release(place)
        return num_moved

    def answer(self, prompt: Sequence[int], reply: Sequence[int], policy: Policy) -> LogProbs:
        """(len(reply), num_vocab): at each place where a token of ``reply`` comes next. All but the
        end of ``prompt`` was read before."""
        lease = self._cache.lease(prompt, policy)
        assert lease is not None
        place = lease.sequence_id
        rest = [*prompt[self._cache.length(place) :], *reply[:-1]]
        logits = self._evaluate(place, rest, len(reply))
        self._cache.release(place)
        return log_softmax(np.stack(logits))

    def refresh(self) -> None:
        """What idle time does to the newest prompt."""
        tokens = self._cache.stale_base()
        assert tokens is not None
        lease = self._cache.lease(tokens)
        assert lease is not None
        place = lease.sequence_id
        while (start := self._cache.length(place)) < len(tokens):
            self._evaluate(place, tokens[start : start + self.slice])
            self._cache.make_exact(place)
        self._cache.release(place, keep=False)

    def leave_holes(self, tokens: Sequence[int]) -> None:
        """Fills a part of an empty pool with pieces of ``tokens``, and drops every second one."""
        starts = range(0, len(tokens), HOLE)[:NUM_KEPT_TEXTS]
        for start in starts:
            self.read(tokens[start : start + HOLE])
        for slot in range(len(starts) // 2):
            self._cache.forget(slot)

    def forget(self) -> None:
        self._cache.drop_idle()

    def _evaluate(self, place: int, tokens: Sequence[int], num_outputs: int = 0) -> list[Logits]:
        """The logits behind each of the last ``num_outputs`` tokens."""
        assert self._cache.make_room(len(tokens))
        start, first = self._cache.length(place), len(tokens) - num_outputs
        rows = [Row(t, start + i, place, i >= first) for i, t in enumerate(tokens)]
        logits = [each.copy() for each in self._runner.forward(rows)]
        self._cache.append(place, tokens)
        return logits


def log_softmax(logits: Logits) -> LogProbs:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: LogProbs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def divergence(exact: LogProbs, other: LogProbs) -> NDArray[np.float64]:
    """KL in nats (n,) at each token."""
    result: NDArray[np.float64] = (np.exp(exact) * (exact - other)).sum(axis=-1)
    return result


def answers(reader: Reader, text: str, probes: Sequence[Probe], policy: Policy) -> list[LogProbs]:
    """What follows ``text`` and each question, where the cache holds ``text``."""
    return [
        reader.answer(reader.encode(text + p.ask), reader.encode(p.answer, bos=False), policy)
        for p in probes
    ]


def measure(reader: Reader, case: Case, tally: Tally, *, is_refreshed: bool) -> None:
    old, new, probes = case
    reader.forget()
    reader.read(reader.encode(new))
    exact = answers(reader, new, probes, Policy.EXACT)
    reader.forget()
    reader.read(reader.encode(old))
    ignored = answers(reader, old, probes, Policy.EXACT)
    tally.num_moved.append(reader.read(reader.encode(new), Policy.TURBO))
    if is_refreshed:
        ask_refreshed(reader, case, exact, tally)
        reader.read(reader.encode(old))
        reader.read(reader.encode(new), Policy.TURBO)
    fast = answers(reader, new, probes, Policy.TURBO)
    for probe, found in zip(probes, zip(exact, ignored, fast, strict=True), strict=True):
        count(reader, probe, *found, tally)


def ask_refreshed(reader: Reader, case: Case, exact: list[LogProbs], tally: Tally) -> None:
    """Refreshes the prompt that was just read over an edit and asks again; then reads it afresh in
    other batches and in a pool with holes: sums are then rounded in another way."""
    reader.refresh()
    found = answers(reader, case.new, case.probes, Policy.EXACT)
    tally.refreshed += [float(divergence(*each).mean()) for each in zip(exact, found, strict=True)]
    reader.forget()
    reader.slice = OTHER_SLICE
    reader.leave_holes(reader.encode(case.old, bos=False))
    reader.read(reader.encode(case.new))
    found = answers(reader, case.new, case.probes, Policy.EXACT)
    tally.noise += [float(divergence(*each).mean()) for each in zip(exact, found, strict=True)]
    reader.slice = SLICE
    reader.forget()


def count(
    reader: Reader, probe: Probe, exact: LogProbs, ignored: LogProbs, fast: LogProbs, tally: Tally
) -> None:
    reply = reader.encode(probe.answer, bos=False)
    cost = divergence(exact, ignored)
    counts = cost >= MIN_COST
    tally.num_probes += bool(counts.any())
    tally.ignored += cost[counts].tolist()
    tally.divergences += divergence(exact, fast)[counts].tolist()
    tally.same_top += (exact.argmax(axis=-1) == fast.argmax(axis=-1))[counts].tolist()
    places = value_places(reader.texts(reply), probe.value)
    for name, found in (("exact", exact), ("fast", fast)):
        if probe.is_gone:
            likely = found[np.arange(len(reply)), reply]
            tally.gone[name].append(float(np.exp(likely[places].sum())))
        else:
            chosen = found.argmax(axis=-1) == np.asarray(reply)
            tally.recall[name].append(bool(chosen[places].all()))


def value_places(texts: Sequence[str], value: str) -> list[int]:
    """Indices of the reply's tokens that spell ``value``."""
    start = "".join(texts).find(value)
    ends = np.cumsum([len(t) for t in texts])
    return [
        i for i, end in enumerate(ends) if end > start and end - len(texts[i]) < start + len(value)
    ]


def passes(tally: Tally) -> bool:
    """Whether ``auto`` may reuse over this kind of edit."""
    recall, gone = tally.recall, tally.gone
    return (
        mean(tally.divergences) <= MAX_KL
        and (not recall["exact"] or mean(recall["exact"]) - mean(recall["fast"]) <= MAX_RECALL_LOSS)
        and (not gone["exact"] or abs(mean(gone["fast"]) - mean(gone["exact"])) <= MAX_LEAK)
    )


def row(kind: str, tally: Tally) -> tuple[str, ...]:
    def shares(values: dict[str, list[bool]] | dict[str, list[float]]) -> str:
        both = (values["exact"], values["fast"])
        return " / ".join(f"{100 * mean(each):.1f} %" if each else "-" for each in both)

    return (
        kind,
        f"{mean(tally.num_moved):.0f}",
        f"{tally.num_probes} ({len(tally.divergences)})",
        f"{mean(tally.divergences):.4f}",
        f"{mean(tally.ignored):.3f}",
        f"{100 * mean(tally.same_top):.1f} %",
        shares(tally.recall),
        shares(tally.gone),
        f"{mean(tally.refreshed):.1e} / {mean(tally.noise):.1e}",
        "yes" if passes(tally) else "no",
    )


def run(reader: Reader, kind: str, args: argparse.Namespace) -> Tally:
    """Cases of one kind, until enough probes count."""
    tally = Tally()
    for index in range(args.max_cases):
        case = KINDS[kind](Random(f"{kind}/{args.seed}/{index}"))
        measure(reader, case, tally, is_refreshed=index % REFRESH_EVERY == 0)
        if tally.num_probes >= args.probes:
            break
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--probes", type=int, default=2000, help="that count, of each kind of edit")
    parser.add_argument("--max-cases", type=int, default=3000, help="of each kind of edit")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--kv-type", default="f16", choices=("f16", "f32"))
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
        max_kept=NUM_KEPT_TEXTS,
        max_ubatch=SLICE,
        kv_type_k=args.kv_type,
        kv_type_v=args.kv_type,
        num_threads=args.threads,
    )
    reader = Reader(load(config, lambda fraction: None))
    table = Table(
        *("edit", "reused a case", "probes (tokens)", "KL, fast", "KL, edit ignored"),
        *("same top token", "recall, exact / fast", "removed fact, exact / fast"),
        *("KL refreshed / noise", "passes"),
    )
    for kind in args.kinds:
        table.add(*row(kind, run(reader, kind, args)))
    print(table.markdown(f"seed {args.seed}"))


if __name__ == "__main__":
    main()
