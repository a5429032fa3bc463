"""A tiny template language for the training text.

`{a|b|c}` takes one of the parts (they nest, and may be empty); `<name>` is a slot. Slots are given,
or drawn afresh from the word lists each time they occur. A template is parsed once.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from random import Random

from tools.demo_model import words

Node = str | tuple["Node", ...] | list["Node"]
"""A literal, a slot written `<name>`, a sequence (tuple), or a choice (list)."""

_ARTICLE = re.compile(r"\b([Aa]) (?=[aeio])")
_PIECE = re.compile(r"[{}|]|<[a-z_]+>|[^{}|<]+|<")

DRAWN: dict[str, Callable[[Random], str]] = {
    "person": words.person,
    "town": words.town,
    "thing": words.thing,
    "item": lambda rng: rng.choice(words.ITEMS),
    "spot": lambda rng: rng.choice(words.SPOTS),
    "food": lambda rng: rng.choice(words.FOODS),
    "drink": lambda rng: rng.choice(words.DRINKS),
    "trade": lambda rng: rng.choice(words.TRADES),
    "animal": lambda rng: rng.choice(words.ANIMALS),
    "building": lambda rng: rng.choice(words.BUILDINGS),
    "colour": lambda rng: rng.choice(words.COLOURS),
    "adjective": lambda rng: rng.choice(words.ADJECTIVES),
    "likes": lambda rng: rng.choice(words.LIKES),
    "fears": lambda rng: rng.choice(words.FEARS),
    "day": lambda rng: rng.choice(words.DAYS),
    "time": lambda rng: rng.choice(words.TIMES),
    "weather": lambda rng: rng.choice(words.WEATHER),
    "number": lambda rng: str(rng.randrange(2, 30)),
    "inn": words.inn,
}


def _sequence(pieces: list[str], depth: int) -> Node:
    """Parse up to the `|` or `}` that ends this part, which stays in `pieces` (kept in reverse
    order)."""
    nodes: list[Node] = []
    while pieces and not (depth and pieces[-1] in "|}"):
        piece = pieces.pop()
        if piece != "{":
            nodes.append(piece)
            continue
        choice: list[Node] = [_sequence(pieces, depth + 1)]
        while pieces and pieces.pop() == "|":
            choice.append(_sequence(pieces, depth + 1))
        nodes.append(choice)
    return nodes[0] if len(nodes) == 1 else tuple(nodes)


@cache
def _parse(template: str) -> Node:
    return _sequence(_PIECE.findall(template)[::-1], 0)


def expand(template: str, rng: Random, slots: Mapping[str, str]) -> str:
    """Fill a template; raises KeyError for a slot that is neither given nor drawn."""
    out: list[str] = []

    def walk(node: Node) -> None:
        if isinstance(node, list):
            walk(node[int(rng.random() * len(node))])
        elif isinstance(node, tuple):
            for part in node:
                walk(part)
        elif len(node) > 2 and node[0] == "<" and node[-1] == ">":
            name = node[1:-1]
            out.append(slots[name] if name in slots else DRAWN[name](rng))
        else:
            out.append(node)

    walk(_parse(template))
    return _ARTICLE.sub(r"\1n ", "".join(out))
