# ruff: noqa: E501 (templates are read one to a line)
"""Cards of thousands of tokens, most of them example dialogue: the character's name stands in labels, properties and
narration, between sentences of words that the rest of the training text does not use.

What is learnt from them is to find the name, the place and the role again in all of that.
"""

from collections.abc import Iterator, Mapping
from random import Random

from tools.demo_model import words
from tools.demo_model.grammar import DRAWN, expand
from tools.demo_model.phrases import INTENTS
from tools.demo_model.scenes import (
    QUALITIES,
    Scene,
    character_name,
    describe_scene,
    flourish,
    invented,
    murmur,
    prose,
    scenario,
)

CHARS_PER_TOKEN = 2.7
"""Of these cards; their words are rare."""

NOUNS = tuple(
    """abyss, ache, altar, amulet, anger, anvil, archive, armour, arrow, ash, aura, avalanche, balance, banner, battle, beacon,
blade, blessing, blizzard, blossom, bones, branches, breath, bridge, brilliance, burden, caress, catastrophe, cathedral, ceremony,
champion, childhood, choir, cliff, clockwork, comfort, companion, conscience, constellation, corridor, courage, creature, crystal,
curiosity, curse, curtain, darkness, daughter of the tide, daylight, destiny, devotion, distance, dream, duty, dwelling, echo, embers,
embrace, emptiness, enchantment, engine, essence, eternity, exile, expression, faith, fate, fingertips, flame, fountain, fragrance,
freedom, frost, fury, gaze, gentleness, gesture, glimmer, grace, gratitude, graveyard, grief, guilt, harmony, harvest, healing, heartbeat,
heritage, horizon, hunger, illusion, incense, instinct, ivy, journey, joy, judgement, justice, kindness, knowledge, labyrinth, laughter,
legend, lightning, loneliness, longing, loyalty, lullaby, machinery, majesty, malice, marble, memory, mercy, midnight sky, miracle, mischief,
moonlight, moss, murmur, mystery, nectar, nightmare, oath, oblivion, orchard, pain, patience, peace, perfume, petals, pilgrim, plague,
poison, portrait, prayer, presence, promise, prophecy, pulse, quest, radiance, rebellion, reflection, refuge, regret, remorse, rhythm, ritual,
river, roots, rumour, sacrifice, sadness, sanctuary, sapphire, satin, scar, secret, serenity, shadow, shelter, shimmer, shoulder, sigh, silence,
solitude, song, sorrow, soul, spell, splendour, starlight, steam, storm, strength, struggle, sunlight, sword of glass, symphony, temptation,
tenderness, threshold, throne, thunder, touch, tranquillity, treachery, treasure, tremor, truth, twilight, vapour, velvet, vengeance, victory,
vigil, vision, voice, warmth, waterfall, whisper, wilderness, wisdom, wound, wreath, yearning""".replace(
        "\n", " "
    ).split(", ")
)
ADJECTIVES = tuple(
    """abandoned, aching, amber, ancestral, anxious, astonishing, barren, beloved, bewildered, bitter, bleeding, blinding,
bloodstained, boundless, breathless, brittle, caring, cautious, ceaseless, celestial, colossal, crimson, cruel, crystalline, dazzling, delicate,
desolate, desperate, dignified, distant, divine, drowsy, eager, earthen, eerie, elaborate, enormous, eternal, exhausted, exquisite, faded,
faithful, familiar, feathery, fierce, flickering, forbidden, fragile, fragrant, frantic, genuine, ghostly, gleaming, glorious, glowing, grateful,
harmless, hesitant, hoarse, hushed, immense, innocent, intricate, invisible, ivory, jagged, lavish, lingering, luminous, lush, melodious,
merciless, mortal, murky, noble, obscure, otherworldly, pearly, perilous, phantom, piercing, playful, precious, pristine, profound, radiant,
ravenous, relentless, restless, sapphire, scarlet, scattered, seductive, shattered, shimmering, sincere, sinister, slender, solemn, soothing,
sparkling, spectral, splendid, steadfast, sublime, supple, tattered, tender, thunderous, timeless, tireless, tranquil, translucent, treacherous,
trembling, unbearable, uncertain, unspoken, vast, velvety, verdant, vibrant, vigilant, vivid, vulnerable, weary, weathered, whispering, wicked,
wistful, withered, wondrous""".replace("\n", " ").split(", ")
)
VERBS = tuple(
    """abandoned, awakened, banished, battled, betrayed, blessed, broke, buried, carried, cherished, claimed, comforted, conquered,
consumed, corrupted, cradled, crushed, cursed, deceived, defended, devoured, drained, embraced, enchanted, endured, entwined, envied, escaped,
extinguished, faced, forged, forsook, gathered, glimpsed, guided, haunted, healed, honoured, hunted, illuminated, inherited, invoked, kindled,
lifted, mended, mourned, nourished, overcame, plundered, protected, pursued, ravaged, restored, revealed, revived, sensed, shattered, sheltered,
shielded, shrouded, silenced, soothed, stirred, summoned, surrendered, swallowed, tended, touched, traced, tracked, unravelled, vanquished,
veiled, wandered, warmed, warned, welcomed, wielded, withstood, witnessed, worshipped, wounded, yielded""".replace(
        "\n", " "
    ).split(", ")
)
ADVERBS = tuple(
    """absently, anxiously, barely, bravely, carefully, ceaselessly, cheerfully, deliberately, desperately, eagerly, effortlessly,
endlessly, eventually, faintly, fiercely, finally, forever, fully, gently, gracefully, gradually, hastily, hesitantly, hoarsely, instantly,
intently, knowingly, lightly, longingly, lovingly, merrily, mournfully, nervously, nevertheless, patiently, peacefully, playfully, politely,
precisely, quietly, rapidly, recently, reluctantly, sadly, shyly, silently, solemnly, soothingly, steadily, suddenly, tenderly, thoroughly,
truly, unbearably, uneasily, warmly, wearily, wistfully""".replace("\n", " ").split(", ")
)

