# ruff: noqa: E501 (templates are read one to a line)
"""Characters whose card never says "X is ...": the name stands in labels, in property lists, in the lines of example
dialogue, and the place and the role only where somebody happens to mention them.

Names are made letter by letter here, so that copying them is the only way to get them right.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tools.demo_model import words
from tools.demo_model.cast import Cast, card_fact
from tools.demo_model.grammar import expand
from tools.demo_model.phrases import ACTIONS, NARRATION

ONSETS = ("b", "bl", "br", "c", "ch", "d", "dr", "f", "fl", "g", "gl", "gr", "gw", "h", "j", "k", "kr", "l", "m", "n", "p", "ph",
          "pr", "qu", "r", "s", "sh", "sk", "sl", "st", "sw", "t", "th", "tr", "v", "w", "wh", "x", "y", "z", "", "", "", "")
VOWELS = ("a", "a", "a", "a", "e", "e", "e", "e", "i", "i", "i", "o", "o", "o", "u", "u", "ae", "ai", "au", "ea", "ee", "ei", "ia",
          "ie", "oa", "oo", "ou", "y")
CODAS = ("", "", "", "", "", "", "b", "ck", "d", "g", "l", "ld", "ll", "lm", "m", "n", "n", "nd", "ng", "nt", "r", "r", "rd", "rk",
         "rt", "s", "sk", "ss", "st", "t", "th", "tz", "v", "x", "zz")
TITLES = ("Captain", "Doctor", "Lady", "Lord", "Master", "Miss", "Mister", "Princess", "Professor", "Queen", "Sir", "Sister")
NOOKS = ("apartment", "attic", "bakery", "bookshop", "cabin", "camp", "castle", "cave", "cell", "chapel", "clinic", "cottage",
         "den", "garage", "garden", "glade", "grove", "hall", "house", "hut", "kitchen", "laboratory", "library", "manor",
         "office", "palace", "ruin", "sanctuary", "shop", "shrine", "stable", "studio", "study", "tavern", "temple", "tent",
         "tower", "treehouse", "village", "workshop")
LANDS = ("city", "desert", "forest", "forest", "garden", "hills", "island", "kingdom", "marsh", "moor", "mountains", "port",
         "realm", "ruins", "swamp", "town", "valley", "village", "wasteland", "wood")
LAND_WORDS = ("ancient", "busy", "burning", "cold", "cursed", "dark", "deep", "distant", "drowned", "enchanted", "endless",
              "foggy", "frozen", "grey", "haunted", "hidden", "holy", "lonely", "lost", "magical", "misty", "old", "quiet",
              "sacred", "silent", "sleeping", "small", "sunny", "twisted", "wild")
DUTIES = ("guardian", "guardian", "keeper", "healer", "witch", "protector", "warden", "watcher", "ruler", "spirit", "priestess",
          "hermit", "defender", "caretaker", "voice", "heir", "hunter", "mapmaker", "oldest inhabitant")
CALLINGS = ("actor", "android", "artist", "assassin", "barista", "bounty hunter", "chef", "demon", "detective", "dragon",
            "elf", "engineer", "fairy", "ghost", "gardener", "goddess", "hacker", "journalist", "lawyer", "mage", "maid",
            "mechanic", "mercenary", "nurse", "nun", "orc", "pilot", "prince", "robot", "scientist", "senator", "sorceress",
            "student", "surgeon", "vampire", "wanderer")
FOES = ("bandits", "beasts", "shadows", "wolves", "soldiers", "raiders", "thieves", "goblins", "wild dogs", "monsters",
        "strangers", "machines", "pirates", "spiders", "ghosts")
MISHAPS = ("were attacked by <foes>", "were chased by <foes>", "were robbed by <foes>", "fell from your horse", "lost your way",
           "fell into the river", "were caught in a storm", "lost your memory", "were wounded by <foes>", "fainted at the gate",
           "were left behind by your friends", "ran away from home", "crashed your car", "missed the last train")
QUALITIES = ("adventurous", "affectionate", "ambitious", "apologetic", "attentive", "bold", "charming", "compassionate",
             "confident", "creative", "cunning", "cynical", "dedicated", "devoted", "distant", "elegant", "empathetic",
             "energetic", "flirty", "graceful", "healing", "intelligent", "kind-hearted", "lonely", "magical", "mature",
             "mischievous", "mysterious", "nurturing", "obedient", "perceptive", "playful", "protective", "rebellious",
             "reckless", "resilient", "sarcastic", "secretive", "serene", "serious", "shy", "stoic", "strong", "tsundere",
             "vain", "worried", *words.TRAITS)
LOOKS = ("freckles", "long legs", "pale skin", "pointed ears", "sharp teeth", "soft skin", "strong hands", "tall", "tanned skin",
         "thin lips", "white teeth", "broad shoulders", "a scar on the chin", "round glasses", "small wings", "a long tail")
GENRES = ("fantasy", "adventure", "romance", "mystery", "science fiction", "horror", "everyday life", "comedy", "drama")
PROPERTIES = {"eyes": ("Eyes", "<value> eyes"), "hair": ("Hair", "<value> hair"), "clothes": ("Clothes", "<value>"),
              "age": ("Age", "<value> years old"), "born": ("Birthplace", "born in <value>"), "loves": ("Likes", "loves <value>"),
              "fears": ("Fears", "afraid of <value>"), "nature": ("Character", "<value>")}
"""How a card's fact stands in a list: its key, and as a phrase without one. Others keep their sentence."""

