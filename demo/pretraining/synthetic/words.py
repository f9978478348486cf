"""Word lists that the generators share, as plain tuples."""


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.replace("\n", " ").split(",") if part.strip())


FIRST_NAMES = _split("""
Ada, Adam, Agnes, Ahmed, Aisha, Alan, Alba, Alice, Amir, Amy, Ana, Andrew, Anna, Anton, Arthur, Aya, Ben, Bella, Boris,
Brenda, Carl, Carla, Carmen, Cecil, Chen, Chloe, Clara, Colin, Dana, Daniel, David, Diana, Dora, Edith, Edward, Elena,
Elias, Ella, Emil, Emma, Eric, Esther, Eva, Farid, Felix, Fiona, Frank, Freya, Gavin, George, Grace, Greta, Hana,
Harold, Harry, Hassan, Helen, Henry, Hugo, Ian, Ida, Ines, Irene, Isaac, Ivan, Ivy, Jack, James, Jane, Jasmin, Joan,
John, Jonas, Julia, Karim, Kate, Keiko, Kenji, Laila, Laura, Leo, Lily, Linda, Louis, Lucia, Lucy, Luke, Maja, Maria,
Mark, Martha, Martin, Mary, Maya, Mei, Mia, Miguel, Mina, Mira, Mohamed, Monica, Nadia, Nina, Noah, Nora, Olga, Oliver,
Omar, Oscar, Otto, Paul, Paula, Peter, Petra, Pia, Priya, Rahul, Ravi, Rita, Robert, Rosa, Ruth, Sam, Sara, Sofia,
Simon, Stella, Sunil, Susan, Tara, Thomas, Tina, Tom, Uma, Vera, Victor, Wei, William, Yara, Yusuf, Zoe""")
FEMALE_NAMES = _split("""
Agnes, Alice, Amy, Carmen, Chloe, Edith, Esther, Grace, Helen, Ines, Irene, Ivy, Jane, Jasmin, Joan, Kate, Keiko, Lily,
Lucy, Mary, Mei, Ruth, Susan, Zoe""")
FOODS = _split("""
Greek, Mexican, Thai, Turkish, Spanish, Korean, Lebanese, Vietnamese, Moroccan, Polish, Portuguese, Ethiopian, Peruvian,
American, Swedish, Irish, Cuban, Persian, Hungarian, Brazilian, Indian, Italian, Chinese, French, English, Japanese,
vegetarian, vegan, seafood, Scottish, German, Danish""")
DISHES = _split("""
fish pie, pizza, noodles, tomato soup, roast chicken, pancakes, apple cake, curry, dumplings, lamb stew, fresh salads,
grilled fish, burgers, tacos, mushroom risotto, onion soup, cheese toast, rice bowls, lemon tart, sandwiches, pasta,
steak, waffles, scones, falafel, paella, meatballs, baked potatoes""")
PLACE_KINDS = _split("""
restaurant, pub, café, coffee shop, bar, bistro, tea room, diner, wine bar, bakery, pizzeria, grill, inn, tavern,
coffee house, snack bar, steakhouse, brasserie""")
AREAS = _split("""
city centre, riverside, old town, harbour, town centre, station quarter, university district, west end, east end,
business district, suburbs, market quarter, theatre district, docklands, fishing quarter, garden district,
new town, village centre""")
ADJECTIVES = _split("""
old, quiet, golden, blue, red, green, white, silver, happy, hidden, little, wild, royal, lucky, sleepy, brave, black,
merry, copper, broken, bright, lonely, crooked, gentle, proud, velvet, rusty, wandering, iron, noble, dancing, salty""")
THINGS = _split("""
lion, anchor, oak, mill, bell, crown, heron, fox, barrel, kettle, lantern, rose, swan, wagon, spoon, garden, ship, bear,
bridge, castle, dove, feather, harp, hound, key, moon, owl, pear, plough, raven, stag, star, thistle, tower, wheel,
willow, basket, cellar, lemon, olive, pepper, table, orchard, compass, drum, mermaid, clock, candle, otter, badger""")
COLOURS = _split(
    "red, blue, green, black, white, grey, silver, brown, yellow, orange, pink, purple, navy, cream"
)
MATERIALS = _split(
    "steel, oak, cotton, wool, leather, glass, plastic, bamboo, aluminium, linen, rubber, clay, "
    "pine"
)
PRODUCTS = _split("""
kettle, lamp, backpack, jacket, phone, camera, chair, desk, mug, blanket, umbrella, toaster, watch, speaker, tent,
bicycle, helmet, knife, pillow, radio, printer, keyboard, mattress, suitcase, heater, blender, vase, scarf, torch,
wallet, clock, drill, kayak, mirror, notebook, oven, piano, rug, scooter, shelf, stool, tablet, vacuum cleaner, mouse""")
SHOPS = _split("""
bookshop, florist, butcher, pharmacy, toy shop, shoe shop, music shop, hardware store, garden centre, bike shop,
second-hand shop, jeweller, pet shop, sports shop, grocery, antique shop, stationery shop, cheese shop, barber""")
JOBS = _split("""
nurse, teacher, baker, engineer, driver, gardener, painter, lawyer, cook, plumber, dentist, pilot, farmer, librarian,
architect, carpenter, journalist, mechanic, photographer, accountant, translator, electrician, editor, tailor, vet,
designer, waiter, judge, musician, fisherman, chemist, programmer, cashier, sailor, optician, actor""")
COUNTRIES = _split("""
France, Spain, Italy, Poland, Norway, Sweden, Kenya, Egypt, India, Japan, Brazil, Peru, Chile, Canada, Ireland, Greece,
Turkey, Ghana, Nepal, Vietnam, Mexico, Austria, Finland, Iceland, Morocco, Portugal, Scotland, Wales, Hungary""")
ANIMALS = _split("""
dog, cat, horse, goat, parrot, rabbit, tortoise, pony, hamster, donkey, sheep, duck, goose, lizard, hen, pig, turtle,
mouse, camel, llama, snake, frog, ferret, canary, lamb, cow, pigeon, falcon, seal, penguin""")
FRUITS = _split(
    "apple, pear, plum, cherry, lemon, orange, banana, grape, peach, mango, fig, melon, kiwi, "
    "apricot, lime"
)
VEGETABLES = _split(
    "carrot, onion, potato, bean, pea, leek, cabbage, spinach, turnip, tomato, pepper, radish, "
    "garlic, celery"
)
TOOLS = _split(
    "hammer, saw, drill, spade, rake, axe, wrench, screwdriver, chisel, pliers, shovel, file, "
    "ladder, brush"
)
INSTRUMENTS = _split(
    "piano, violin, flute, drum, guitar, harp, trumpet, cello, organ, banjo, clarinet, oboe, viola"
)
CLOTHES = _split(
    "coat, shirt, hat, scarf, glove, sock, dress, jacket, belt, boot, skirt, jumper, cap, vest, tie"
)
VEHICLES = _split(
    "car, bus, train, ship, tram, truck, bicycle, van, ferry, plane, tractor, taxi, boat, "
    "scooter, canoe"
)
FURNITURE = _split(
    "table, chair, bed, sofa, desk, shelf, stool, wardrobe, bench, cupboard, cabinet, armchair, "
    "couch"
)
BODY = _split(
    "hand, foot, knee, elbow, shoulder, nose, ear, eye, finger, toe, neck, ankle, wrist, chin, "
    "tongue"
)
SUBJECTS = _split("""
history, chemistry, drawing, French, Spanish, pottery, physics, cooking, biology, photography, creative writing,
mathematics, singing, gardening, computing, first aid, sewing, philosophy, economics, chess, swimming, yoga, accounting""")
GENRES = _split("""
crime, romance, fantasy, horror, comedy, adventure, science fiction, historical, detective, war, travel, mystery""")
SPORTS = _split(
    "football, rugby, hockey, basketball, handball, volleyball, cricket, water polo, netball, "
    "baseball"
)
WEATHER = _split(
    "sunny, cloudy, rainy, foggy, windy, stormy, snowy, dry, misty, overcast, frosty, humid, "
    "clear, showery"
)
DAYS = _split("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
MONTHS = _split("""
January, February, March, April, May, June, July, August, September, October, November, December""")
LANGUAGES = _split(
    "English, French, German, Spanish, Italian, Arabic, Polish, Hindi, Turkish, Swedish, Dutch, "
    "Greek"
)
INGREDIENTS = _split("""
flour, butter, sugar, eggs, milk, rice, onions, garlic, tomatoes, cheese, lentils, chicken, potatoes, carrots, cream,
mushrooms, spinach, lemon, ginger, beans, honey, oats, apples, salt, basil, yoghurt, almonds, pepper""")
COMMON_NOUNS = _split("""
answer, bag, ball, bottle, box, branch, bread, button, card, chain, circle, cloud, coin, corner, cup, door, dream, dust,
edge, engine, fence, field, fire, flag, floor, flower, forest, gate, gift, glass, grass, hill, hole, house, island,
jar, journey, ladder, lake, leaf, letter, light, line, map, meadow, minute, morning, mountain, needle, night, ocean,
paper, path, pencil, picture, plate, pocket, pond, question, rain, ribbon, ring, river, road, rock, roof, room, root,
rope, sand, school, seed, shadow, shoe, silence, sister, smoke, song, stone, storm, story, street, string, summer, sun,
thread, ticket, train, tree, valley, village, voice, wall, water, wave, wind, window, winter, wood, word, year""")
OPPOSITES = tuple(
    (pair.partition("/")[0], pair.partition("/")[2])
    for pair in _split("""
hot/cold, big/small, old/new, fast/slow, early/late, high/low, open/closed, full/empty, light/dark, rich/poor,
happy/sad, hard/soft, wet/dry, long/short, near/far, clean/dirty, cheap/expensive, strong/weak, loud/quiet,
thick/thin, safe/dangerous, easy/difficult, first/last, right/wrong, heavy/light, sharp/blunt, wide/narrow,
true/false, deep/shallow, sweet/sour, before/after, always/never, buy/sell, come/go, win/lose, push/pull, begin/end,
arrive/leave, love/hate, remember/forget, up/down, inside/outside, day/night, friend/enemy, north/south""")
)
