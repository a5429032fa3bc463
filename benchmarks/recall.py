"""Does the model still know what was said? Recall of facts by distance and format, self-chats,
perplexity.

    python benchmarks/recall.py MODEL.gguf [MODEL.gguf ...]

Every case is a chat in which one fact is told once, in a combination the demo model's training
never had, and asked for after so many tokens. The pieces (`make_cases`, `score`, `self_chat`,
`perplexity`) serve other measurements too: they take any function that completes a prompt.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.report import Table
from tools.demo_model.chat import Chat, plain_text
from tools.demo_model.documents import (
    BOS,
    CHARS_PER_TOKEN,
    IM_END,
    IM_START,
    document,
    line,
    opening,
    system_line,
)

CHAT_FORMATS = ("chatml", "names", "alpaca")
FORMATS = (*CHAT_FORMATS, "prose")
DISTANCES = (512, 1500, 3000)
"""Upper ends of the buckets, in tokens between the fact and the answer."""
REPLY_TOKENS = 64
STOPS = {"chatml": [], "names": ["\n"], "alpaca": ["\n\n#"], "prose": ["\n"]}
SILLYTAVERN_SAMPLING: dict[str, float] = {
    "temperature": 1.0,
    "top_p": 0.95,
    "min_p": 0.01,
    "repeat_penalty": 1.1,
    "top_k": 0,
}


@dataclass(frozen=True)
class Case:
    """One question: the model is right when its reply to `prompt` has `value` in it."""

    prompt: str
    value: str
    kind: str
    fmt: str
    stops: tuple[str, ...]


@dataclass(frozen=True)
class Reply:
    text: str
    ended: bool
    """By an end token or the format's own stop string, not by the token limit."""


@dataclass(frozen=True)
class Score:
    num_cases: int
    num_right: int
    num_ended: int

    @property
    def recall(self) -> float:
        return 100 * self.num_right / max(1, self.num_cases)

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.num_cases + other.num_cases,
            self.num_right + other.num_right,
            self.num_ended + other.num_ended,
        )


Complete = Callable[[Case], Reply]
Count = Callable[[str], int]


def _estimated_tokens(text: str) -> int:
    return int(len(text) / CHARS_PER_TOKEN)


def _rendered(chat: Chat, first: int, fmt: str) -> str:
    """The turns from number `first` on, as they stand in a prompt of this format."""
    parts = []
    for turn in chat.turns[first:]:
        if fmt == "chatml":
            parts.append(
                f"{IM_START}{'assistant' if turn.is_reply else 'user'}\n{turn.text}{IM_END}\n"
            )
        elif fmt == "alpaca":
            parts.append(f"### {'Response' if turn.is_reply else 'Instruction'}:\n{turn.text}\n\n")
        else:
            parts.append(line(turn) + "\n")
    return plain_text("".join(parts))


def _prose_case(rng: Random, chat: Chat, tokens: int, count: Count) -> Case:
    fact = _target(rng, chat, own=False)
    told = " ".join([chat.narration(), fact.tell(rng)])
    filler: list[str] = []
    while count(" ".join(filler)) < tokens - 12:
        other = chat.new_fact(False) if rng.random() < 0.5 else None
        filler.append(other.tell(rng) if other else chat.narration())
    prompt = " ".join([told, *filler]) + f"\nQuestion: {fact.ask(rng)}\nAnswer:"
    return Case(prompt, fact.value, fact.kind.name, "prose", tuple(STOPS["prose"]))


def _target(rng: Random, chat: Chat, own: bool) -> Any:
    """A fact nobody else in the chat will ask for: it is told once."""
    while True:
        fact = chat.new_fact(own)
        if fact:
            chat.told.remove(fact)
            return fact


