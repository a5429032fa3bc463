"""What stands before a request comes: the characters that one may name."""

from collections.abc import Mapping
from typing import Any

from innkeeper.api import character, chat, values
from innkeeper.cards import Cards


class Standing:
    """Reads chats, with what their names stand for in place."""

    def __init__(self, cards: Cards | None = None) -> None:
        self._cards = cards or Cards()

    def chat(self, body: Mapping[str, Any]) -> chat.Call:
        """As ``chat.parse``, with the named character's card in the fields that ``body`` leaves
        open.

        Raises: InvalidRequestError, NotFoundError.
        """
        if not body.get("character") or character.mode(body) == "instruct":
            return chat.parse(body)
        name = values.text(1000)("character", body["character"])
        card = self._cards.find(name)
        unused = [f"not applied: {part} of {card.name}'s card" for part in card.unused]
        return chat.parse(character.with_card(body, card), warnings=unused)
