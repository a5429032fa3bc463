"""One character card: JSON, or a PNG that holds it.

Three formats are read: V1 has its fields at the top, V2 and V3 have them below ``data``.
Sources: the specifications "character card v1", "chara_card_v2" and "chara_card_v3".
"""

import base64
import binascii
import re
from typing import Any

import msgspec
from msgspec import Struct

from innkeeper.cards import png
from innkeeper.errors import InvalidRequestError

MAX_FIELD_CHARS = 1 << 20
_MACRO = re.compile(r"\{\{(char|user|original)\}\}|\{\{//.*?\}\}|<(bot|user)>", re.I | re.S)
_START = re.compile(r"^[ \t]*<start>[ \t]*$", re.I | re.M)
_NOT_USED = ("character_book", "post_history_instructions")


class Card(Struct, frozen=True, kw_only=True):
    """Who a character is. Macros are as the author wrote them."""

    name: str
    description: str = ""
    personality: str = ""
    scenario: str = ""
    greeting: str = ""
    examples: str = ""
    system: str = ""
    unused: tuple[str, ...] = ()
    """Names of what else the card holds and this program does not apply."""

    @property
    def context(self) -> str:
        """All that a model is told of the character before the chat."""
        examples = _START.sub("", self.examples).strip()
        parts = (self.system, self.description, self.personality, self.scenario, examples)
        return "\n\n".join(part.strip() for part in parts if part.strip())


def fill(text: str, *, user: str, char: str) -> str:
    """``text`` with the names in place of ``{{user}}`` and ``{{char}}`` (or ``<USER>``, ``<BOT>``),
    and without comments. Nothing else is evaluated, and a name is never read as a macro."""

    def put(match: re.Match[str]) -> str:
        word = (match[1] or match[2] or "").lower()
        return {"char": char, "bot": char, "user": user}.get(word, "")

    return _MACRO.sub(put, text)


def read_card(data: bytes) -> Card:
    """The card that a file's bytes are. Raises: InvalidRequestError saying what is wrong."""
    if data.startswith(png.SIGNATURE):
        text = png.card_text(data)
        if text is None:
            raise InvalidRequestError("the picture holds no character card")
        data = _decoded(text)
    try:
        found = msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"the card is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidRequestError("the card must be a JSON object")
    inner = found.get("data")
    return _card(inner if isinstance(inner, dict) else found)


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=False)
    except binascii.Error as error:
        raise InvalidRequestError(f"the picture's card is not base64: {error}") from None


def _card(fields: dict[str, Any]) -> Card:
    name = _text(fields, "name").strip()
    if not name:
        raise InvalidRequestError("the card has no name")
    return Card(
        name=name,
        description=_text(fields, "description"),
        personality=_text(fields, "personality"),
        scenario=_text(fields, "scenario"),
        greeting=_text(fields, "first_mes"),
        examples=_text(fields, "mes_example"),
        system=_text(fields, "system_prompt"),
        unused=tuple(key for key in _NOT_USED if fields.get(key)),
    )


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidRequestError(f"the card's {name} must be a string")
    if len(value) > MAX_FIELD_CHARS:
        raise InvalidRequestError(
            f"the card's {name} has {len(value)} characters; at most {MAX_FIELD_CHARS} are allowed"
        )
    return value.replace("\r\n", "\n")
