"""Documents of training text: chats in the shapes real clients send, with facts told early and
asked for later.

A document is one string. Two pairs of control characters mark what the loss should dwell on
(`REPLY`, what the character says, and `VALUE`, the answer to a question); `plain_text` takes them
out.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tools.demo_model import words
from tools.demo_model.cast import Cast, describe, draw_cast, greeting
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
from tools.demo_model.scenes import FOES, Scene, bare_role, describe_scene, draw_scene, flourish, greet_scene

BOS, EOS, IM_START, IM_END = "<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VALUE, VALUE_END, REPLY, REPLY_END = "\x01", "\x02", "\x03", "\x04"
CHARS_PER_TOKEN = 3.8
HELD_OUT_NARRATION = 2
"""The last templates of NARRATION are kept for the evaluation."""

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
        action = flourish(self.rng, self.cast) if isinstance(self.cast, Scene) else self.fill(self.rng.choice(ACTIONS))
        speech = f'"{text}"' if self.style == "quoted" else text
        return f"*{who} {action}.* {speech}" if self.rng.random() < 0.7 else speech

    def small_talk(self) -> None:
        if isinstance(self.cast, Scene) and self.rng.random() < 0.6:
            return self.scene_talk(self.cast)
        user, reply = self.rng.choice(tuple(INTENTS.values()))
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


MOST_TRIES = 12
"""How often an answer is drawn before it has to be a vague one."""
SCENE_VALUES = ("char", "role", "place", "region", "realm", "mishap")
"""What a card says of its scene: the values of the answers to SCENE_INTENTS."""


def _marked(value: str) -> str:
    return f"{VALUE}{value}{VALUE_END}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def answer(fact: Fact, rng: Random) -> str:
    """The answer with its value marked."""
    marked = Fact(
        fact.kind, {**fact.slots, "value": _marked(fact.value)}, fact.value, fact.key
    )
    return marked.answer(rng)


def opening(
    rng: Random, num_chars: int, held_out: bool, once: bool = False, scene: bool = False
) -> tuple[Chat, str]:
    """A chat that has not begun, and the text before it: card, lorebook entries, notes. With
    `scene` the card is one of `scenes`."""
    used: set[str] = set()
    draw = draw_scene if scene else draw_cast
    cast = draw(rng, used, rng.randrange(0, 7), held_out)
    chat = Chat(
        rng,
        cast,
        used,
        held_out,
        rng.choice((0.3, 0.45, 0.6)),
        rng.choice(("plain", "plain", "starred", "quoted")),
    )
    chat.told += cast.facts
    if once:
        chat.once, chat.goal, chat.turning_point = True, num_chars, rng.choice((0.0, 0.3, 0.5, 0.7))
    if isinstance(cast, Scene):
        chat.style = rng.choice(("plain", "starred", "quoted", "quoted"))
        lines = [describe_scene(rng, cast, num_chars // 2)]
        chat.read = lines[0]
    else:
        lines = [describe(rng, cast)]
    num_lore = rng.choice((0, 0, 1, 2, 4, 8)) if num_chars > 1500 else rng.choice((0, 0, 1, 2))
    for _ in range(num_lore):
        fact = chat.new_fact(False)
        lines += [fact.tell(rng)] if fact else []
        if rng.random() < 0.4:
            lines.append(chat.narration())
    chat.num_chars = sum(map(len, lines))
    return chat, "\n".join(lines)


def _fill_chat(chat: Chat, num_chars: int) -> None:
    if isinstance(chat.cast, Scene):
        _open_scene(chat, chat.cast)
    elif chat.rng.random() < 0.5:
        chat.add(chat.cast.char, greeting(chat.rng, chat.cast), True)
    chat.step()
    while chat.num_chars < num_chars:
        chat.step()


def _open_scene(chat: Chat, scene: Scene) -> None:
    """The greeting, which the card's author wrote and the loss does not learn to say, and the first
    questions."""
    if chat.rng.random() < 0.85:
        text = REPLY_END + greet_scene(chat.rng, scene)
        chat.read += text
        chat.turns.append(Turn(scene.char, text, True))
        chat.num_chars += len(text)
    for _ in range(chat.rng.choice((1, 1, 2, 3))):
        chat.scene_talk(scene, chat.rng.choice(("who", "who", "who_where", "where", "about", "")))


def _note(chat: Chat) -> str:
    """An author's note; one in two carries a fact."""
    fact = chat.new_fact(False) if chat.rng.random() < 0.5 else None
    text = (
        fact.tell(chat.rng)
        if fact
        else chat.fill(
            "{Style: short answers|Keep the mood {calm|uneasy|friendly}|"
            "Stay in character|Write as <char>}."
        )
    )
    return (
        chat.fill("[{Author's note: |Note: |}") + text + "]"
        if chat.rng.random() < 0.8
        else f"({text})"
    )


