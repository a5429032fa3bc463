"""Lets the speakers of a group chat hear in idle time what the others have said.

Each has a card of its own on top, so each has a base of its own, which knows the chat up to its
last turn. What was said since then would have to be read when its turn comes; behind its own card
it can be read before.
"""

from collections.abc import Iterable
from typing import NamedTuple

from innkeeper.engine.bases import SHORT_TAIL, Base, SavedBase
from innkeeper.engine.reuse import MIN_CHUNK, Policy, common_chunks, plan_reuse

_MOST_LONGER = 2
"""Front ends cut all prompts to about one length; who is silent does not follow for ever."""


class Behind(NamedTuple):
    """What a speaker has not heard yet stands at the end of ``tokens``, behind its own base."""

    tokens: list[int]
    speaker: str


def left_behind(newest: Base, others: Iterable[Base | SavedBase]) -> list[Behind]:
    """What the speakers of ``others``, those used last first, lack of the chat in ``newest``."""
    found: dict[str, Behind | None] = {"": None, newest.speaker: None}
    for other in others:
        if other.speaker not in found:
            tokens = _caught_up(newest, other)
            found[other.speaker] = None if tokens is None else Behind(tokens, other.speaker)
    return [each for each in found.values() if each is not None]


def _caught_up(newest: Base, other: Base | SavedBase) -> list[int] | None:
    """``other``'s tokens and what follows its last ones in ``newest``; None if it is another chat,
    if nothing does, or if ``newest`` has the same card, so that it serves both."""
    chunks = common_chunks(other.tokens, newest.tokens, 0, len(newest.tokens))
    if not chunks:
        return None
    source, target, length = chunks[-1]
    news = newest.tokens[target + length :]
    if len(other.tokens) - (source + length) > SHORT_TAIL or len(news) < MIN_CHUNK:
        return None
    tokens = [*other.tokens[: source + length], *news]
    if len(tokens) > _MOST_LONGER * len(newest.tokens):
        return None
    speakers = (newest.speaker, other.speaker)
    prefix, moved = plan_reuse(newest.tokens, tokens, Policy.FAST, speakers=speakers)
    end = moved[-1].target + moved[-1].length if moved else prefix
    has_same_card = end > source + length
    return None if has_same_card else tokens
