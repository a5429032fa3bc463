# ruff: noqa: E501 (lists are read, not diffed)
"""Word lists of the training text, all written for this project.

Names are partly made of syllables, so that there are far more of them than the network could learn by heart: what a reply
says about a name can only come from the context.
"""

from random import Random


def _split(text: str) -> list[str]:
    """Comma-separated entries; line breaks count as blanks."""
    return [" ".join(part.split()) for part in text.split(",")]


NAMES = _split("""Ada, Agnes, Albert, Alda, Alice, Anna, Anselm, Arno, Astrid, Barnaby, Bea, Bella, Benno, Berta, Bram,
Brida, Bruno, Carla, Caspar, Cecily, Clara, Conrad, Cora, Dagmar, Daisy, Daniel, Dora, Edda, Edgar, Edwin, Elena, Elias,
Elsa, Emil, Emma, Ernest, Esther, Eva, Falk, Felix, Fiona, Flora, Frida, Gareth, Gerda, Gilbert, Greta, Gustav, Hanna,
Harald, Hazel, Hedda, Helga, Henry, Hilda, Hugo, Ida, Igor, Ines, Ingrid, Irma, Isaac, Ivo, Jacob, Jana, Jasper, Joan,
Jonas, Josef, Judith, Julia, Karl, Kaspar, Katrin, Kora, Lars, Laura, Leo, Leona, Lilian, Linus, Lotte, Lucas, Lucy,
Ludwig, Luna, Magda, Marcus, Margot, Marta, Matilda, Maud, Max, Mira, Moritz, Nadia, Nell, Nico, Nils, Nora, Odo, Olaf,
Olga, Oscar, Otto, Paula, Peter, Petra, Philip, Quentin, Ralph, Rhea, Richard, Rita, Robert, Roland, Rosa, Rufus, Ruth,
Sam, Sara, Selma, Silas, Simon, Sofia, Stella, Sven, Tessa, Theo, Thomas, Tilda, Tobias, Tom, Ulrich, Ursula, Valentin,
Vera, Victor, Viola, Walter, Wanda, Wilma, Wolf, Yara, Yvonne, Zelda""")
NAME_HEADS = _split("""Al, An, Ar, Bel, Bor, Bran, Cal, Car, Cor, Dal, Dor, Dra, El, Er, Fal, Fen, Fin, Gal, Gar, Gwen,
Hal, Hol, Is, Jor, Kal, Kel, Kor, Lan, Lir, Lor, Mal, Mar, Mel, Mor, Nal, Ner, Nim, Or, Per, Quil, Ral, Ren, Ril, Ros,
Sel, Ser, Sil, Tal, Tam, Ter, Tor, Ul, Val, Ver, Vin, Wen, Wil, Yor, Zan, Zor""")
NAME_TAILS = _split("""a, ada, aline, an, anna, aphina, ara, aric, as, bert, da, dan, dor, dra, eth, ette, ga, gan, ia, ian,
ick, iel, ik, in, ina, ion, is, ith, lin, lo, mar, mund, na, nar, nia, o, on, or, ora, ra, ric, rin, ro, sa, sin, ta, ten,
thea, tin, tor, us, va, van, vin, wen, win, wyn""")
TOWN_HEADS = _split("""Alder, Amber, Ash, Barrow, Birch, Black, Bright, Broad, Cold, Copper, Crow, Dun, East, Elder, Fair,
Fen, Fox, Gold, Grey, Hare, Hawk, High, Iron, Kings, Lark, Long, Marsh, Mill, Moss, North, Oak, Old, Otter, Raven, Red,
Rook, Salt, Sand, Silver, South, Stone, Swan, Thorn, Under, West, White, Wild, Willow, Winter, Wolf""")
TOWN_TAILS = _split("""barrow, beck, borough, bridge, brook, burn, bury, castle, cliff, combe, cross, dale, den, field, ford,
gate, glen, grove, ham, haven, hill, hollow, holm, hurst, keep, lake, ley, march, mere, mill, moor, mouth, pool, port, reach,
ridge, shore, stead, stone, stow, ton, vale, wall, water, well, wick, wood, worth""")
WORD_HEADS = _split("bli, bra, chi, cro, dre, fla, fro, gli, gru, hes, jal, kna, lum, mi, nor, pla, qui, ru, sna, tro, u, vel, "
                    "wis, yo, ze, osk, tam, pel, dor, ga")
WORD_TAILS = _split("bble, ck, dder, ffin, ggle, kle, lm, mble, ndle, nk, pper, rble, rk, sk, ster, tch, vin, wick, zzle, mmet, "
                    "rrow, lo, sha, tan")