SCENE_SYSTEM = (
    "{Write|Write|Continue with|Give} <char>'s next {reply|reply|answer|message} in {a|this} "
    "{fictional|made-up|long} {chat|chat|conversation|roleplay} between <char> and <user>."
    "{| Be {creative|vivid|brief}.| {Never speak for|Do not write as} <user>.| Stay in character.}"
)


def system_line(chat: Chat) -> str:
    if isinstance(chat.cast, Scene) and chat.rng.random() < 0.7:
        return chat.fill(SCENE_SYSTEM)
    return chat.fill(
        chat.rng.choice(
            (
                "Write the next reply of <char> in a {chat|talk|story} "
                "{with|between <char> and} <user>.",
                "You are <char>. {Stay in character.|Answer as <char>.|}",
                "{Play the part of|Speak as} <char>{.| in this chat with <user>.}",
                "",
            )
        )
    )


def chatml(
    rng: Random, num_chars: int, held_out: bool = False, once: bool = False, scene: bool = False
) -> str:
    chat, card = opening(rng, num_chars, held_out, once, scene)
    if rng.random() < 0.12 and not scene:
        chat.told, card = [], ""
    _fill_chat(chat, num_chars)
    out = _system_messages(rng, list(filter(None, (system_line(chat), card))))
    named = rng.random() < 0.15
    for turn in chat.turns:
        name = f"{turn.speaker}: " if named else ""
        if turn.is_reply:
            out.append(f"{IM_START}assistant\n{name}{REPLY}{turn.text}{IM_END}{REPLY_END}\n")
            continue
        if rng.random() < 0.03:
            out.append(f"{IM_START}system\n{_note(chat)}{IM_END}\n")
        out.append(f"{IM_START}user\n{name}{turn.text}{IM_END}\n")
    return "".join(out)


def _system_messages(rng: Random, parts: list[str]) -> list[str]:
    """One system message, or one for every line of the card, as chat-completion clients have it."""
    if parts and rng.random() < 0.25:
        parts = [
            *"\n".join(parts).split("\n"),
            *(["[Start of the chat]"] if rng.random() < 0.5 else []),
        ]
    else:
        parts = ["\n".join(parts)] if parts else []
    return [f"{IM_START}system\n{part}{IM_END}\n" for part in parts]


def named_lines(
    rng: Random, num_chars: int, held_out: bool = False, once: bool = False, scene: bool = False
) -> str:
    """Plain lines with names, as a text-completion client sends them without an instruct
    template."""
    chat, card = opening(rng, num_chars, held_out, once, scene)
    out = [system_line(chat), card]
    for _ in range(rng.choice((0, 0, 1, 2))):
        example = Chat(
            rng, chat.cast, chat.used, held_out, style=chat.style, read=chat.read
        )
        example.small_talk()
        out += [rng.choice(("<START>", "***")), *(line(turn) for turn in example.turns)]
    _fill_chat(chat, num_chars)
    out.append(rng.choice(("***", "***", "<START>", "---", "")))
    for index, turn in enumerate(chat.turns):
        last = index == len(chat.turns) - 1
        if not turn.is_reply and rng.random() < 0.04:
            out.append(_note(chat))
        out.append(line(turn) + (f"{REPLY}{EOS}{REPLY_END}" if last else ""))
    return "\n".join(filter(None, out))


def line(turn: Turn) -> str:
    return (
        f"{turn.speaker}:{REPLY} {turn.text}{REPLY_END}"
        if turn.is_reply
        else f"{turn.speaker}: {turn.text}"
    )


