"""Documents of training text: chats in the shapes real clients send, with facts told early and
asked for later. A document is one string, with the marks of `chat`."""

from collections.abc import Callable
from random import Random

from tools.demo_model import words
from tools.demo_model.cast import describe, draw_cast, greeting
from tools.demo_model.chat import (
    REPLY,
    REPLY_END,
    VALUE,
    VALUE_END,
    Chat,
    Turn,
    answer,
)
from tools.demo_model.long_cards import CHARS_PER_TOKEN as RARE_CHARS_PER_TOKEN
from tools.demo_model.long_cards import describe_at_length
from tools.demo_model.scenes import Scene, describe_scene, draw_scene, greet_scene

BOS, EOS, IM_START, IM_END = "<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHARS_PER_TOKEN = 3.8


def opening(
    rng: Random,
    num_chars: int,
    held_out: bool,
    once: float = False,
    scene: bool = False,
    card_chars: int = 0,
) -> tuple[Chat, str]:
    """A chat that has not begun, and the text before it: card, lorebook entries, notes.

    With `scene` the card is one of `scenes`, or, of about `card_chars`, one of `long_cards`. A
    fraction as `once` is the part of the chat in which most facts are told; True draws it.
    """
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
        if once is not True:
            chat.turning_point = once
    if isinstance(cast, Scene):
        chat.style = rng.choice(("plain", "starred", "quoted", "quoted"))
        lines = [
            describe_at_length(rng, cast, card_chars)
            if card_chars
            else describe_scene(rng, cast, num_chars // 2)
        ]
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


FIRST_QUESTIONS = ("who", "who", "who_where", "where", "about", "")


def _open_scene(chat: Chat, scene: Scene) -> None:
    """The greeting, which the card's author wrote and the loss does not learn to say, and the first
    questions."""
    if chat.rng.random() < 0.85:
        text = REPLY_END + greet_scene(chat.rng, scene)
        chat.read += text
        chat.turns.append(Turn(scene.char, text, True))
        chat.num_chars += len(text)
    for _ in range(chat.rng.choice((1, 1, 2, 3))):
        chat.scene_talk(scene, chat.rng.choice(FIRST_QUESTIONS))


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
    rng: Random,
    num_chars: int,
    held_out: bool = False,
    once: float = False,
    scene: bool = False,
    card_chars: int = 0,
) -> str:
    chat, card = opening(rng, num_chars, held_out, once, scene, card_chars)
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
    rng: Random,
    num_chars: int,
    held_out: bool = False,
    once: float = False,
    scene: bool = False,
    card_chars: int = 0,
) -> str:
    """Plain lines with names, as a text-completion client sends them without an instruct
    template."""
    chat, card = opening(rng, num_chars, held_out, once, scene, card_chars)
    out = [system_line(chat), card]
    for _ in range(rng.choice((0, 0, 1, 2))):
        example = Chat(rng, chat.cast, chat.used, held_out, style=chat.style, read=chat.read)
        example.small_talk()
        out += [rng.choice(("<START>", "***")), *(line(turn) for turn in example.turns)]
    _fill_chat(chat, num_chars)
    out.append(rng.choice(("***", "***", "<START>", "---", "")))
    for index, turn in enumerate(chat.turns):
        last = index == len(chat.turns) - 1
        if not turn.is_reply and rng.random() < 0.04:
            out.append(_note(chat))
        out.append(line(turn) + (f"{VALUE}{EOS}{VALUE_END}" if last else ""))
    return "\n".join(filter(None, out))


def line(turn: Turn) -> str:
    return (
        f"{turn.speaker}:{REPLY} {turn.text}{REPLY_END}"
        if turn.is_reply
        else f"{turn.speaker}: {turn.text}"
    )


def group_lines(rng: Random, num_chars: int, held_out: bool = False, once: float = False) -> str:
    """A group chat: two or three characters answer the user by turns."""
    chat, card = opening(rng, num_chars, held_out, once)
    chat.told = [fact for fact in chat.told if fact not in chat.cast.facts]
    members = [chat.cast.char, words.person(rng), words.person(rng)][: rng.choice((2, 3))]
    card += chat.fill(f"\nAlso here: {' and '.join(members[1:])}.")
    while chat.num_chars < num_chars:
        chat.cast.char = rng.choice(members)
        chat.step()
    lines = [line(turn) for turn in chat.turns]
    return "\n".join([card, "***", *lines]) + f"{VALUE}{EOS}{VALUE_END}"


def alpaca(
    rng: Random,
    num_chars: int,
    held_out: bool = False,
    once: float = False,
    scene: bool = False,
    card_chars: int = 0,
) -> str:
    """Instruction and response; either one chat turn a pair, or a single question about what stands
    above it."""
    chat, card = opening(rng, num_chars, held_out, once, scene, card_chars)
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
    return "\n\n".join(out) + f"{VALUE}{EOS}{VALUE_END}"


def prose(rng: Random, num_chars: int, held_out: bool = False, once: float = False) -> str:
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


SHAPES: dict[str, tuple[Callable[[Random, int, bool, float], str], float]] = {
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
    long: float = 0.0,
) -> str:
    """Document number `index` of the endless sequence of `seed`; between an eighth of and all of
    `max_tokens` long. `scenes` is the share of chats with a card of `scenes`; `long` the share of
    documents that fill `max_tokens` (`long_document`)."""
    rng = Random(f"{seed}/{index}")
    if long and rng.random() < long:
        return BOS + long_document(rng, max_tokens, held_out)
    shape = rng.choices(list(SHAPES), [weight for _, weight in SHAPES.values()])[0]
    num_chars = int(max_tokens * (0.125 + 0.875 * rng.random()) * CHARS_PER_TOKEN)
    if scenes and rng.random() < scenes:
        write = rng.choice((named_lines, chatml, chatml, alpaca))
        text = write(rng, num_chars, held_out, once, True)
    else:
        text = SHAPES[shape][0](rng, num_chars, held_out, once)
    return BOS + (_curly(text) if rng.random() < 0.06 else text)


LONG_CARDS = 0.6
"""The share of `long_document` that has a long card; the rest has facts asked for late."""


def long_document(rng: Random, max_tokens: int, held_out: bool) -> str:
    """A long card with a short chat about it, or a long chat whose facts are told early and asked
    for late; at most about `max_tokens`."""
    write = rng.choice((named_lines, named_lines, chatml, alpaca))
    if rng.random() < LONG_CARDS:
        card_tokens = int(max_tokens * rng.uniform(0.35, 0.8))
        chat_tokens = min(max_tokens - card_tokens, rng.randrange(150, 500))
        card_chars = int(card_tokens * RARE_CHARS_PER_TOKEN)
        num_chars = card_chars + int(chat_tokens * CHARS_PER_TOKEN)
        return write(rng, num_chars, held_out, True, True, card_chars)
    num_chars = int(max_tokens * rng.uniform(0.5, 0.72) * CHARS_PER_TOKEN)
    return write(rng, num_chars, held_out, rng.uniform(0.4, 0.85), rng.random() < 0.2)


def _curly(text: str) -> str:
    """Typographic quotation marks, as some clients and cards have them."""
    parts = text.replace("'", "\u2019").split('"')
    return "".join(
        part + ("" if i == len(parts) - 1 else "\u201c" if i % 2 == 0 else "\u201d")
        for i, part in enumerate(parts)
    )