ACTIONS = (
    "{<char>'s|<her>} {<adj> |}{eyes|hands|fingers|lips|features} {<adv> |}{glow|tremble|soften|tighten|sparkle|linger|darken} {with <noun>|as <she> speaks of the <noun>|like <adj> <noun>}",
    "{<char>|<she>} {<adv> |}{strokes|clasps|lifts|caresses|studies|raises|releases|traces} {your <noun>|the <adj> <noun>|<her> own <noun>|a <noun> of <adj> <noun>}{, {her|his} <noun> {<adj>|full of <noun>}|}",
    "{With a <adj> <noun>|<adv>, without a word|For a <adj> moment}, {<char>|<she>} {kneels|rises|turns away|draws nearer|hesitates|shakes <her> head|exhales}{ and the <noun> seems <adj>| as if the <noun> had <verb> <her>|}",
    "{<char>|<she>} {laughs|sighs|nods|shivers|hums|whispers}, {a <adj> sound|<her> voice <adj>|<adv>}{, and <adv> {waves|points|gestures} towards the <noun>|}",
    "{<her>|<char>'s} {expression|smile|tone|gaze} {grows|turns|becomes} <adj>{ at the mention of the <noun>|, almost <adj>|}",
)
SPEECH = (
    "{The <noun> of <invented>|This <adj> <noun>|My <noun>|Their <noun>} {has <verb>|<verb>|once <verb>} {me|us all|every <noun>|the <adj> <noun>}{.|, and the <noun> is <adj> still.|, {<adv>|bit by bit}, until nothing but <noun> remained.}",
    "{I have|I've|We have} <verb> {the <noun>|many a <noun>|<adj> <noun> and <adj> <noun>} {since I was small|for longer than I care to say|beyond the <noun>}{.|, yet I'm {<adj>|not <adj>}.|; it's {<adj>|what the <noun> demands}.}",
    "{Don't|You needn't|Never} {fear|mourn|forget} the <noun>{, it's only <adj> <noun>|}. {There's|You'll find} <noun> in {<noun>|every <adj> <noun>}{.|, if you're <adj> enough.}",
    "{Long before the <noun>|In those <adj> days|When the <noun> came}, <invented> {was <adj>|knew <noun> and <noun>|<verb> the <noun>}{.|, and {creatures|children|travellers} {wandered|sang|slept} <adv> beneath its <noun>.}",
    "{It was|It's} the <noun> that <verb> {<invented>|the <adj> <noun>|my people}{.|. {Its|Such} <noun> is <adj>, its <noun> {<adj>|without end}.}",
    "{So I|That's why I|And therefore I} <verb> {the <noun>|this <adj> <noun>}{,| <adv>,} {and you're welcome to its <noun>|for <noun> is {all I've got|<adj>}|so that no <noun> could harm it}.",
    "{If only|Perhaps|Who knows whether} the <noun> {will|could} {mend|linger|return|fade} <adv>{...|?|, like <noun> in the <noun>.}",
)
QUESTIONS = (
    "{What|Who} <verb> {the <noun>|your <noun>|<invented>}?",
    "{Do you|Can you} {feel|remember|understand} the <adj> <noun>?",
    "Why is {your|the} <noun> so <adj>?",
    "{Tell me about|What of|I've heard of} {the <noun>|your <noun>|<invented>|the <adj> <noun>}{?|, please.|.}",
    "You seem <adj>. Is it the <noun>?",
    "{Will|Could} you {show|teach|give} me the <noun>?",
)


WORDS = {"noun": NOUNS, "adj": ADJECTIVES, "adv": ADVERBS, "verb": VERBS}


