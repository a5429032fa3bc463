"""Does a character know who it is? Share of replies that give the right name, and another's.

    python benchmarks/in_character.py MODEL.gguf [MODEL.gguf ...]

The cards of `characters.json` are written by hand, in the notations real cards use, with names,
words and settings that the demo model's training text does not have; those of
`long_characters.json` make prompts of 1,900 to 2,600 tokens, most of them example dialogue. Asked
who it is, a character is right when its speech (what is not between asterisks) has its name and
introduces nobody else.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.recall import IM_END, IM_START, SILLYTAVERN_SAMPLING, STOPS, load
from benchmarks.report import Table

CARDS = Path(__file__).with_name("characters.json")
LONG_CARDS = Path(__file__).with_name("long_characters.json")
SETS = {"short": CARDS, "long": LONG_CARDS}
USER = "User"
FORMATS = ("names", "chatml", "alpaca")
WHO = (
    "Who are you?",
    "Hi, who are you?",
    "Hello! Where am I, and who are you?",
    "What is your name?",
    "Sorry, what was your name again?",
    "Tell me about yourself.",
    "*I look around.* Who are you?",
    "what should I call you?",
)
OTHER = (
    "Hello!",
    "Where are we?",
    "How did I get here?",
    "Can you help me?",
    "What do you do here?",
    "What is the capital of France?",
    "Thank you, you are very kind.",
    "My name is Robert. I come from a small village.",
)
INTRODUCTION = re.compile(
    r"\b(?:I am|I'm|name is|name's|call me|called|This is) (?:the |an? )?([A-Z][\w'-]+)"
    r"|^\W*(?:Me\? )?([A-Z][\w'-]+), of course"
)
COMMON_WORDS = frozenset(
    "a an and are as at be but do for from he her here his i in is it me my no not of on or she so "
    "that the they this to was we what who will with you your".split()
)
LEAST_ENGLISH = 0.25
"""Of `english_share`; text without sense has less."""


@dataclass(frozen=True)
class Question:
    prompt: str
    name: str
    fmt: str
    asks_who: bool


def _prompt(card: dict[str, str], question: str, fmt: str) -> str:
    name = card["name"]
    text = card["card"].replace("{{char}}", name).replace("{{user}}", USER)
    system = f"Write {name}'s next reply in a fictional chat between {name} and {USER}."
    if fmt == "chatml":
        greeted = (("system", f"{system}\n{text}"), ("assistant", card["greeting"]))
        turns = (*greeted, ("user", question))
        body = "".join(f"{IM_START}{role}\n{said}{IM_END}\n" for role, said in turns)
        return f"{body}{IM_START}assistant\n"
    if fmt == "alpaca":
        return (
            f"{system}\n\n{text}\n\n### Response:\n{name}: {card['greeting']}\n\n"
            f"### Instruction:\n{USER}: {question}\n\n### Response:\n{name}:"
        )
    return f"{system}\n{text}\n***\n{name}: {card['greeting']}\n{USER}: {question}\n{name}:"


def questions(cards: Path = CARDS) -> Iterator[Question]:
    for card in json.loads(cards.read_text(encoding="utf-8")):
        for fmt in FORMATS:
            for asked in (*WHO, *OTHER):
                yield Question(_prompt(card, asked, fmt), card["name"], fmt, asked in WHO)


def spoken(reply: str) -> str:
    return re.sub(r"\*[^*]*\*", " ", reply)


def english_share(reply: str) -> float:
    """The share of the reply's words that are among the commonest of English: over a third in
    ordinary sentences."""
    words = re.findall(r"[^\W\d_]+", reply.lower())
    return sum(word in COMMON_WORDS for word in words) / max(1, len(words))


def says(name: str, reply: str) -> bool:
    """Whether the speech has the name, or a part of a name of several words."""
    return any(re.search(rf"\b{re.escape(part)}\b", spoken(reply)) for part in name.split())


def introduces_another(name: str, reply: str) -> bool:
    found = (first or second for first, second in INTRODUCTION.findall(spoken(reply)))
    return any(word.removesuffix("'s") not in name.split() for word in found)


def ask(llm: Any, question: Question, seed: int, sampling: dict[str, float]) -> tuple[str, bool]:
    """The reply and whether it ended by itself."""
    stops = [f"\n{USER}:", "\n***", *STOPS[question.fmt]]
    choice = llm.create_completion(
        question.prompt, max_tokens=120, seed=seed, stop=stops, **sampling
    )["choices"][0]
    return choice["text"], choice["finish_reason"] == "stop"


def measure(
    llm: Any, cards: Path, seed: int, sampling: dict[str, float], show: bool
) -> dict[str, str]:
    named, another, ended = [], [], []
    rows: dict[str, list[bool]] = {fmt: [] for fmt in FORMATS}
    for number, question in enumerate(questions(cards)):
        reply, by_itself = ask(llm, question, seed + number, sampling)
        wrong = introduces_another(question.name, reply)
        right = says(question.name, reply) and not wrong
        another.append(wrong)
        ended.append(by_itself)
        if question.asks_who:
            named.append(right)
            rows[question.fmt].append(right)
        if show:
            asked = question.prompt.rsplit("\n", 2)[-2][-60:]
            print(f"{question.fmt} {question.name} | {asked} | {right} {wrong} |{reply!r}")
    size = "long cards, " if cards == LONG_CARDS else ""
    table = {f"{size}right name when asked, {fmt}": _share(found) for fmt, found in rows.items()}
    return {
        **table,
        f"**{size}right name when asked**": f"**{_share(named)}** ({sum(named)}/{len(named)})",
        f"{size}another name, all replies": f"{_share(another)} ({sum(another)}/{len(another)})",
        f"{size}replies that end by themselves": _share(ended),
    }


def _share(found: list[bool]) -> str:
    return f"{100 * sum(found) / max(1, len(found)):.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cards", choices=SETS, nargs="+", default=list(SETS), help="which cards")
    parser.add_argument("--show", action="store_true", help="print every reply")
    args = parser.parse_args()
    greedy = {"temperature": 0.0, "repeat_penalty": 1.0}
    columns: dict[str, dict[str, str]] = {}
    for path in args.models:
        llm = load(path, 4096, "f16", args.threads)
        for how, sampling in (("greedy", greedy), ("SillyTavern", SILLYTAVERN_SAMPLING)):
            columns[f"{path.name}, {how}"] = {
                row: value
                for cards in map(SETS.__getitem__, args.cards)
                for row, value in measure(llm, cards, args.seed, sampling, args.show).items()
            }
    table = Table("", *columns)
    for row in next(iter(columns.values())):
        table.add(row, *(column[row] for column in columns.values()))
    replies = sum(len(list(questions(SETS[cards]))) for cards in args.cards)
    print(table.markdown(f"seed {args.seed}, {replies} replies a column"))


if __name__ == "__main__":
    main()
