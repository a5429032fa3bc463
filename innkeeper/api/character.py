"""Oobabooga's modes ``chat`` and ``chat-instruct``: the lines of a play instead of turns.

In the second the model is told, in one turn of its template, to write the play's next line.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from innkeeper.api import values
from innkeeper.cards import Card, fill
from innkeeper.core import GenerateRequest, Message
from innkeeper.errors import InvalidRequestError

Mode = Literal["instruct", "chat", "chat-instruct"]

CARD_FIELDS = ("name2", "context", "greeting")
FIELDS = ("name1", "user_bio", *CARD_FIELDS)
"""Of the two who speak; they mean something in a play alone."""

PLAY_FIELDS = (*FIELDS, "character", "chat_template_str", "chat_instruct_command")

_TEMPLATES = ("instruction_template", "instruction_template_str", "chat_template")

_COMMAND = """\
Go on with the chat below: write the next reply of <|character|>, and nothing else.

<|prompt|>"""
_MAX_TEMPLATE_CHARS = 256 * 1024
_read_text = values.text(1 << 22)


class Character(Struct, frozen=True):
    """Who speaks with whom."""

    user: str
    name: str
    context: str
    greeting: str


def mode(body: Mapping[str, Any]) -> Mode:
    """How a chat is written. Raises: InvalidRequestError for a mode that nobody knows."""
    given = body.get("mode")
    if given is None:
        return "instruct"
    found: Mode = values.choice("instruct", "chat", "chat-instruct")("mode", given)
    return found


def with_card(body: Mapping[str, Any], card: Card) -> dict[str, Any]:
    """``body`` with what the card says of its character, where it does not say it itself."""
    known = {"name2": card.name, "context": card.context, "greeting": card.greeting}
    found = {name: text for name, text in known.items() if body.get(name) is None}
    return {**body, **found, "character": None}


def idle(body: Mapping[str, Any]) -> list[str]:
    """Names of the fields that the body's mode has no use for, and of a character that nobody has
    looked up."""
    unused: dict[Mode, tuple[str, ...]] = {
        "instruct": PLAY_FIELDS,
        "chat": ("character", "chat_instruct_command", *_TEMPLATES),
        "chat-instruct": ("character", "chat_template_str"),
    }
    return [name for name in unused[mode(body)] if body.get(name)]


def as_play(request: GenerateRequest, body: Mapping[str, Any]) -> GenerateRequest:
    """``request`` with a prompt of ``Name: text`` lines, which a new line of the user ends.

    Raises: InvalidRequestError for tools, which a play cannot call.
    """
    if request.tools is not None:
        raise InvalidRequestError(
            f"mode {mode(body)} has no tools",
            field="tools",
            hint="leave mode out, or send instruct",
        )
    who = _character(body)
    stop = tuple(dict.fromkeys((*request.stop, f"\n{who.user}:", f"\n{who.name}:")))
    request = msgspec.structs.replace(request, stop=stop)
    if mode(body) == "chat-instruct":
        return _as_command(request, body, who)
    if body.get("chat_template_str"):
        return _as_scene(request, body, who)
    return msgspec.structs.replace(
        request,
        prompt="".join(_lines(request.messages or (), who, continues=request.continue_last)),
        messages=None,
        template_kwargs={},
        chat_template=None,
        continue_last=False,
    )


def _as_command(
    request: GenerateRequest, body: Mapping[str, Any], who: Character
) -> GenerateRequest:
    """One turn that holds the play, and a reply that begins with the character's name."""
    *lines, opening = _lines(request.messages or (), who, continues=request.continue_last)
    command = _read_text("chat_instruct_command", body.get("chat_instruct_command") or _COMMAND)
    command = fill(command, user=who.user, char=who.name).replace("<|character|>", who.name)
    text = command.replace("<|prompt|>", "".join(lines).rstrip("\n"))
    messages = (Message("user", text), Message("assistant", opening))
    return msgspec.structs.replace(request, messages=messages, continue_last=True)


def _as_scene(request: GenerateRequest, body: Mapping[str, Any], who: Character) -> GenerateRequest:
    """The play in a template of the request's own, which is given both names."""
    template = values.text(_MAX_TEMPLATE_CHARS)("chat_template_str", body["chat_template_str"])
    messages = tuple(request.messages or ())
    if _is_greeted(messages, who):
        messages = (Message("assistant", who.greeting), *messages)
    if who.context:
        messages = (Message("system", who.context), *messages)
    names = {"name1": who.user, "name2": who.name}
    return msgspec.structs.replace(
        request,
        messages=messages,
        chat_template=template,
        template_kwargs={**request.template_kwargs, **names},
    )


def _character(body: Mapping[str, Any]) -> Character:
    user, about, name, context, greeting = (
        _read_text(field, body.get(field) or "") for field in FIELDS
    )
    user, name = user or "You", name or "AI"
    parts = [fill(part, user=user, char=name) for part in (context, about) if part]
    return Character(user, name, "\n\n".join(parts), fill(greeting, user=user, char=name))


def _is_greeted(messages: Sequence[Message], who: Character) -> bool:
    return bool(who.greeting) and not any(each.role == "assistant" for each in messages)


def _lines(messages: Sequence[Message], who: Character, *, continues: bool) -> list[str]:
    """The play, whose last line is open: the character's name, or the line to go on with."""
    lines = [f"{who.context}\n\n" if who.context else ""]
    if _is_greeted(messages, who):
        lines.append(f"{who.name}: {who.greeting}\n")
    speakers = {"user": who.user, "assistant": who.name}
    for message in messages:
        text = (message.content or "").strip()
        speaker = speakers.get(message.role)
        lines.append(f"{speaker}: {text}\n" if speaker else f"{text}\n\n")
    if continues:
        return [*lines[:-1], lines[-1].removesuffix("\n")]
    return [*lines, f"{who.name}:"]