COLOURS = _split("""amber, black, blue, bronze, brown, copper, cream, crimson, gold, green, grey, indigo, ivory, lilac,
orange, pink, purple, red, rust, scarlet, silver, turquoise, violet, white, yellow""")
ADJECTIVES = _split("""ancient, battered, bent, big, bright, broken, carved, chipped, clean, cracked, curious, dented, dusty,
fine, forgotten, heavy, hollow, little, long, lost, lucky, muddy, narrow, new, odd, old, painted, patched, plain, polished,
round, rusty, shiny, short, small, spare, stolen, strange, tall, thick, thin, tiny, torn, warm, wet, wide, wooden, worn""")
ITEMS = _split("""anchor, apron, axe, bag, barrel, basket, bell, belt, blanket, book, boot, bottle, bowl, box, bracelet, broom,
brush, bucket, candle, cane, cap, chain, chair, chest, clock, cloak, coat, comb, compass, cup, dagger, drum, fan, feather,
fiddle, flag, flask, flute, glove, hammer, harp, hat, helmet, hook, horn, jar, jug, kettle, key, knife, ladder, lamp,
lantern, letter, lock, lute, map, mask, medal, mirror, mug, needle, net, oar, painting, parcel, pen, pillow, pipe, plate,
pot, purse, quilt, ribbon, ring, rope, saddle, scarf, scroll, seal, shawl, shield, shoe, shovel, spade, spoon, stool, sword,
tray, trunk, vase, violin, wheel, whistle""")
SPOTS = _split("""in the cellar, in the attic, in the stable, in the kitchen, in the barn, in the garden, in the yard,
in the hall, in the pantry, in the chapel, in the tower, in the mill, in the forge, in the bakery, in the well,
in the hayloft, in the cupboard, in the oven, in the boathouse, in the greenhouse, behind the bar, behind the curtain,
behind the shed, behind the piano, under the bed, under the stairs, under the table, under the bridge, under the rug,
under the oak, on the roof, on the shelf, on the windowsill, on the balcony, on the cart, on the mantel, by the door,
by the fire, by the gate, by the river, by the fountain, near the market, near the pond, beside the woodpile,
at the smithy, at the ferry, at the crossroads, inside the clock, inside the wardrobe, above the door""")
FOODS = _split("""apple pie, baked trout, barley soup, bean stew, beef stew, black bread, blackberry tart, boiled eggs,
bread pudding, buttered turnips, cabbage soup, cheese pie, cherry cake, chicken broth, fish stew, fried onions, garlic bread,
ginger cake, goat cheese, honey cake, lamb roast, leek soup, lentil soup, mushroom pie, mutton pie, nut bread, oat porridge,
onion soup, pancakes, pea soup, pear tart, pickled herring, plum cake, pork roast, potato soup, pumpkin soup, rabbit stew,
rice pudding, roast chicken, roast duck, rye bread, salmon pie, sausages, smoked eel, sweet buns, turnip stew, venison,
walnut cake""")
DRINKS = _split("""apple juice, barley water, black tea, brown ale, buttermilk, cider, cold milk, dark beer, elderberry wine,
ginger beer, goat milk, green tea, honey mead, hot chocolate, lemon water, mint tea, mulled wine, pale ale, pear cider,
plum brandy, red wine, rose tea, spiced rum, white wine""")
TRADES = _split("""archer, baker, barber, beekeeper, blacksmith, bookbinder, brewer, butcher, candlemaker, carpenter, carter,
clerk, cobbler, cook, cooper, doctor, dyer, farmer, ferryman, fiddler, fisher, gardener, glassblower, goldsmith, guard,
hatter, healer, herbalist, hunter, judge, juggler, knight, lacemaker, locksmith, mason, merchant, messenger, miller, miner,
monk, painter, pedlar, piper, pirate, poet, potter, priest, ranger, roofer, sailor, scholar, scribe, sheriff, shepherd,
singer, smuggler, soldier, spy, tailor, tanner, teacher, thief, tinker, trapper, weaver, wizard, woodcutter""")
ANIMALS = _split("""badger, bear, beaver, cat, cow, crow, deer, dog, donkey, duck, eagle, falcon, ferret, fox, frog, goat,
goose, hare, hawk, hedgehog, hen, horse, lamb, lizard, mole, mouse, mule, newt, otter, owl, ox, parrot, pig, pigeon, pony,
rabbit, rat, raven, robin, rooster, sheep, snake, sparrow, spider, squirrel, swan, toad, tortoise, weasel, wolf""")
BUILDINGS = _split("""abbey, armoury, attic, bakery, barn, bathhouse, boathouse, brewery, castle, cave, cellar, chapel, crypt,
fort, gatehouse, granary, greenhouse, guardhouse, harbour, library, lighthouse, mill, mine, monastery, museum, observatory,
orchard, palace, prison, quarry, school, shipyard, smithy, stable, temple, theatre, tower, vault, vineyard, warehouse,
watchtower, workshop""")
LOCKED = _split("""bookcase, cabinet, cage, casket, cellar door, chest, coffer, cupboard, desk, drawer, front gate,
garden gate, hatch, iron box, jewel box, locker, money box, north gate, oak box, safe, side door, stable door, strongbox,
tower door, trunk, vault, wall safe, wine cellar""")
VEHICLES = _split("""barge, black coach, canal boat, coal train, ferry, fishing boat, grain cart, green coach, hay wagon,
mail coach, market boat, milk cart, morning coach, night coach, north coach, post rider, red coach, river boat, south coach,
stage coach, stone cart, supply wagon, trade caravan, wool wagon""")
TIMES = _split("""noon, midnight, dawn, dusk, sunrise, sunset, one, two, three, four, five, six, seven, eight, nine, ten,
eleven, half past four, half past six, half past nine, a quarter to three, a quarter to eight""")
DAYS = _split("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
MONTHS = _split("January, February, March, April, May, June, July, August, September, October, November, December")
LIKES = _split("""acorns, bells, berries, bonfires, books, buttons, candles, card games, cheese, chess, cherries, church music,
coins, cold mornings, dancing, dice, dumplings, fairs, feathers, fishing, flowers, fog, gardens, ghost stories, gossip,
honey, jokes, kites, long walks, maps, mushrooms, old songs, parades, plums, poetry, puzzles, rain, riddles, riding, roses,
sea shells, silence, silk, snow, sailing, stars, strawberries, swimming, tea, thunder, whistling, winter""")
FEARS = _split("""bats, bears, bees, cats, cellars, clowns, crowds, darkness, deep water, dogs, dragons, fire, frogs, geese,
ghosts, heights, horses, lightning, mice, mirrors, moths, owls, rats, snakes, spiders, storms, tunnels, wasps, wells,
wolves""")
RELATIONS = _split("""aunt, brother, cousin, daughter, father, friend, grandfather, grandmother, mother, nephew, neighbour,
niece, partner, sister, son, uncle, teacher, master, apprentice, cook""")
INN_SIGNS = _split("""Lantern, Stag, Goose, Kettle, Barrel, Anchor, Fox, Plough, Boar, Swan, Hare, Crown, Wheel, Star, Bell,
Pheasant, Trout, Oak, Rose, Hound, Mug, Moon, Hearth, Raven""")
HAIR = _split("black, blond, brown, copper, curly, dark, fair, golden, grey, long, pale, pink, red, short, silver, straight, "
              "wavy, white")
TRAITS = _split("""blunt, brave, calm, careful, caring, cheerful, clever, curious, dreamy, fair, friendly, funny, gentle, grumpy,
honest, humble, jolly, kind, lazy, loud, loyal, merry, modest, patient, polite, practical, proud, quiet, sharp, shy, sly,
stern, stubborn, talkative, thoughtful, warm, watchful, wise, witty""")
WEATHER = _split("cold, rainy, windy, foggy, sunny, snowy, stormy, mild, wet, grey, warm, frosty")


def person(rng: Random) -> str:
    """A first name, made of syllables more often than not."""
    if rng.random() < 0.4:
        return rng.choice(NAMES)
    return rng.choice(NAME_HEADS) + rng.choice(NAME_TAILS)


def town(rng: Random) -> str:
    return rng.choice(TOWN_HEADS) + rng.choice(TOWN_TAILS)


def strange_word(rng: Random) -> str:
    return rng.choice(WORD_HEADS) + rng.choice(WORD_TAILS)


def thing(rng: Random) -> str:
    """An item with an adjective or a colour: over ten thousand of them."""
    first = ADJECTIVES if rng.random() < 0.7 else COLOURS
    return f"{rng.choice(first)} {rng.choice(ITEMS)}"


def number(rng: Random, digits: int) -> str:
    return str(rng.randrange(10 ** (digits - 1), 10**digits))


def inn(rng: Random) -> str:
    return f"the {rng.choice(ADJECTIVES + COLOURS).title()} {rng.choice(INN_SIGNS)}"