def _chat_case(rng: Random, chat: Chat, card: str, fmt: str, tokens: int, count: Count) -> Case:
    system = "\n".join(filter(None, (system_line(chat), card)))
    head = {
        "chatml": f"{IM_START}system\n{system}{IM_END}\n",
        "alpaca": system + "\n\n",
        "names": system + "\n***\n",
    }[fmt]
    fact = _target(rng, chat, own=rng.random() < 0.35)
    chat.add(chat.cast.user, fact.tell(rng), False)
    chat.add(chat.cast.char, chat.fill("{I will remember that|Good to know|I see}, <user>."), True)
    question = fact.ask(rng)
    while count(_rendered(chat, 1, fmt) + question) < tokens - 12:
        chat.step()
    chat.add(chat.cast.user, question, False)
    tail = {
        "chatml": f"{IM_START}assistant\n",
        "alpaca": "### Response:\n",
        "names": f"{chat.cast.char}:",
    }[fmt]
    return Case(
        head + _rendered(chat, 0, fmt) + tail, fact.value, fact.kind.name, fmt, tuple(STOPS[fmt])
    )


def make_cases(
    seed: int, n: int, distance: int, fmt: str, count: Count = _estimated_tokens
) -> list[Case]:
    """`n` questions whose fact stands up to `distance` tokens back, and further than the next
    smaller of DISTANCES.

    `count` counts the tokens of a text; the default guesses from its length.
    """
    lowest = max([0, *(d for d in DISTANCES if d < distance)])
    cases = []
    for index in range(n):
        rng = Random(f"recall/{seed}/{distance}/{fmt}/{index}")
        tokens = max(32, lowest + int((distance - lowest) * (index + rng.random()) / n))
        chat, card = opening(rng, 600, held_out=True)
        cases.append(
            _prose_case(rng, chat, tokens, count)
            if fmt == "prose"
            else _chat_case(rng, chat, card, fmt, tokens, count)
        )
    return cases