FUNCTION_WORDS = ("the", "the", "a", "of", "and", "and", "to", "in", "with", "her", "his", "she", "he", "it", "is", "was", "as",
                  "you", "your", "not", "but", "who", "from", "for", "their", "by", "into", "at", "I", "my", "all", "when")

PROSE = (
    "{Long ago|Once|For many years}, <invented> was {a place of wonder|a quiet land|full of light|the home of kings}{.|, until the <foes> came.| and its gates stood open.}",
    "{The light|Her voice|His voice|The air|The silence} {fills the room|softens|trembles|grows warm|carries the scent of <likes>|fades slowly}{.|, as if <invented> itself were listening.|, and the <animal> looks up.}",
    "{Few|Not many|Only the brave} {come here|know the way|speak of it} {since <invented> fell|these days|any more}, {but you are safe|yet the lamps still burn|and nobody asks why}.",
    "{I have|My people have|We have} {watched over|walked|guarded|loved} {this <nook>|this <land>|the roads of <invented>} {for as long as I remember|since the old war|alone}{.|, and I will not stop now.}",
    "{Rest now|Do not move|Drink this|Take my hand}, {your strength will return|the worst is over|the <foes> cannot enter here|you have nothing to fear}.",
    "{In <invented>|Beyond the <land>|Under the <nook>} {they tell of|there sleeps|I once saw} a <adjective> <item> that {sings at night|nobody may touch|belonged to <invented>|grants a wish}.",
    "{Her|His} {eyes|hands|fingers|lips} {sparkle|tremble|rest on the <item>|move slowly|grow still} {with warmth|in the firelight|like leaves in the wind|for a heartbeat}{.|, and a smile appears.}",
)
FLOURISHES = (
    "{smiles softly|laughs under <her> breath|looks at you for a long moment|turns to the window|kneels beside you}{, <her> eyes {full of warmth|sparkling|tired but kind|wary}|}{ as the room grows quiet| and reaches for the <item>|}",
    "{brushes the hair from your face|sets down the <item>|takes a slow breath|tilts <her> head|folds <her> arms|grins from ear to ear}{ and listens|, waiting for your answer|}",
)


