# ruff: noqa: E501 (templates are read one to a line)
"""Who is in a chat, and the character card that says so, in the styles cards are written in."""

from dataclasses import dataclass, field
from random import Random

from tools.demo_model import words
from tools.demo_model.facts import MOST_DRAWS, Fact, FactKind, is_held_out
from tools.demo_model.grammar import expand

PLACES = ("a glade near <town>", "the old <building> of <town>", "a small cottage near <town>", "the <building> in <town>",
          "a camp outside <town>", "a house in <town>", "the market of <town>", "a ship called the <adjective> <animal>")


CARD_KINDS: tuple[FactKind, ...] = (
    FactKind("eyes", lambda rng: {}, lambda rng: rng.choice(words.COLOURS),
             ("<char> has <value> eyes.", "<char>'s eyes are <value>.", "Eyes: <value>."),
             ("what colour are your eyes?", "which colour do your eyes have?"),
             ("my eyes are <value>.", "I have <value> eyes.")),
    FactKind("hair", lambda rng: {}, lambda rng: rng.choice(words.HAIR),
             ("<char> has <value> hair.", "<char>'s hair is <value>.", "Hair: <value>."),
             ("what colour is your hair?", "what is your hair like?", "what does your hair look like?"),
             ("my hair is <value>.", "I have <value> hair.")),
    FactKind("clothes", lambda rng: {},
             lambda rng: f"{rng.choice(words.COLOURS)} {rng.choice(['apron', 'cloak', 'coat', 'dress', 'gown', 'shirt', 'robe', 'scarf'])}",
             ("<char> wears a <value>.", "<char> is never seen without a <value>.", "Clothes: a <value>."),
             ("what do you wear?", "what are you wearing?"),
             ("I wear a <value>.", "I am wearing a <value>.")),
    FactKind("age", lambda rng: {}, lambda rng: str(rng.randrange(18, 90)),
             ("<char> is <value> years old.", "Age: <value>."),
             ("how old are you?", "what is your age?"),
             ("I am <value> years old.",)),
    FactKind("born", lambda rng: {}, words.town,
             ("<char> comes from <value>.", "<char> was born in <value>.", "Home: <value>."),
             ("where do you come from?", "where were you born?", "where are you from?"),
             ("I come from <value>.", "I was born in <value>.")),
    FactKind("loves", lambda rng: {}, lambda rng: rng.choice(words.LIKES),
             ("<char> loves <value>.", "<char> likes <value>.", "Likes: <value>."),
             ("what do you love?", "what do you like most?"),
             ("I love <value>.", "I like <value>.")),
    FactKind("fears", lambda rng: {}, lambda rng: rng.choice(words.FEARS),
             ("<char> is afraid of <value>.", "<char> fears <value>.", "Fears: <value>."),
             ("what are you afraid of?", "what do you fear?"),
             ("I am afraid of <value>.", "I fear <value>.")),
    FactKind("friend", lambda rng: {"relation": rng.choice(words.RELATIONS)}, words.person,
             ("<char>'s <relation> is called <value>.", "<char> has a <relation> named <value>."),
             ("what is your <relation> called?", "what is the name of your <relation>?", "who is your <relation>?"),
             ("my <relation> is called <value>.", "the name of my <relation> is <value>.")),
    FactKind("companion", lambda rng: {"animal": rng.choice(words.ANIMALS)}, words.person,
             ("<char> has a <animal> called <value>.", "<char>'s <animal> is named <value>."),
             ("what is your <animal> called?", "what is the name of your <animal>?"),
             ("my <animal> is called <value>.", "the name of my <animal> is <value>.")),
    FactKind("nature", lambda rng: {}, lambda rng: " and ".join(rng.sample(words.TRAITS, 2)),
             ("<char> is <value>.", "Character: <value>."),
             ("what are you like?", "how would you describe yourself?", "describe your traits."),
             ("I am <value>.", "people say that I am <value>.")),
)