def is_right(reply: str, value: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", reply) is not None


def score(complete: Complete, cases: Sequence[Case]) -> Score:
    replies = [(case, complete(case)) for case in cases]
    right = sum(is_right(reply.text, case.value) for case, reply in replies)
    return Score(len(replies), right, sum(reply.ended for _, reply in replies))


def load(path: Path, context: int, kv_type: str, threads: int) -> Any:
    """A llama.cpp model on the CPU; `kv_type` is the type of both halves of the cache."""
    import llama_cpp

    kind = getattr(llama_cpp, f"GGML_TYPE_{kv_type.upper()}")
    return llama_cpp.Llama(
        str(path),
        n_ctx=context,
        n_gpu_layers=0,
        type_k=kind,
        type_v=kind,
        flash_attn=kv_type != "f16",
        n_threads=threads,
        n_threads_batch=threads,
        verbose=False,
        seed=1,
    )


def greedy(llm: Any) -> Complete:
    def complete(case: Case) -> Reply:
        choice = llm.create_completion(
            case.prompt,
            max_tokens=REPLY_TOKENS,
            temperature=0.0,
            repeat_penalty=1.0,
            stop=list(case.stops),
        )["choices"][0]
        return Reply(choice["text"], choice["finish_reason"] == "stop")

    return complete


def token_count(llm: Any) -> Count:
    return lambda text: len(llm.tokenize(text.encode(), add_bos=False, special=True))


def self_chat(llm: Any, seed: int, num_turns: int = 20) -> tuple[list[str], int]:
    """The model plays both sides of a ChatML chat with SillyTavern's default sampling; texts, and
    how many turns ended."""
    _, card = opening(Random(f"self/{seed}"), 600, held_out=True)
    prompt = f"{IM_START}system\n{card}{IM_END}\n"
    texts: list[str] = []
    num_ended = 0
    for turn in range(2 * num_turns):
        prompt += f"{IM_START}{'assistant' if turn % 2 else 'user'}\n"
        choice = llm.create_completion(
            prompt, max_tokens=160, seed=1000 * seed + turn, **SILLYTAVERN_SAMPLING
        )["choices"][0]
        texts.append(choice["text"])
        num_ended += choice["finish_reason"] == "stop"
        prompt += f"{choice['text']}{IM_END}\n"
    return texts, num_ended


def distinct_4grams(texts: Sequence[str]) -> float:
    """Share of different runs of four words among all of them, in percent."""
    words = " ".join(texts).lower().split()
    grams = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return 100 * len(set(grams)) / max(1, len(grams))


def perplexity(llm: Any, texts: Sequence[str]) -> float:
    """Per token, over texts that each fit the context. `llm` keeps the logits of every token
    (`logits_all`)."""
    total, num_tokens = 0.0, 0
    for text in texts:
        ids = llm.tokenize(text.encode(), add_bos=True, special=True)[: llm.n_ctx()]
        llm.reset()
        llm.eval(ids)
        logits = np.asarray(llm.scores[: len(ids) - 1], np.float64)
        logits -= logits.max(-1, keepdims=True)
        chosen = logits[np.arange(len(ids) - 1), ids[1:]] - np.log(np.exp(logits).sum(-1))
        total, num_tokens = total - chosen.sum(), num_tokens + len(chosen)
    return float(np.exp(total / num_tokens))


def held_out_texts(seed: int, n: int) -> list[str]:
    return [plain_text(document(seed, index, 900, held_out=True))[len(BOS) :] for index in range(n)]


def measure(path: Path, args: argparse.Namespace) -> dict[str, str]:
    """All figures of one model, by the name of their row."""
    llm = load(path, 4096, args.kv_type, args.threads)
    rows: dict[str, str] = {}
    total = Score(0, 0, 0)
    for distance in args.distances:
        chats = Score(0, 0, 0)
        for fmt in FORMATS:
            cases = make_cases(args.seed, args.cases, distance, fmt, token_count(llm))
            found = score(greedy(llm), cases)
            rows[f"recall up to {distance} tokens, {fmt}"] = f"{found.recall:.1f} %"
            chats += found if fmt in CHAT_FORMATS else Score(0, 0, 0)
        rows[f"**recall up to {distance} tokens, chat formats**"] = (
            f"**{chats.recall:.1f} %** ({chats.num_right}/{chats.num_cases})"
        )
        total += chats
    ended = 100 * total.num_ended / max(1, total.num_cases)
    rows["greedy chat replies that end by themselves"] = f"{ended:.1f} %"
    if args.chats:
        rows |= _self_chat_rows(llm, args)
    if args.texts:
        rows["perplexity per token, held-out text"] = f"{_perplexity_of(path, args):.3f}"
    return rows


def _self_chat_rows(llm: Any, args: argparse.Namespace) -> dict[str, str]:
    chats = [self_chat(llm, args.seed + index) for index in range(args.chats)]
    ended = 100 * sum(num for _, num in chats) / sum(len(texts) for texts, _ in chats)
    shares = [distinct_4grams(texts) for texts, _ in chats]
    return {
        "sampled turns that end by themselves": f"{ended:.1f} %",
        "distinct 4-grams in 20-turn chats, mean (lowest)": (
            f"{np.mean(shares):.1f} % ({min(shares):.1f} %)"
        ),
    }


def _perplexity_of(path: Path, args: argparse.Namespace) -> float:
    import llama_cpp

    llm = llama_cpp.Llama(
        str(path),
        n_ctx=1536,
        n_gpu_layers=0,
        logits_all=True,
        n_threads=args.threads,
        n_threads_batch=args.threads,
        verbose=False,
    )
    return perplexity(llm, held_out_texts(args.seed, args.texts))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--cases", type=int, default=60, help="questions for each distance and format"
    )
    parser.add_argument("--distances", type=int, nargs="*", default=DISTANCES, help="in tokens")
    parser.add_argument("--chats", type=int, default=5, help="self-chats of 20 turns")
    parser.add_argument(
        "--texts", type=int, default=40, help="held-out documents for the perplexity"
    )
    parser.add_argument("--kv-type", default="f16", choices=("f32", "f16", "q8_0", "q4_0"))
    parser.add_argument(
        "--threads", type=int, default=1, help="more only help where nothing else runs"
    )
    args = parser.parse_args()
    columns = {path.name: measure(path, args) for path in args.models}
    table = Table("", *columns)
    for row in next(iter(columns.values())):
        table.add(row, *(column[row] for column in columns.values()))
    print(table.markdown(f"seed {args.seed}, {args.cases} cases a distance and format"))


if __name__ == "__main__":
    main()
