"""A chat as it grows: small talk, facts that are told and asked for, questions to a character.

Two pairs of control characters mark what the loss should dwell on (`REPLY`, what the character
says, and `VALUE`, the answer to a question); `plain_text` takes them out.
"""

from dataclasses import dataclass, field
from random import Random

from tools.demo_model import words
from tools.demo_model.cast import Cast
from tools.demo_model.facts import Fact, draw_fact
from tools.demo_model.grammar import DRAWN, expand
from tools.demo_model.phrases import (
    ACTIONS,
    ANSWER_LEAD,
    ANSWER_TAIL,
    ASK_LEAD,
    INTENTS,
    KNOWN_LITTLE,
    LEAD,
    NARRATION,
    REMEMBER,
    SCENE_INTENTS,
    VAGUE,
)
from tools.demo_model.scenes import FOES, Scene, bare_role, flourish

VALUE, VALUE_END, REPLY, REPLY_END = "\x01", "\x02", "\x03", "\x04"
HELD_OUT_NARRATION = 2
"""The last templates of NARRATION are kept for the evaluation."""
COMMON = (
    *("greet", "greet", "how_are_you", "fine", "thanks", "called", "help"),
    *("bye", "from", "name_user", "tired", "order_drink"),
)
"""What is said to any character: in scenes more often than the rest of INTENTS."""
MOST_TRIES = 12
"""How often an answer is drawn before it has to be a vague one."""
SCENE_VALUES = ("char", "role", "place", "region", "realm", "mishap")
"""What a card says of its scene: the values of the answers to SCENE_INTENTS."""

_BOUND = tuple(DRAWN)


def plain_text(document: str) -> str:
    for mark in (VALUE, VALUE_END, REPLY, REPLY_END):
        document = document.replace(mark, "")
    return document


@dataclass
class Turn:
    speaker: str
    text: str
    is_reply: bool


