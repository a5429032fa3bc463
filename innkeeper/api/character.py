"""Oobabooga's mode ``chat``: the lines of a play instead of a chat template's turns."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from innkeeper.api import values
from innkeeper.core import GenerateRequest, Message
from innkeeper.errors import InvalidRequestError

FIELDS = ("name1", "name2", "context", "greeting", "user_bio")
"""Of the two who speak; they mean something in mode ``chat`` alone."""

_read_text = values.text(1 << 22)


class Character(Struct, frozen=True):
    """Who speaks with whom."""

    user: str
    name: str
    context: str
    greeting: str

    def filled(self, text: str) -> str:
        """``text`` with the names in place of ``{{user}}`` and ``{{char}}``."""
        for mark, name in (("{{user}}", self.user), ("{{char}}", self.name)):
            text = text.replace(mark, name)
        return text


def is_play(body: Mapping[str, Any]) -> bool:
    """Whether the mode is ``chat``. Raises: InvalidRequestError for a mode that nobody knows."""
    mode = body.get("mode")
    if mode is None:
        return False
    return bool(values.choice("instruct", "chat", "chat-instruct")("mode", mode) == "chat")


def as_play(request: GenerateRequest, body: Mapping[str, Any]) -> GenerateRequest:
    """``request`` with a prompt of ``Name: text`` lines, which a new line of the user ends.

    Raises: InvalidRequestError for tools, which a play cannot call.
    """
    if request.tools is not None:
        raise InvalidRequestError(
            "mode chat has no tools", field="tools", hint="leave mode out, or send instruct"
        )
    who = _character(body)
    prompt = _prompt(request.messages or (), who, continues=request.continue_last)
    stop = tuple(dict.fromkeys((*request.stop, f"\n{who.user}:", f"\n{who.name}:")))
    unused = ("not applied: the template (mode chat has none)",) if request.chat_template else ()
    return msgspec.structs.replace(
        request,
        prompt=prompt,
        messages=None,
        template_kwargs={},
        chat_template=None,
        continue_last=False,
        stop=stop,
        warnings=(*request.warnings, *unused),
    )


def _character(body: Mapping[str, Any]) -> Character:
    user, name, context, greeting, about = (
        _read_text(field, body.get(field) or "") for field in FIELDS
    )
    who = Character(user or "You", name or "AI", "", "")
    parts = [who.filled(part) for part in (context, about) if part]
    return Character(who.user, who.name, "\n\n".join(parts), who.filled(greeting))


def _prompt(messages: Sequence[Message], who: Character, *, continues: bool) -> str:
    lines = [f"{who.context}\n\n" if who.context else ""]
    if who.greeting and not any(message.role == "assistant" for message in messages):
        lines.append(f"{who.name}: {who.greeting}\n")
    speakers = {"user": who.user, "assistant": who.name}
    for message in messages:
        text = (message.content or "").strip()
        speaker = speakers.get(message.role)
        lines.append(f"{speaker}: {text}\n" if speaker else f"{text}\n\n")
    if continues:
        return "".join(lines).removesuffix("\n")
    return "".join([*lines, f"{who.name}:"])
