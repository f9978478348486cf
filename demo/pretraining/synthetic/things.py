"""Things, animals and plants: products, vehicles, recipes, pets, flowers."""

from random import Random

from edgeprefix.demo.pretraining.synthetic import names, words
from edgeprefix.demo.pretraining.synthetic.facets import (
    Domain,
    facet,
    fragments,
    number,
    one_of,
    several,
    spread,
)


def _pet_name(rng: Random) -> str:
    return rng.choice((names.invented(rng, 2), names.first_name(rng)))


PRODUCT = Domain(
    words.PRODUCTS,
    ("name", "product", "item", "model", "article"),
    names.brand,
    (
        facet(
            "colour|color",
            one_of(*words.COLOURS),
            pre="{v}",
            post="in {v}",
            verb="comes in {v}|is {v}",
            full="The colour is {v}",
            ask="What colour is {n}?|What is the colour of {n}?",
        ),
        facet(
            "material|made of",
            one_of(*words.MATERIALS),
            pre="{v}",
            post="made of {v}",
            verb="is made of {v}|is built from {v}",
            front="Made of {v}",
            ask="What is {n} made of?",
        ),
        facet(
            "price|cost|costs",
            names.amount,
            post="for {v}|that costs {v}|at a price of {v}",
            verb="costs {v}|sells for {v}|is priced at {v}|can be bought for {v}",
            front="For {v}|Priced at {v}",
            full="The price is {v}|You can buy it for {v}",
            ask="How much does {n} cost?|What is the price of {n}?",
        ),
        facet(
            "weight",
            number(2, 90, "{} kg"),
            post="with a weight of {v}|weighing {v}",
            verb="weighs {v}|has a weight of {v}",
            front="Weighing {v}",
            ask="How much does {n} weigh?",
        ),
        facet(
            "maker|brand|made by|company",
            names.invented,
            post="made by {v}|from {v}|by {v}",
            verb="is made by {v}|comes from {v}",
            front="Made by {v}",
            ask="Who makes {n}?",
        ),
        facet(
            "warranty|guarantee",
            number(1, 10, "{} years"),
            post="with a guarantee of {v}",
            verb="comes with a guarantee of {v}|has a warranty of {v}",
            ask="How long is the guarantee of {n}?",
        ),
        facet(
            "size|height|length",
            number(5, 220, "{} cm"),
            verb="measures {v}",
            post="that measures {v}",
            ask="What size is {n}?",
        ),
        facet(
            "rating|stars|score",
            number(1, 5, "{} out of 5"),
            post="rated {v}",
            verb="is rated {v}|has a rating of {v}",
            full="Buyers rate it {v}",
            ask="How do buyers rate {n}?",
        ),
        facet(
            "in stock|available|stock",
            one_of("yes", "no"),
            ask="Is {n} in stock?",
            special={
                "yes": fragments(
                    verb="is in stock|is available now", full="It can be sent at once"
                ),
                "no": fragments(
                    verb="is out of stock|is not available at the moment", full="It is sold out"
                ),
            },
        ),
        facet(
            "condition|state",
            one_of("new", "used"),
            pre="{v}",
            verb="is {v}",
            ask="Is {n} new or used?",
        ),
        facet(
            "room|for|use",
            one_of("kitchen", "garden", "office", "bedroom", "garage", "living room"),
            post="for the {v}",
            verb="is meant for the {v}|is made for use in the {v}",
            ask="Which room is {n} meant for?",
        ),
    ),
)
CAR = Domain(
    words.VEHICLES,
    ("model", "name", "vehicle"),
    names.brand,
    (
        facet(
            "colour",
            one_of(*words.COLOURS),
            pre="{v}",
            verb="is painted {v}",
            ask="What colour is {n}?",
        ),
        facet(
            "year|built",
            names.year,
            post="from {v}|built in {v}",
            verb="was built in {v}",
            front="Built in {v}",
            ask="When was {n} built?",
        ),
        facet(
            "mileage|distance",
            lambda rng: f"{rng.randint(2, 200)},000 miles",
            post="with {v} on the clock",
            verb="has done {v}",
            ask="How far has {n} gone?",
        ),
        facet(
            "price|asking price",
            lambda rng: names.amount(rng, 500, 9000),
            post="for {v}",
            verb="costs {v}|is for sale at {v}",
            full="The asking price is {v}",
            ask="How much does {n} cost?",
        ),
        facet(
            "fuel|power",
            one_of("petrol", "diesel", "electric power", "gas"),
            verb="runs on {v}",
            post="running on {v}",
            ask="What does {n} run on?",
        ),
        facet(
            "seats",
            number(2, 80),
            post="with {v} seats",
            verb="has {v} seats|carries {v} people",
            ask="How many seats does {n} have?",
        ),
        facet(
            "owner|seller",
            names.person,
            post="sold by {v}",
            verb="belongs to {v}",
            ask="Who owns {n}?",
        ),
        facet(
            "top speed|speed",
            number(20, 240, "{} km/h"),
            post="with a top speed of {v}",
            verb="reaches {v}|has a top speed of {v}",
            ask="How fast is {n}?",
        ),
    ),
)
RECIPE = Domain(
    ("recipe", "dish"),
    ("recipe", "dish", "name"),
    lambda rng: (
        f"{names.invented(rng, 2)} "
        f"{rng.choice(('soup', 'pie', 'cake', 'stew', 'salad', 'bread', 'pudding'))}"
    ),
    (
        facet(
            "ingredients|needs|you need",
            several(words.INGREDIENTS, 2, 4),
            post="with {v}|made with {v}",
            verb="is made with {v}|calls for {v}|needs {v}",
            full="You need {v}",
            ask="What is {n} made with?|Which ingredients does {n} need?",
        ),
        facet(
            "time|cooking time|minutes",
            number(5, 180, "{} minutes"),
            post="that takes {v}",
            verb="takes {v}|is ready in {v}|cooks for {v}",
            front="Ready in {v}",
            ask="How long does {n} take?",
        ),
        facet(
            "serves|portions|people",
            number(2, 12, "{} people"),
            post="for {v}",
            verb="serves {v}|is enough for {v}",
            ask="How many people does {n} serve?",
        ),
        facet(
            "origin|from|country",
            one_of(*words.COUNTRIES),
            post="from {v}",
            verb="comes from {v}",
            ask="Where does {n} come from?",
        ),
        facet(
            "difficulty|level",
            one_of("easy", "difficult", "simple"),
            pre="{v}",
            verb="is {v} to make",
            ask="How hard is {n} to make?",
        ),
        facet(
            "author|by|cook",
            names.person,
            post="by {v}",
            verb="was written down by {v}",
            ask="Whose recipe is {n}?",
        ),
        facet(
            "temperature|oven",
            number(12, 24, "{}0 degrees"),
            verb="bakes at {v}",
            full="Heat the oven to {v}",
            ask="At what temperature does {n} bake?",
        ),
    ),
)
ANIMAL = Domain(
    words.ANIMALS,
    ("name", "animal", "pet", "called"),
    _pet_name,
    (
        facet("age", number(2, 29, "{} years"), verb="is {v} old", ask="How old is {n}?"),
        facet(
            "colour|fur",
            one_of(*words.COLOURS[:8]),
            pre="{v}",
            verb="is {v}",
            ask="What colour is {n}?",
        ),
        facet(
            "owner|keeper|belongs to",
            names.person,
            post="owned by {v}",
            verb="belongs to {v}|lives with {v}",
            ask="Who owns {n}?",
        ),
        facet(
            "weight",
            number(2, 700, "{} kg"),
            post="weighing {v}",
            verb="weighs {v}",
            ask="How much does {n} weigh?",
        ),
        facet(
            "food|eats|diet",
            one_of("hay", "fish", "seeds", "apples", "carrots", "bread", "leaves", "grass", "corn"),
            verb="eats {v}|likes to eat {v}|lives on {v}",
            ask="What does {n} eat?",
        ),
        facet(
            "home|lives|place",
            spread(
                names.town,
                lambda rng: (
                    f"the {rng.choice(('barn', 'garden', 'zoo', 'stable', 'kitchen', 'yard'))}"
                ),
            ),
            verb="lives in {v}",
            ask="Where does {n} live?",
        ),
        facet(
            "mood|character",
            one_of("shy", "playful", "calm", "lazy", "friendly", "nervous", "curious", "brave"),
            pre="{v}",
            verb="is {v}|is rather {v}",
            ask="What is {n} like?",
        ),
        facet(
            "friendly with children|good with kids",
            one_of("yes", "no"),
            ask="Is {n} good with children?",
            special={
                "yes": fragments(
                    verb="is good with children|likes children", post="that likes children"
                ),
                "no": fragments(
                    verb="is not good with children|does not like children",
                    post="that does not like children",
                ),
            },
        ),
    ),
)
PLANT = Domain(
    ("flower", "tree", "shrub", "plant", "herb"),
    ("name", "plant"),
    names.invented,
    (
        facet(
            "height",
            number(5, 900, "{} cm"),
            verb="grows to {v}|reaches {v}",
            post="growing to {v}",
            ask="How tall does {n} grow?",
        ),
        facet(
            "colour|flowers",
            one_of(*words.COLOURS[3:]),
            post="with {v} flowers",
            verb="has {v} flowers",
            ask="What colour are the flowers of {n}?",
        ),
        facet(
            "found in|grows in|country",
            one_of(*words.COUNTRIES),
            post="from {v}|found in {v}",
            verb="grows in {v}|is found in {v}",
            front="Found in {v}",
            ask="Where does {n} grow?",
        ),
        facet(
            "flowers in|month",
            one_of(*words.MONTHS),
            verb="flowers in {v}",
            post="that flowers in {v}",
            ask="When does {n} flower?",
        ),
        facet(
            "water|watering",
            one_of("once a week", "twice a week", "every day", "every other day"),
            verb="needs water {v}",
            full="Water it {v}",
            ask="How often does {n} need water?",
        ),
        facet(
            "discovered by|named by",
            names.person,
            post="first described by {v}",
            verb="was first described by {v}",
            ask="Who first described {n}?",
        ),
    ),
)