@dataclass
class Chat:
    """A chat as it grows: what was said, and which facts can be asked for."""

    rng: Random
    cast: Cast
    used: set[str]
    held_out: bool = False
    ask_share: float = 0.45
    style: str = "plain"
    told: list[Fact] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    num_chars: int = 0
    once: bool = False
    """Facts are told in the first part of the chat and asked for in the rest, most of them only
    once."""
    goal: int = 0
    turning_point: float = 0.0
    read: str = ""
    """Card and greeting of a scene."""

    def fill(self, template: str, slots: dict[str, str] | None = None) -> str:
        return expand(template, self.rng, {**self.cast.slots(), **(slots or {})})

    def new_fact(self, own: bool) -> Fact | None:
        fact = draw_fact(self.rng, own, self.held_out)
        if fact.key in self.used:
            return None
        self.used.add(fact.key)
        self.told.append(fact)
        return fact

    def add(self, speaker: str, text: str, is_reply: bool) -> None:
        text = " ".join(text.split()) if is_reply else text.strip()
        self.turns.append(Turn(speaker, self.dressed(text, is_reply), is_reply))
        self.num_chars += len(text) + 20

    def dressed(self, text: str, is_reply: bool) -> str:
        """Actions between asterisks and quoted speech, where this chat's style has them."""
        if self.style == "plain":
            return text
        if not is_reply:
            if isinstance(self.cast, Scene) and (text[0] in "*I" or self.rng.random() < 0.7):
                return text
            return f'"{text}"' if self.style == "quoted" and not text.startswith("I ") else text
        who = self.rng.choice((self.cast.she, self.cast.char))
        action = (
            flourish(self.rng, self.cast)
            if isinstance(self.cast, Scene)
            else self.fill(self.rng.choice(ACTIONS))
        )
        speech = f'"{text}"' if self.style == "quoted" else text
        return f"*{who} {action}.* {speech}" if self.rng.random() < 0.7 else speech

    def small_talk(self) -> None:
        if isinstance(self.cast, Scene) and self.rng.random() < 0.5:
            return self.scene_talk(self.cast)
        in_scene = isinstance(self.cast, Scene) and self.rng.random() < 0.6
        topic = self.rng.choice(COMMON if in_scene else tuple(INTENTS))
        user, reply = INTENTS[topic]
        slots = {name: DRAWN[name](self.rng) for name in _BOUND}
        slots |= {"other": words.person(self.rng), "relation": self.rng.choice(words.RELATIONS)}
        said = self.fill(self.rng.choice(user), slots)
        if self.rng.random() < 0.15:
            said = f"{self.narration()} {said}"
        if isinstance(self.cast, Scene):
            slots |= {name: _marked(self.cast.slots()[name]) for name in ("char", "role", "here")}
        answer = self.fill(self.rng.choice(reply), slots)
        if isinstance(self.cast, Scene) and not self.was_told(self.cast, answer):
            return self.scene_talk(self.cast)
        said = said.lower().rstrip(".?!") if self.rng.random() < 0.12 else _capital(said)
        self.add(self.cast.user, said, False)
        self.add(self.cast.char, _capital(answer), True)

    def scene_talk(self, scene: Scene, topic: str = "") -> None:
        """A question as it is asked in a scene (one of SCENE_INTENTS, drawn if not given), answered
        from the card."""
        topic = topic or self.rng.choice(tuple(SCENE_INTENTS))
        user, reply = SCENE_INTENTS[topic]
        slots = self.scene_slots(scene)
        said = _capital(self.fill(self.rng.choice(user), slots))
        slots |= {name: _marked(scene.slots()[name]) for name in SCENE_VALUES}
        slots["topic"] = _marked(_capital(slots["topic"]))
        answers = (_capital(self.fill(self.rng.choice(reply), slots)) for _ in range(MOST_TRIES))
        answer = next(
            (text for text in answers if self.was_told(scene, text)),
            _capital(self.fill(self.rng.choice(VAGUE.get(topic, VAGUE["any"])), slots)),
        )
        said = (said.lower().rstrip(".?!") or said) if self.rng.random() < 0.12 else said
        self.add(scene.user, said, False)
        self.add(scene.char, answer, True)

    def scene_slots(self, scene: Scene) -> dict[str, str]:
        slots = {name: DRAWN[name](self.rng) for name in _BOUND}
        own = [answer(fact, self.rng) for fact in self.rng.sample(scene.facts, len(scene.facts))]
        first, second = (*own, "I like it quiet.", "This is my home.")[:2]
        return slots | {
            "foes": self.rng.choice(FOES),
            "topic": self.rng.choice(KNOWN_LITTLE),
            "own": first,
            "more": second,
        }

    def was_told(self, scene: Scene, reply: str) -> bool:
        """Whether the card or the greeting says what `reply` says of the scene."""
        known = scene.slots()
        return all(
            bare_role(known[name]) in self.read or _marked(known[name]) not in reply
            for name in SCENE_VALUES
        ) and (scene.tells_place or _marked(scene.here) not in reply)

    def narration(self) -> str:
        pool = NARRATION[-HELD_OUT_NARRATION:] if self.held_out else NARRATION[:-HELD_OUT_NARRATION]
        return _capital(self.fill(self.rng.choice(pool), {"other": words.person(self.rng)}))

    def tell(self) -> None:
        """The user tells one to three facts."""
        facts = [
            self.new_fact(self.rng.random() < 0.35) for _ in range(self.rng.choice((1, 1, 2, 3)))
        ]
        said = " ".join(fact.tell(self.rng) for fact in facts if fact)
        if said:
            self.add(self.cast.user, self.fill(self.rng.choice(LEAD)) + said, False)
            self.add(self.cast.char, self.fill(self.rng.choice(REMEMBER)), True)

    def ask(self) -> None:
        """The user asks for a fact told before; the older ones come more often than chance would
        have it."""
        if not self.told:
            return self.tell()
        if self.once:
            fact = self.oldest_or_so()
        elif self.rng.random() < 0.4:
            fact = self.told[int(len(self.told) * self.rng.random() ** 2)]
        else:
            fact = self.rng.choice(self.told)
        self.add(self.cast.user, self.fill(self.rng.choice(ASK_LEAD)) + fact.ask(self.rng), False)
        self.add(
            self.cast.char,
            self.fill(self.rng.choice(ANSWER_LEAD))
            + answer(fact, self.rng)
            + self.fill(self.rng.choice(ANSWER_TAIL)),
            True,
        )

    def oldest_or_so(self) -> Fact:
        """One of the facts told, more likely an early one, and most often not to be asked for
        again."""
        index = int(len(self.told) * self.rng.random() ** 1.5)
        return self.told.pop(index) if self.rng.random() < 0.8 else self.told[index]

    def step(self) -> None:
        draw, ask, tell = self.rng.random(), self.ask_share, 0.2
        if self.once:
            ask, tell = (
                (0.1, 0.4) if self.num_chars < self.turning_point * self.goal else (0.6, 0.1)
            )
        if draw < ask:
            self.ask()
        elif draw < ask + tell:
            self.tell()
        else:
            self.small_talk()


def _marked(value: str) -> str:
    return f"{VALUE}{value}{VALUE_END}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def answer(fact: Fact, rng: Random) -> str:
    """The answer with its value marked."""
    marked = Fact(fact.kind, {**fact.slots, "value": _marked(fact.value)}, fact.value, fact.key)
    return marked.answer(rng)