def invented(rng: Random) -> str:
    """A name nobody has heard, of one to three syllables."""
    num = rng.choice((1, 2, 2, 2, 3, 3))
    name = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(num))
    return name.capitalize() if len(name) > 2 else name.capitalize() + "ra"


def _compound(rng: Random) -> str:
    """Two words in one, such as Ravenhook."""
    return (rng.choice(words.TOWN_HEADS) if rng.random() < 0.5 else invented(rng)) + rng.choice(words.ITEMS + words.ANIMALS)


def character_name(rng: Random) -> str:
    draw = rng.random()
    first = words.person(rng) if draw < 0.3 else _compound(rng) if draw < 0.42 else invented(rng)
    draw = rng.random()
    if draw < 0.1:
        return f"{rng.choice(TITLES)} {first}"
    if draw < 0.14:
        return f"{first}-{rng.randrange(1, 100)}"
    return f"{first} {invented(rng)}" if draw < 0.24 else first


def _noun(rng: Random, known: tuple[str, ...]) -> str:
    """One of the words, or one that was never used before."""
    draw = rng.random()
    return rng.choice(known) if draw < 0.8 else rng.choice(words.BUILDINGS) if draw < 0.96 else invented(rng).lower()


def _region(rng: Random, land: str, realm: str) -> str:
    """Where it is: most often a land with a name, now and then a street, a mountain, a mere noun."""
    word, draw = rng.choice(LAND_WORDS), rng.random()
    if draw < 0.5:
        return f"the {word} {land} of {realm}"
    if draw < 0.65:
        return f"the {land} of {realm}"
    return rng.choice((
        realm, f"Port {realm}", f"{realm} Street", f"Mount {realm}", f"Castle {realm}", f"{realm} Station", f"a {word} {land}",
        f"the {word} {land}", f"the {land} behind the {rng.choice(words.BUILDINGS)}", f"the {rng.choice(words.BUILDINGS)} of {realm}",
        f"the {word} {rng.choice(words.BUILDINGS)} of {realm}", f"the {land} near {realm}"))  # fmt: skip


def _role(rng: Random, place: str, land: str, realm: str) -> str:
    draw = rng.random()
    if draw < 0.4:
        return f"the {rng.choice(DUTIES)} of {rng.choice((f'this {land}', f'this {place}', realm))}"
    word = f"{rng.choice(QUALITIES)} " if draw > 0.85 else ""
    made = f"{rng.choice(words.ITEMS)}maker" if draw < 0.48 else rng.choice(CALLINGS + tuple(words.TRADES))
    return expand(f"a {word}{made}", rng, {})


@dataclass
class Scene(Cast):
    """A cast with what such a card may mention besides its facts."""

    place: str = ""
    region: str = ""
    realm: str = ""
    land: str = ""
    mishap: str = ""
    tells_role: bool = True
    tells_place: bool = True
    her: str = "her"

    def slots(self) -> dict[str, str]:
        return {**super().slots(), "place": self.place, "region": self.region, "realm": self.realm, "land": self.land,
                "mishap": self.mishap, "he_mishap": _third_person(self.mishap), "she": self.she.lower(), "her": self.her}


def _third_person(mishap: str) -> str:
    return mishap.replace("were ", "was ", 1).replace("your", "their")


def _drawn(rng: Random) -> dict[str, str]:
    return {"invented": invented(rng), "nook": rng.choice(NOOKS), "land": rng.choice(LANDS), "foes": rng.choice(FOES)}


def draw_scene(rng: Random, used: set[str], num_facts: int, held_out: bool, char: str = "") -> Scene:
    """A character in a place of their own; `char` is a name to take instead of a drawn one."""
    char, she = char or character_name(rng), rng.choice(("She", "He"))
    place, land, realm = _noun(rng, NOOKS), _noun(rng, LANDS), invented(rng)
    region = expand(_region(rng, land, realm), rng, {})
    facts = (card_fact(rng, char, used, held_out) for _ in range(num_facts))
    return Scene(
        char, "User" if rng.random() < 0.7 else character_name(rng), _role(rng, place, land, realm), f"my {place} in {region}",
        she, [fact for fact in facts if fact], place, region, realm, land, expand(rng.choice(MISHAPS), rng, _drawn(rng)),
        rng.random() < 0.55, rng.random() < 0.6, "her" if she == "She" else "his",
    )  # fmt: skip


