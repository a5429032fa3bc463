"""The built-in model and its character: what answers when no other model is there."""

import json
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).with_name("innkeeper-demo-q8_0.gguf")
_CHARACTER = Path(__file__).with_name("character.json")
_USER = "the guest"


@dataclass(frozen=True)
class Persona:
    """Who speaks: what the model is told of them, and their first words."""

    name: str
    system: str
    greeting: str


def is_demo(path: str | Path) -> bool:
    """Whether ``path`` is the built-in model."""
    return Path(path) == MODEL


def persona() -> Persona:
    """The built-in character, from its card."""
    data = json.loads(_CHARACTER.read_text(encoding="utf-8"))["data"]

    def filled(text: str) -> str:
        return text.replace("{{char}}", data["name"]).replace("{{user}}", _USER)

    system = f"{data['description']}\n{data['scenario']}"
    return Persona(data["name"], filled(system), filled(data["first_mes"]))
