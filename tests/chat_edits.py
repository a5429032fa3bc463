"""Chats that change as front ends change them: prompts of token ids, from a seed."""

from dataclasses import dataclass, field
from random import Random

NUM_VOCAB = 200
KINDS = tuple(
    "say/say/say/fall/fall/return/return/echo/insert/delete/move/swipe/note/lore in/lore out"
    "/card".split("/")
)
SPEAKERS = ("Mira", "Bram", "")


@dataclass
class EditedChat:
    """A card, lore, messages and a note; ``edit`` changes one of them."""

    rng: Random
    longest: int = 140
    """Tokens of a message at most."""
    cards: dict[str, list[int]] = field(default_factory=dict)
    speaker: str = ""
    lore: list[list[int]] = field(default_factory=list)
    messages: list[list[int]] = field(default_factory=list)
    fallen: list[list[int]] = field(default_factory=list)
    note_depth: int = 1

    def __post_init__(self) -> None:
        self.cards = {name: self._text(20, 80) for name in SPEAKERS}
        self.note = self._text(5, 20)
        self.messages = [self._text(1, self.longest) for _ in range(3)]

    def prompt(self) -> list[int]:
        depth = min(self.note_depth, len(self.messages))
        head = [1, *self.cards[self.speaker], *(t for text in self.lore for t in text)]
        place = len(self.messages) - depth
        parts = [*self.messages[:place], self.note, *self.messages[place:]]
        return head + [token for part in parts for token in part]

    def edit(self) -> str:
        """One random change; its name."""
        kind = self.rng.choice(KINDS)
        messages = self.messages
        if kind == "say":
            messages.append(self._text(1, self.longest))
        elif kind == "fall" and len(messages) > 2:
            self.fallen.append(messages.pop(0))
        elif kind == "return" and self.fallen:
            messages.insert(0, self.fallen.pop())
        elif kind == "echo" and self.fallen:
            messages.insert(self._index(), self.rng.choice(self.fallen))
        elif kind == "insert":
            messages.insert(self._index(), self._text(1, self.longest))
        elif kind == "delete" and len(messages) > 1:
            del messages[self._index()]
        elif kind == "move" and len(messages) > 1:
            message = messages.pop(self._index())
            messages.insert(self._index(), message)
        elif kind == "swipe":
            messages[-1] = self._text(1, self.longest)
        elif kind == "note":
            self.note_depth = self.rng.randint(0, 3)
        elif kind == "lore in":
            self.lore.insert(0, self._text(10, 70))
        elif kind == "lore out" and self.lore:
            self.lore.pop()
        elif kind == "card":
            self.speaker = self.rng.choice(SPEAKERS)
        return kind

    def fit(self, num_tokens: int) -> None:
        """Lets old messages fall out until the prompt has at most ``num_tokens``."""
        while len(self.prompt()) > num_tokens and len(self.messages) > 1:
            self.fallen.append(self.messages.pop(0))
        while len(self.prompt()) > num_tokens and self.lore:
            self.lore.pop()

    def _index(self) -> int:
        return self.rng.randrange(len(self.messages))

    def _text(self, least: int, most: int) -> list[int]:
        count = self.rng.randint(least, most)
        return [self.rng.randrange(3, NUM_VOCAB) for _ in range(count)]