class RareWords(Mapping[str, str]):
    """The slots of the templates above: the words, and names that are nobody's, are drawn anew at each place."""

    def __init__(self, rng: Random, scene: Scene) -> None:
        self.rng, self.scene = rng, scene
        self.fixed = {"char": scene.char, "she": scene.she.lower(), "her": scene.her}

    def __getitem__(self, name: str) -> str:
        if name in WORDS:
            return self.rng.choice(WORDS[name])
        return self._name() if name == "invented" else self.fixed[name]

    def _name(self) -> str:
        draw = self.rng.random()
        return (
            self.scene.realm
            if draw < 0.4
            else character_name(self.rng)
            if draw < 0.6
            else invented(self.rng)
        )

    def __iter__(self) -> Iterator[str]:
        return iter((*WORDS, *self.fixed, "invented"))

    def __len__(self) -> int:
        return len(WORDS) + len(self.fixed) + 1


def sentence(rng: Random, scene: Scene, templates: tuple[str, ...]) -> str:
    """One of the templates, with rare words."""
    text = expand(rng.choice(templates), rng, RareWords(rng, scene))
    return text[0].upper() + text[1:]


def spoken(rng: Random, scene: Scene, first: str, num_chars: int) -> str:
    """A reply of example dialogue: actions and speech by turns, up to about `num_chars`."""
    parts, said = [], [first]
    while sum(map(len, parts)) + sum(map(len, said)) < num_chars:
        draw = rng.random()
        if draw < 0.45:
            said.append(sentence(rng, scene, SPEECH))
        elif draw < 0.6:
            said.append(murmur(rng) if rng.random() < 0.2 else prose(rng, scene))
        else:
            parts += [f'"{" ".join(said)}"'] if said else []
            action = (
                sentence(rng, scene, ACTIONS)
                if rng.random() < 0.75
                else f"{rng.choice((scene.char, scene.she))} {flourish(rng, scene)}"
            )
            parts.append(f"*{action}.*")
            said = []
    return " ".join([*parts, *([f'"{" ".join(said)}"'] if said else [])])


def _exchange(rng: Random, scene: Scene) -> tuple[str, str]:
    """What the user asks in example dialogue, and how the answer begins."""
    draw = rng.random()
    if draw < 0.15 and scene.facts:
        fact = rng.choice(scene.facts)
        return fact.ask(rng), fact.answer(rng)
    if draw < 0.3:
        if scene.tells_role and rng.random() < 0.5:
            return "What do you do?", f"I am {scene.role}."
        return (
            ("What is this place?", f"This is my {scene.place}.")
            if scene.tells_place
            else ("Do you like it here?", "There are worse places.")
        )
    if draw < 0.45:
        ask, reply = INTENTS[
            rng.choice(
                (
                    "thanks",
                    "how_are_you",
                    "danger",
                    "rumour",
                    "story",
                    "help",
                    "like",
                    "secret",
                    "compliment",
                )
            )
        ]
        slots = {
            **scene.slots(),
            "other": words.person(rng),
            "relation": rng.choice(words.RELATIONS),
            "char": "friend",
        }
        slots |= {name: draw_word(rng) for name, draw_word in DRAWN.items()}
        return expand(rng.choice(ask), rng, slots), expand(rng.choice(reply), rng, slots)
    return sentence(rng, scene, QUESTIONS), sentence(rng, scene, SPEECH)


def _examples(rng: Random, scene: Scene, num_chars: int) -> list[str]:
    lines: list[str] = []
    quoted, length = rng.random() < 0.7, rng.choice((200, 400, 700, 1100))
    while (room := num_chars - sum(map(len, lines))) > 0:
        ask, first = _exchange(rng, scene)
        lines += ["<START>"] if rng.random() < 0.3 else []
        lines.append(f'{scene.user}: "{ask}"' if quoted else f"{scene.user}: {ask}")
        lines.append(
            f"{scene.char}: {spoken(rng, scene, first, min(room, int(length * (0.5 + rng.random()))))}"
        )
    return lines


def _history(rng: Random, scene: Scene, num_chars: int) -> list[str]:
    """Paragraphs about the past, with few mentions of the name."""
    lines: list[str] = []
    while sum(map(len, lines)) < num_chars:
        told = [
            sentence(rng, scene, SPEECH + ACTIONS).rstrip(".") + "."
            for _ in range(rng.randrange(3, 9))
        ]
        lines.append(" ".join(told))
    return lines


def describe_at_length(rng: Random, scene: Scene, num_chars: int) -> str:
    """A card of about `num_chars`: one of `scenes`, long example dialogue or history before or after it, the scenario."""
    card = describe_scene(
        rng, scene, 0, rng.choice(("lists", "lists", "keys", "paragraph", "interview"))
    )
    rest = max(0, num_chars - len(card))
    history = (
        _history(rng, scene, int(rest * rng.choice((0.3, 0.6, 0.9)))) if rng.random() < 0.25 else []
    )
    examples = _examples(rng, scene, rest - sum(map(len, history)))
    parts = [[card], history, examples]
    rng.shuffle(parts)
    end = [scenario(rng, scene)] if rng.random() < 0.3 else []
    traits = (
        [f"[{scene.char}'s personality= {', '.join(rng.sample(QUALITIES, 8))}]"]
        if rng.random() < 0.2
        else []
    )
    return "\n".join([line for part in (*parts, traits, end) for line in part])