def murmur(rng: Random) -> str:
    """A sentence of words that do not exist: real cards are full of words the model has never read."""
    some = (rng.choice(FUNCTION_WORDS) if rng.random() < 0.45 else invented(rng).lower() for _ in range(rng.randrange(5, 18)))
    text = " ".join(some) + rng.choice((".", ".", "!", "?", "..."))
    return text[0].upper() + text[1:]


def prose(rng: Random, scene: Scene) -> str:
    """A sentence of decoration, with names that are nobody's."""
    if rng.random() < 0.04:
        return murmur(rng)
    if rng.random() < 0.3:
        return expand(rng.choice(NARRATION), rng, {"other": words.person(rng)})
    return expand(rng.choice(PROSE), rng, {**_drawn(rng), **({"invented": scene.realm} if rng.random() < 0.5 else {})})


def flourish(rng: Random, scene: Scene) -> str:
    return expand(rng.choice(FLOURISHES if rng.random() < 0.6 else ACTIONS), rng, {"her": scene.her})


def _spoken(rng: Random, scene: Scene, speech: str) -> str:
    """A long reply as example dialogue has it: actions and speech by turns."""
    who = rng.choice((scene.char, scene.she))
    parts = [f"*{who} {flourish(rng, scene)}.*", f'"{speech}"']
    if rng.random() < 0.5:
        parts.append(f"*{prose(rng, scene)}*")
    if rng.random() < 0.6:
        parts.append(f'"{" ".join(prose(rng, scene) for _ in range(rng.randrange(1, 4)))}"')
    return " ".join(parts)


def interview(rng: Random, scene: Scene, num_chars: int) -> list[str]:
    """Example dialogue of up to about `num_chars`: the user asks about the place, the role and the card's facts, and gets
    long answers."""
    asked = [(fact.ask(rng), fact.answer(rng)) for fact in scene.facts]
    asked += [(expand(ask, rng, scene.slots()), expand(answer, rng, scene.slots())) for ask, answer in (
        ("What is {this place|the <place>}?", "This is my <place>{, in <region>|}.") if scene.tells_place else
        ("Do you like it here?", "There are worse places."),
        ("What do you do?", "I am <role>{.|, as you see.}") if scene.tells_role else ("What do you do?", prose(rng, scene)),
        ("What is <realm>?", "<realm> is {here, all of this <land>|the name of this <land>|my home}."),
        ("{Tell me a story.|What happened here?|Are you alone?}", prose(rng, scene)))]  # fmt: skip
    rng.shuffle(asked)
    lines: list[str] = []
    for ask, answer in asked[: rng.randrange(1, len(asked) + 1)]:
        if sum(map(len, lines)) > num_chars:
            break
        if rng.random() < 0.25:
            lines.append("<START>")
        lines += [f'{scene.user}: "{ask}"', f"{scene.char}: {_spoken(rng, scene, answer)}"]
    return lines


def bare_role(role: str) -> str:
    return role.removeprefix("the ").removeprefix("a ").removeprefix("an ")


def _qualities(rng: Random) -> list[str]:
    return rng.sample(QUALITIES, rng.randrange(3, 14))