def group_lines(rng: Random, num_chars: int, held_out: bool = False, once: bool = False) -> str:
    """A group chat: two or three characters answer the user by turns."""
    chat, card = opening(rng, num_chars, held_out, once)
    chat.told = [fact for fact in chat.told if fact not in chat.cast.facts]
    members = [chat.cast.char, words.person(rng), words.person(rng)][: rng.choice((2, 3))]
    card += chat.fill(f"\nAlso here: {' and '.join(members[1:])}.")
    while chat.num_chars < num_chars:
        chat.cast.char = rng.choice(members)
        chat.step()
    lines = [line(turn) for turn in chat.turns]
    return "\n".join([card, "***", *lines]) + f"{REPLY}{EOS}{REPLY_END}"


def alpaca(
    rng: Random, num_chars: int, held_out: bool = False, once: bool = False, scene: bool = False
) -> str:
    """Instruction and response; either one chat turn a pair, or a single question about what stands
    above it."""
    chat, card = opening(rng, num_chars, held_out, once, scene)
    _fill_chat(chat, num_chars)
    head = rng.choice(
        (
            "Below is an instruction. Write a response that fits it.",
            "Write a fitting answer to the instruction.",
            "",
        )
    )
    named = rng.random() < 0.5
    out = [part for part in (head, system_line(chat), card) if part]
    for turn in chat.turns:
        name = f"{turn.speaker}: " if named else ""
        if turn.is_reply:
            out.append(f"### Response:\n{name}{REPLY}{turn.text}{REPLY_END}")
        else:
            out.append(f"### Instruction:\n{name}{turn.text}")
    return "\n\n".join(out) + f"{REPLY}{EOS}{REPLY_END}"


def prose(rng: Random, num_chars: int, held_out: bool = False, once: bool = False) -> str:
    """Text without a format: facts are stated, and said again later."""
    chat, _ = opening(rng, 0, held_out, once)
    chat.goal = num_chars
    chat.told = []
    out: list[str] = []
    while sum(map(len, out)) < num_chars:
        draw = rng.random()
        fact = chat.new_fact(False) if draw < 0.35 else None
        if fact:
            out.append(fact.tell(rng))
        elif draw < 0.6 or not chat.told:
            out.append(chat.narration())
        elif draw < 0.8:
            again = answer(chat.oldest_or_so() if once else rng.choice(chat.told), rng)
            out.append(
                chat.fill("{As I said: |Remember: |It is true: |Once more: |And yes. |}")
                + f"{REPLY}{again}{REPLY_END}"
            )
        else:
            old = chat.oldest_or_so() if once else rng.choice(chat.told)
            out.append(f"Question: {old.ask(rng)}\nAnswer: {REPLY}{answer(old, rng)}{REPLY_END}\n")
        if rng.random() < 0.1:
            out.append("\n")
    return " ".join(out).replace("\n ", "\n") + EOS


SHAPES: dict[str, tuple[Callable[[Random, int, bool, bool], str], float]] = {
    "chatml": (chatml, 0.42),
    "names": (named_lines, 0.28),
    "group": (group_lines, 0.07),
    "alpaca": (alpaca, 0.12),
    "prose": (prose, 0.11),
}


def document(
    seed: int,
    index: int,
    max_tokens: int,
    held_out: bool = False,
    once: bool = False,
    scenes: float = 0.0,
) -> str:
    """Document number `index` of the endless sequence of `seed`; between an eighth of and all of
    `max_tokens` long. `scenes` is the share of chats with a card of `scenes`."""
    rng = Random(f"{seed}/{index}")
    shape = rng.choices(list(SHAPES), [weight for _, weight in SHAPES.values()])[0]
    num_chars = int(max_tokens * (0.125 + 0.875 * rng.random()) * CHARS_PER_TOKEN)
    if scenes and rng.random() < scenes:
        write = rng.choice((named_lines, named_lines, chatml, alpaca))
        text = write(rng, num_chars, held_out, once, True)
    else:
        text = SHAPES[shape][0](rng, num_chars, held_out, once)
    return BOS + (_curly(text) if rng.random() < 0.06 else text)


def _curly(text: str) -> str:
    """Typographic quotation marks, as some clients and cards have them."""
    parts = text.replace("'", "\u2019").split('"')
    return "".join(
        part + ("" if i == len(parts) - 1 else "\u201c" if i % 2 == 0 else "\u201d")
        for i, part in enumerate(parts)
    )