@dataclass
class Cast:
    char: str
    user: str
    role: str
    here: str
    she: str
    facts: list[Fact] = field(default_factory=list)

    def slots(self) -> dict[str, str]:
        return {"char": self.char, "user": self.user, "role": self.role, "here": self.here}


def card_fact(rng: Random, char: str, used: set[str], held_out: bool) -> Fact | None:
    """A fact about the character, or None when its subject is taken."""
    kind = rng.choice(CARD_KINDS)
    slots = kind.subject(rng)
    key = "|".join([kind.name, *slots.values()])
    if key in used:
        return None
    for _ in range(MOST_DRAWS):
        value = kind.value(rng)
        if is_held_out(kind.name, key, value) == held_out:
            used.add(key)
            return Fact(kind, {**slots, "char": char, "value": value}, value, key)
    return None


def draw_cast(rng: Random, used: set[str], num_facts: int, held_out: bool) -> Cast:
    """A character and a user; the card's facts are not asked for elsewhere, `used` sees to it."""
    char = words.person(rng)
    user = "User" if rng.random() < 0.6 else words.person(rng)
    if rng.random() < 0.4:
        role, here = "the innkeeper", f"{words.inn(rng)} in {words.town(rng)}"
    else:
        trade = rng.choice(words.TRADES)
        role = expand(rng.choice((f"a {trade}", f"the {trade}", f"the {trade} of <town>")), rng, {})
        here = expand(rng.choice(PLACES), rng, {})
    found = (card_fact(rng, char, used, held_out) for _ in range(num_facts))
    return Cast(char, user, role, here, rng.choice(("She", "He")), [fact for fact in found if fact])


def _bracketed(rng: Random, cast: Cast) -> str:
    """A list of properties in square brackets, as many cards have it."""
    traits = ", ".join(f'"{trait}"' for trait in rng.sample(words.TRAITS, rng.randrange(3, 9)))
    head = rng.choice(("Personality", "Traits", "Character"))
    return f"[{cast.char}'s {head}= {traits}]"


def describe(rng: Random, cast: Cast) -> str:
    """The card's text: who the character is, where, and the card's facts, told once each."""
    slots = cast.slots()
    opening = rng.choice((
        "<char> is <role>{.| at <here>.| and lives at <here>.}", "Name: <char>\nRole: <role>\nPlace: <here>",
        "{You are|You play} <char>, <role>{.| at <here>.}", "This is <char>, <role>{.| of <here>.}"))
    parts = [expand(opening, rng, slots)]
    told = [fact.tell(rng) for fact in cast.facts]
    if rng.random() < 0.5:
        parts.append(_bracketed(rng, cast))
    parts += [" ".join(told)] if rng.random() < 0.6 else told
    scenario = expand(rng.choice((
        "{Scenario: |}<user> {has come|comes|arrives} to <here>{.|, where <char> {lives|works|waits}.}",
        "[Scenario: <user> meets <char> at <here>.]", "[Genre: {fantasy|adventure|everyday}; Scenario: <char> {found|met} <user> at <here>.]",
        "{The scene|Place}: <here>.")), rng, slots)
    return "\n".join([*(part for part in parts if part), scenario])


def greeting(rng: Random, cast: Cast) -> str:
    return expand(rng.choice((
        "{Welcome|Hello}, {traveller|stranger|<user>|friend}! I am <char>{.|, <role>.} {Welcome to <here>.|You are at <here>.} {Come in.|What brings you here?|How are you?}",
        "{Ah, a guest!|There you are.|You are awake.} {I am <char>.|My name is <char>, <role>.} {How do you feel?|Sit down by the fire.|You are safe at <here>.}",
        "{The door opens|You open your eyes|It is evening} {and <char> looks up|and you see <char>}. {Good evening!|Who is there?|Can I help you?}")), rng, cast.slots())
