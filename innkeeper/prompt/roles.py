"""Messages regrouped for templates that accept only strict turns.

Clients send several system messages in a row, or a greeting before the first user message;
templates of Mistral's and Gemma's kind refuse both. Better a regrouped chat than none.
"""

from collections.abc import Iterator, Sequence

from innkeeper.core import Message

_OPENING = "Begin."
_SYSTEM = ("system", "developer")


def regrouped(messages: Sequence[Message]) -> Iterator[tuple[Message, ...]]:
    """Milder first: strict turns after one system message, then strict turns with none.

    Nothing comes if the messages hold tool calls or other roles, whose order means something.
    """
    known = (*_SYSTEM, "user", "assistant")
    if not messages or any(
        message.role not in known or "tool_calls" in message.extra for message in messages
    ):
        return
    num_leading = next(
        (i for i, message in enumerate(messages) if message.role not in _SYSTEM), len(messages)
    )
    system = _joined([message.content for message in messages[:num_leading]])
    if system and num_leading < len(messages):
        yield (Message("system", system), *_strict_turns(messages[num_leading:]))
    yield tuple(_strict_turns(messages))


def _strict_turns(messages: Sequence[Message]) -> list[Message]:
    """User and assistant by turns, the user first; system messages speak as the user."""
    turns: list[Message] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1].role == role:
            turns[-1] = Message(role, _joined([turns[-1].content, message.content]))
        else:
            turns.append(Message(role, message.content or ""))
    if turns and turns[0].role == "assistant":
        turns.insert(0, Message("user", _OPENING))
    return turns


def _joined(contents: Sequence[str | None]) -> str:
    return "\n\n".join(content for content in contents if content)
