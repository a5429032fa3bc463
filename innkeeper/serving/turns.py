"""Which turns of a chat that is too long for its context are left out.

Old turns leave in blocks, and where a block ends depends on the messages before it alone. So the
cut stays where it is while the chat grows by a block, and the cached start of its prompt is of use
in every turn until then.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import msgspec

from innkeeper.core import GenerateRequest, Message

Measure = Callable[[Sequence[Message]], Awaitable[int]]
"""Tokens of the prompt that messages make."""


class Fitted(NamedTuple):
    """What is left of a chat; ``warning`` is empty if that is all of it."""

    messages: tuple[Message, ...]
    warning: str = ""


def prompt_room(request: GenerateRequest, num_ctx: int) -> int:
    """Tokens that the prompt may have beside its reply: a limit of more than half the context, or
    none at all, is no reason to leave out more than that, or a quarter."""
    reply = num_ctx // 4 if request.max_tokens is None else request.max_tokens
    room = num_ctx - min(max(reply, 1), num_ctx // 2)
    return room if request.truncate_to is None else min(room, request.truncate_to)


async def fit_turns(messages: Sequence[Message], room: int, measure: Measure) -> Fitted:
    """The messages without the oldest turns, as few blocks of them as make the rest fit ``room``.

    System messages and the newest turn stay, even where they alone are too long. A block has about
    as many bytes as ``room`` has tokens: a quarter of it in English.
    """
    cuts = [0, *_cuts(messages, max(1, room))]
    if len(cuts) == 1 or await measure(messages) <= room:
        return Fitted(tuple(messages))
    low, high, num_tokens = 1, len(cuts) - 1, 0
    while low < high:
        middle = (low + high) // 2
        if await measure(_from(messages, cuts[middle])) <= room:
            high = middle
        else:
            low = middle + 1
    kept = _from(messages, cuts[low])
    num_tokens = await measure(kept)
    return Fitted(
        kept,
        f"the oldest {len(messages) - len(kept)} of {len(messages)} messages were left out, since"
        f" the chat is too long: the rest has {num_tokens} tokens, and the context has room for"
        f" {room} beside the reply",
    )


def _from(messages: Sequence[Message], first: int) -> tuple[Message, ...]:
    early = (message for message in messages[:first] if message.role == "system")
    return (*early, *messages[first:])


def _cuts(messages: Sequence[Message], block_bytes: int) -> list[int]:
    """Where the kept turns may begin: at user messages, since templates want turns to begin so, a
    block apart; at last the newest one."""
    cuts: list[int] = []
    num_bytes, end = 0, block_bytes
    for index, message in enumerate(messages):
        if message.role == "user" and num_bytes >= end:
            cuts.append(index)
            end = (num_bytes // block_bytes + 1) * block_bytes
        if message.role != "system":
            num_bytes += len(msgspec.json.encode(message))
    users = [index for index, message in enumerate(messages) if message.role == "user"]
    if users and any(message.role != "system" for message in messages[: users[-1]]):
        cuts += [users[-1]] if users[-1] not in cuts else []
    return cuts