def _listed(rng: Random, scene: Scene) -> list[tuple[str, list[str]]]:
    """Keys with their values: what lists of all notations are made of."""
    pairs = [("Personality", _qualities(rng))]
    pairs += [(PROPERTIES[fact.kind.name][0], [fact.value]) for fact in scene.facts if fact.kind.name in PROPERTIES]
    pairs += [("Looks", rng.sample(LOOKS, rng.randrange(1, 4)))] if rng.random() < 0.5 else []
    if scene.tells_role:
        pairs.append((rng.choice(("Occupation", "Job", "Profession", "Role", "Type")), [bare_role(scene.role)]))
    if scene.tells_place and rng.random() < 0.6:
        pairs.append((rng.choice(("Home", "Location", "Setting")), [f"{scene.place} in {scene.region}"]))
    rng.shuffle(pairs)
    return pairs


def property_lists(rng: Random, scene: Scene) -> list[str]:
    """[X's body= "pink hair", "amber eyes"] and its relatives."""
    body = [expand(PROPERTIES[fact.kind.name][1], rng, {"value": fact.value}) for fact in scene.facts if fact.kind.name in PROPERTIES]
    body += rng.sample(LOOKS, rng.randrange(1, 5))
    rng.shuffle(body)
    def quoted(values: list[str]) -> str:
        return ", ".join(f'"{value}"' for value in values)
    return [f"[{scene.char}'s {rng.choice(('Personality', 'personality', 'traits'))}= {quoted(_qualities(rng))}]",
            f"[{scene.char}'s {rng.choice(('body', 'Body', 'features', 'appearance'))}= {quoted(body)}]", *_loose_facts(rng, scene)]


def key_notation(rng: Random, scene: Scene) -> list[str]:
    """[Character("X") { Age("23") }], or pairs with plus signs, semicolons or line breaks."""
    pairs, draw = _listed(rng, scene), rng.random()
    if draw < 0.4:
        head = rng.choice(("Character", "character", "Name"))
        inner = "\n".join(f"{key}({' + '.join(chr(34) + value + chr(34) for value in values)})" for key, values in pairs)
        lines = [f'[{head}("{scene.char}")\n{{\n{inner}\n}}]']
    elif draw < 0.7:
        join, equals = rng.choice(((" + ", ": "), ("; ", ": "), (" | ", " = ")))
        lines = ["[" + join.join(f"{key}{equals}{', '.join(values)}" for key, values in [("Name", [scene.char]), *pairs]) + "]"]
    else:
        lines = [f"{rng.choice(('Name', 'Full name', 'Character'))}: {scene.char}", *(f"{key}: {', '.join(values)}" for key, values in pairs)]
    return [*lines, *_loose_facts(rng, scene)]


def _loose_facts(rng: Random, scene: Scene) -> list[str]:
    return [fact.tell(rng) for fact in scene.facts if fact.kind.name not in PROPERTIES]


def _all_facts(rng: Random, scene: Scene) -> list[str]:
    return [" ".join(fact.tell(rng) for fact in scene.facts)] if scene.facts else []


def paragraph(rng: Random, scene: Scene) -> list[str]:
    """Sentences about the character, as a novel would introduce them."""
    told = [fact.tell(rng) for fact in scene.facts] + [prose(rng, scene) for _ in range(rng.randrange(0, 4))]
    rng.shuffle(told)
    where = ("{{In|Deep in} <region>, <char> {keeps|guards|runs|lives in} a {small |quiet |}<place>{.|, far from the road.}"
             "|The <place> in <region> belongs to <char>.|Everybody in <region> knows <char>{.| and the <place>.}"
             "|<char>'s <place> lies {in|at the heart of} <region>.|<char> {runs|keeps|owns} the <place> in <region>.}")  # fmt: skip
    work = "{People come to <char> because <she> works as <role>.|By day, <char> works as <role>.|They call <char> <role>.}"
    told += [expand(work, rng, scene.slots())] if scene.tells_role else []
    rng.shuffle(told)
    told[:0] = [expand(where if scene.tells_place else "{Nobody knows much about <char>.|<char> talks {little|a lot|too fast} and laughs {often|at nothing}.}", rng, scene.slots())]
    return [rng.choice(("", f"{scene.char}'s Persona: ", "## Description\n")) + " ".join(told)]


