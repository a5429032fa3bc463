# ruff: noqa: E501 (templates are read one to a line)
"""Facts that are stated once and asked for later.

A fact has a subject and a value, both drawn from lists or made of syllables. One pair of subject and value in ten is held
out (`is_held_out`): training never sees it, the evaluation uses nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from zlib import crc32

from tools.demo_model import words
from tools.demo_model.grammar import expand

MOST_DRAWS = 300
"""A kind with few values may have none on one side of the split."""


@dataclass(frozen=True)
class FactKind:
    """How one sort of fact is drawn, told, asked for and answered."""

    name: str
    subject: Callable[[Random], dict[str, str]]
    value: Callable[[Random], str]
    tell: tuple[str, ...]
    ask: tuple[str, ...]
    answer: tuple[str, ...]
    weight: float = 1.0


@dataclass
class Fact:
    kind: FactKind
    slots: dict[str, str]
    value: str
    key: str = field(default="")

    def tell(self, rng: Random) -> str:
        return _sentence(rng.choice(self.kind.tell), rng, self.slots)

    def ask(self, rng: Random) -> str:
        return _sentence(rng.choice(self.kind.ask), rng, self.slots)

    def answer(self, rng: Random) -> str:
        return _sentence(rng.choice(self.kind.answer), rng, self.slots)


def _sentence(template: str, rng: Random, slots: dict[str, str]) -> str:
    text = expand(template, rng, slots)
    return text[0].upper() + text[1:]


def is_held_out(kind: str, subject: str, value: str) -> bool:
    """Whether this combination is kept from training; a property of the words alone, the same on every machine."""
    return crc32(f"{kind}|{subject}|{value}".encode()) % 10 == 0


def _one(name: str, draw: Callable[[Random], str]) -> Callable[[Random], dict[str, str]]:
    return lambda rng: {name: draw(rng)}


def _owner(rng: Random) -> dict[str, str]:
    return {"person": words.person(rng), "item": rng.choice(words.ITEMS)}


def _relative(rng: Random) -> dict[str, str]:
    return {"person": words.person(rng), "relation": rng.choice(words.RELATIONS)}


def _animal_owner(rng: Random) -> dict[str, str]:
    return {"person": words.person(rng), "animal": rng.choice(words.ANIMALS)}


def _pick(entries: list[str]) -> Callable[[Random], str]:
    return lambda rng: rng.choice(entries)


def _code(rng: Random) -> str:
    return words.number(rng, rng.choice((2, 3, 3, 4, 4)))


KINDS: tuple[FactKind, ...] = (
    FactKind("colour", _owner, _pick(words.COLOURS),
             ("<person>'s <item> is <value>{.|, as everyone knows.}", "{I saw that|You should know that|Someone said that} "
              "<person>'s <item> is <value>.", "the colour of <person>'s <item> is <value>."),
             ("{what|which} colour is <person>'s <item>?", "{can|could} you tell me the colour of <person>'s <item>?",
              "do you remember the colour of <person>'s <item>?"),
             ("<person>'s <item> is <value>.", "the colour of <person>'s <item> is <value>."), 2.0),
    FactKind("place", _one("thing", words.thing), _pick(words.SPOTS),
             ("the <thing> is <value>.", "{I put|I left|we keep|they hid|someone left} the <thing> <value>.",
              "you {will|can} find the <thing> <value>.", "the <thing> {lies|is kept|stands|is hidden} <value>."),
             ("where is the <thing>?", "where {can I find|did you put|do I find} the <thing>?",
              "{can|could} you tell me where the <thing> is?", "I need the <thing>. Where is it?"),
             ("the <thing> is <value>.", "you {will|can} find the <thing> <value>."), 2.5),
    FactKind("holder", _one("thing", words.thing), words.person,
             ("the <thing> {is held by|is with|was given to|is carried by} <value>.", "<value> has the <thing>.",
              "<value> {carries|took|keeps|is holding} the <thing>.", "I gave the <thing> to <value>."),
             ("who has the <thing>?", "who {holds|keeps|took} the <thing>?", "do you know who has the <thing>?"),
             ("the <thing> is with <value>.", "<value> has the <thing>.", "<value> does. The <thing> is with <value>."), 2.0),
    FactKind("room", _one("person", words.person), lambda rng: words.number(rng, rng.choice((1, 2, 2, 3))),
             ("<person> {sleeps|stays|lives} in room <value>.", "<person> has room <value>.", "<person>'s room is number <value>."),
             ("{in which|which} room {is|does} <person> {in|have|stay in}?", "what is <person>'s room number?",
              "where does <person> sleep?"),
             ("<person> {sleeps|stays} in room <value>.", "<person> has room <value>."), 1.5),
    FactKind("price", _one("food", _pick(words.FOODS)), lambda rng: words.number(rng, rng.choice((1, 2))),
             ("the <food> costs <value> coppers.", "we {sell|serve} the <food> for <value> coppers.", "a plate of <food> is <value> coppers."),
             ("{what does|how much does} the <food> cost?", "how much is the <food>?", "what is the price of the <food>?"),
             ("the <food> costs <value> coppers.", "the <food> is <value> coppers{.|, friend.}"), 1.5),
    FactKind("password", _one("building", _pick(words.BUILDINGS)), words.strange_word,
             ("the password for the <building> is <value>.", "the {guards|people} at the <building> want the password <value>.",
              "the secret word for the <building> is <value>."),
             ("what is the password for the <building>?", "which word opens the <building>?", "do you know the secret word for the <building>?"),
             ("the password for the <building> is <value>.", "the secret word for the <building> is <value>."), 1.5),
    FactKind("code", _one("box", _pick(words.LOCKED)), _code,
             ("the <box> opens with <value>.", "the number for the <box> is <value>.", "the code of the <box> is <value>."),
             ("what is the {code|number} for the <box>?", "which number opens the <box>?", "how do I open the <box>?"),
             ("the <box> opens with <value>.", "the number for the <box> is <value>."), 1.5),
    FactKind("trade", _one("person", words.person), _pick(words.TRADES),
             ("<person> {is|works as|became} {a|the} <value>.", "<person> is the <value> {here|in our village|of this town}."),
             ("what does <person> do?", "what is <person>'s {trade|work|job}?", "{tell me,|say,} what is <person>?"),
             ("<person> {is|works as} a <value>.", "<person> is the <value> {here|of this place}."), 1.5),
    FactKind("home", _one("person", words.person), words.town,
             ("<person> {comes|is} from <value>.", "<person> {was born|grew up} in <value>.", "<person>'s home is <value>."),
             ("where {does <person> come|is <person>} from?", "what is <person>'s home town?", "do you know where <person> was born?"),
             ("<person> {comes|is} from <value>.", "<person>'s home is <value>."), 1.5),
    FactKind("pet", _animal_owner, words.person,
             ("<person>'s <animal> is {called|named} <value>.", "<person> has a <animal> {called|named} <value>.",
              "the name of <person>'s <animal> is <value>."),
             ("what is <person>'s <animal> called?", "what is the name of <person>'s <animal>?"),
             ("<person>'s <animal> is called <value>.", "the name of <person>'s <animal> is <value>."), 1.5),
    FactKind("drink", _one("person", words.person), _pick(words.DRINKS),
             ("<person> {always drinks|only drinks|orders|asks for} <value>.", "<person>'s favourite drink is <value>."),
             ("what does <person> {drink|like to drink}?", "what is <person>'s favourite drink?", "which drink should I bring <person>?"),
             ("<person> {always drinks|drinks} <value>.", "<person>'s favourite drink is <value>.")),
    FactKind("relative", _relative, words.person,
             ("<person>'s <relation> is {called|named} <value>.", "the name of <person>'s <relation> is <value>."),
             ("what is <person>'s <relation> called?", "who is <person>'s <relation>?", "what is the name of <person>'s <relation>?"),
             ("<person>'s <relation> is called <value>.", "the name of <person>'s <relation> is <value>."), 1.5),
    FactKind("departure", _one("vehicle", _pick(words.VEHICLES)), _pick(words.TIMES),
             ("the <vehicle> leaves at <value>.", "the <vehicle> {goes|departs} at <value>{.| every day.}"),
             ("when does the <vehicle> leave?", "at what time does the <vehicle> {leave|go}?"),
             ("the <vehicle> leaves at <value>.", "the <vehicle> goes at <value>.")),
    FactKind("debt", _one("person", words.person), lambda rng: words.number(rng, rng.choice((1, 2, 2, 3))),
             ("<person> owes {me|us|the house} <value> coins.", "<person> has to pay <value> coins."),
             ("how {much|many coins} does <person> owe?", "what does <person> have to pay?"),
             ("<person> owes <value> coins.", "<person> has to pay <value> coins.")),
    FactKind("fondness", _one("person", words.person), _pick(words.LIKES),
             ("<person> {loves|likes|is fond of|cannot live without} <value>.",),
             ("what does <person> {like|love}?", "what is <person> fond of?", "what would make <person> happy?"),
             ("<person> {likes|loves|is fond of} <value>.",)),
    FactKind("fear", _one("person", words.person), _pick(words.FEARS),
             ("<person> is {afraid|scared} of <value>.", "<person> fears <value>{.| above all.}"),
             ("what is <person> {afraid|scared} of?", "what does <person> fear?"),
             ("<person> is afraid of <value>.", "<person> fears <value>.")),
    FactKind("arrival", _one("person", words.person), _pick(words.DAYS),
             ("<person> {arrives|comes back|will be here} on <value>.", "we expect <person> on <value>."),
             ("when does <person> {arrive|come|come back}?", "on which day {will <person> be here|do you expect <person>}?"),
             ("<person> {arrives|will be here} on <value>.", "we expect <person> on <value>.")),
    FactKind("birth", _one("person", words.person), _pick(words.MONTHS),
             ("<person>'s birthday is in <value>.", "<person> was born in <value>."),
             ("when is <person>'s birthday?", "in which month was <person> born?"),
             ("<person>'s birthday is in <value>.", "<person> was born in <value>.")),
    FactKind("meaning", _one("word", words.strange_word), _pick(words.TRADES + words.ITEMS + words.ANIMALS),
             ("a <word> is a kind of <value>.", "around here we call a <value> a <word>."),
             ("what is a <word>?", "do you know what a <word> is?"),
             ("a <word> is a kind of <value>.",)),
    FactKind("ruler", _one("town", words.town), words.person,
             ("<town> is ruled by <value>.", "the {mayor|lord|head} of <town> is <value>.", "in <town> everyone obeys <value>."),
             ("who rules <town>?", "who is in charge of <town>?"),
             ("<town> is ruled by <value>.",)),
    FactKind("distance", _one("town", words.town), lambda rng: words.number(rng, rng.choice((1, 2, 2))),
             ("<town> is <value> miles from here.", "it is <value> miles to <town>.", "the road to <town> is <value> miles long."),
             ("how far is {it to |}<town>?", "how many miles is it to <town>?"),
             ("<town> is <value> miles from here.", "it is <value> miles to <town>.")),
)

OWN_KINDS: tuple[FactKind, ...] = (
    FactKind("my_name", lambda rng: {}, words.person,
             ("my name is <value>.", "I am {called|named} <value>.", "{call me|you may call me} <value>.", "I am <value>."),
             ("what is my name?", "do you remember my name?", "who am I?", "what am I called?"),
             ("your name is <value>.", "you are <value>{.|, of course.}"), 3.0),
    FactKind("my_pet", _one("animal", _pick(words.ANIMALS)), words.person,
             ("my <animal> is {called|named} <value>.", "I have a <animal> {called|named} <value>."),
             ("what is my <animal> called?", "what is the name of my <animal>?", "do you remember the name of my <animal>?"),
             ("your <animal> is called <value>.", "the name of your <animal> is <value>."), 2.0),
    FactKind("my_thing", _one("item", _pick(words.ITEMS)), _pick(words.SPOTS),
             ("I left my <item> <value>.", "my <item> is <value>.", "I put my <item> <value>."),
             ("where is my <item>?", "where did I {leave|put} my <item>?"),
             ("your <item> is <value>.", "you left your <item> <value>."), 2.0),
    FactKind("my_colour", _one("item", _pick(words.ITEMS)), _pick(words.COLOURS),
             ("my <item> is <value>.", "I {bought|have|wear|found} a <value> <item>."),
             ("what colour is my <item>?", "do you remember the colour of my <item>?"),
             ("your <item> is <value>.",), 2.0),
    FactKind("my_favourite", lambda rng: {}, _pick(words.COLOURS),
             ("my favourite colour is <value>.", "I like <value> best of all colours."),
             ("what is my favourite colour?", "which colour do I like best?"),
             ("your favourite colour is <value>.",), 1.5),
    FactKind("my_home", lambda rng: {}, words.town,
             ("I come from <value>.", "I am from <value>.", "I was born in <value>."),
             ("where do I come from?", "where am I from?", "what is my home town?"),
             ("you come from <value>.", "you are from <value>."), 1.5),
    FactKind("my_trade", lambda rng: {}, _pick(words.TRADES),
             ("I am a <value>.", "I work as a <value>."),
             ("what is my {trade|work|job}?", "what do I do for a living?"),
             ("you are a <value>.", "you work as a <value>."), 1.5),
    FactKind("my_number", lambda rng: {}, _code,
             ("my lucky number is <value>.", "<value> is my lucky number."),
             ("what is my lucky number?", "which number brings me luck?"),
             ("your lucky number is <value>.",)),
    FactKind("my_relative", _one("relation", _pick(words.RELATIONS)), words.person,
             ("my <relation> is {called|named} <value>.", "the name of my <relation> is <value>.", "my <relation> <value> sent me."),
             ("what is my <relation> called?", "what is the name of my <relation>?"),
             ("your <relation> is called <value>.", "the name of your <relation> is <value>."), 2.0),
    FactKind("my_search", lambda rng: {}, words.thing,
             ("I am looking for a <value>.", "I {lost|need|want to buy} a <value>."),
             ("what am I looking for?", "what did I lose?"),
             ("you are looking for a <value>.",)),
)


def draw_fact(rng: Random, own: bool, held_out: bool) -> Fact:
    """A fact; `own` ones are about the speaker. `held_out` chooses the side of the split."""
    kinds = OWN_KINDS if own else KINDS
    kind = rng.choices(kinds, [k.weight for k in kinds])[0]
    for _ in range(MOST_DRAWS):
        slots, value = kind.subject(rng), kind.value(rng)
        key = kind.name + "|" + "|".join(slots.values())
        if is_held_out(kind.name, key, value) == held_out:
            return Fact(kind, {**slots, "value": value}, value, key)
    return draw_fact(rng, own, held_out)