def scenario(rng: Random, scene: Scene) -> str:
    """How the user comes to be there."""
    if not scene.tells_place:
        return expand("{Scenario: |}{<user> <he_mishap>. <char> takes <user> in.|<user> meets <char> {on the road|by chance|in the rain|at a ball}."
                      "|{It is {late|three in the morning|getting dark}|It rains}, and <user> {knocks at the door|has nowhere to go}.|<char> and <user> are {old friends|alone|on the run|snowed in}.}", rng, scene.slots())  # fmt: skip
    return expand("{Scenario: |scenario: |Setting: |}{You <mishap> {while wandering|in|on your way through} <region>. <char> found you and brought you to <her> <place>{ where you are recovering|}."
                  "|<user> <he_mishap>. <char> takes <user> in, at the <place> in <region>.|{You wake up|<user> wakes up|You arrive} in <char>'s <place>, in <region>{.|, after you <mishap>.}"
                  "|<user> {visits|meets|stays with|comes to} <char> in <her> <place> in <region>.|A storm has driven <user> to the <place> in <region>, where <char> lives."
                  "|The <place> in <region>{.|, at night.|, in the rain.} <user> {has come to see <char>|knocks at the door|<he_mishap>}.}", rng, scene.slots())  # fmt: skip


NOTATIONS: dict[str, Callable[[Random, Scene], list[str]]] = {
    "lists": property_lists, "keys": key_notation, "paragraph": paragraph, "interview": _all_facts}


def describe_scene(rng: Random, scene: Scene, num_chars: int, notation: str = "") -> str:
    """The card in one of NOTATIONS (drawn if not given), with or without example dialogue, and the scenario; about
    `num_chars` at most."""
    notation = notation or rng.choice(("lists", "lists", "keys", "keys", "paragraph", "interview"))
    lines = NOTATIONS[notation](rng, scene)
    if notation == "interview" or rng.random() < 0.4:
        said = interview(rng, scene, num_chars)
        cut = 2 * rng.randrange(len(said) // 2 + 1)
        lines = [*said[:cut], *lines, *said[cut:]] if rng.random() < 0.5 else [*lines, *said]
    genre = f"Genre: {rng.choice(GENRES)}; Tags: {', '.join(rng.sample(GENRES, 2))}; " if rng.random() < 0.4 else ""
    how = scenario(rng, scene)
    return "\n".join([*lines, f"[{genre}{how}]" if genre or rng.random() < 0.4 else how])


def greet_scene(rng: Random, scene: Scene) -> str:
    """The first message: the scene as the user meets it, in actions and speech."""
    slots = {**scene.slots(), "flourish": flourish(rng, scene)}
    slots["place"] = scene.place if scene.tells_place else "room"
    wake = expand("{You wake {up |}{with a start|slowly}{|, recalling how you <mishap>}|The door of the <place> opens|It is quiet in the <place>|You open your eyes}. {{The light|A soft glow} fills the <place>.|}", rng, slots)
    said = [expand("{Ah, you are awake at last|There you are|You came|Easy now|Welcome}{.|, <user>.} {I was so worried.|I was so worried, I found you after you <mishap>.|It is good to see you.|I did not expect you so soon.|}", rng, slots)]
    if scene.tells_role and rng.random() < 0.6:
        said.append(expand("{The name is|The name's|I am|My name is} <char>, <role>.", rng, slots))
    said.append(expand("{How are you feeling?|You are safe here.|Please rest.|What do you want?}", rng, slots))
    end = f" *{expand('<char> <flourish>.', rng, slots)}*" if rng.random() < 0.5 else ""
    more = f' "{prose(rng, scene)}"' if rng.random() < 0.5 else ""
    return f'*{wake.strip()}* "{" ".join(" ".join(said).split())}"{end}{more}'
