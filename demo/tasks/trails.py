"""Record → sentence: a walking guide's catalogue entry becomes what the guide would print.

    name: Kelden Loop | level: easy | length: 7 km | from: Barden station | see: an old mill | dogs:
    no → Kelden Loop is an easy walk of 7 km from Barden station. On the way you pass an old mill.
    Dogs must stay at home.

The guide has a voice of its own: level, length and start first, then time and sights, then the rule
for dogs. Each row has up to four references, written anew from the same record. Trail names, start
points and sights are entities: each belongs to one part only.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from edgeprefix.demo.tasks.task import DemoRow, DemoTask, Part, cut, draw_until
from edgeprefix.demo.tasks.words import article, capital, items, lines, made_up

_REFERENCES = 4
_OPTIONAL = ("from", "time", "see", "dogs")

_NAME_WORDS = items("""
    Heron, Badger, Otter, Falcon, Swallow, Fox, Raven, Cuckoo, Hare, Beaver, Lark, Miller, Shepherd, Fisher, Hunter, Smuggler,
    Pilgrim, Monk, Bishop, Potter, Weaver, Drover, Birch, Alder, Rowan, Juniper, Hazel, Bracken, Heather, Thistle, Granite,
    Slate, Copper, Silver, Amber, Winter, Summer, Sunrise, Midday, Moonlight""")
_NAME_KINDS = items(
    "Loop, Path, Trail, Way, Circuit, Round, Walk, Ridge, Track, Steps, Traverse, Ramble"
)
_START_KINDS = items("""
    {} station, {} bridge, {} church, {} harbour, {} castle, {} farm, {} mill, {} lock, the village of {}, the inn at {},
    the car park in {}, the bus stop in {}, the market in {}, the old school in {}, the ferry at {}, the lighthouse at {}""")
_SIGHT_NOUNS = items("""
    mill, chapel, waterfall, quarry, lighthouse, monastery, stone bridge, beech wood, lake, cave, vineyard, tower, orchard,
    fort, spring, sand dune, peat bog, hill fort, canal, lookout, shepherd's hut, ruined abbey, railway tunnel, rope bridge,
    weir, bird hide, boat house, standing stone, watchtower, deer park""")
_SIGHT_ADJECTIVES = items("""
    old, small, deep, hidden, famous, quiet, tall, lonely, pretty, narrow, wide, little, abandoned, huge, round, dark""")
_LEVELS = items(
    "easy, gentle, moderate, challenging, steep, demanding, hard, comfortable, rough, strenuous, "
    "leisurely, varied"
)
_NUMBERS = items("two, three, four, five, six")

_OPENERS_WITH_START = lines("""
    {name} is {a level} walk of {length} from {from}.
    {name} is {a level} walk of {length} that starts at {from}.
    {name} is {a level} {stretch} walk from {from}.
    From {from}, {name} takes you {length} along {a level} route.
    {name} sets off from {from} and follows {a level} path for {length}.
""")
_OPENERS = lines("""
    {name} is {a level} walk of {length}.
    {name} is {a level} {stretch} walk.
    {name} follows {a level} path for {length}.
    {name} takes you {length} along {a level} route.
""")
_TIME_AND_SIGHT = lines("""
    It takes about {time} and you pass {see}.
    Allow {time}, and look out for {see} on the way.
    Allow {time}, with {see} on the way.
    It takes about {time}, past {see}.
""")
_TIME = lines("""
    It takes about {time}.
    Allow {time}.
    Allow about {time} for the walk.
""")
_SIGHT = lines("""
    On the way you pass {see}.
    Look out for {see} on the way.
    You pass {see} on the way.
    It takes you past {see}.
""")
_DOGS = {
    "yes": lines("""
        Dogs are welcome.
        You are welcome to bring your dog.
        Your dog is welcome too.
    """),
    "no": lines("""
        Dogs must stay at home.
        Please leave your dog at home.
        Dogs are not allowed.
    """),
    "on lead": lines("""
        Keep dogs on the lead.
        Dogs must be kept on the lead.
        Dogs are welcome on the lead.
    """),
}


@dataclass(frozen=True)
class Trail:
    """A record: key → value, in the catalogue's order."""

    facts: dict[str, str]

    def __str__(self) -> str:
        return " | ".join(f"{key}: {value}" for key, value in self.facts.items())


def draw_trail(rng: Random, part: Part) -> Trail:
    """A trail of one part with one to four facts besides name, level and length."""
    distance, unit = rng.randint(2, 28), "miles" if rng.random() < 0.3 else "km"
    drawn = {
        "from": draw_until(_start, rng, part),
        "time": _time(rng, distance * (1.6 if unit == "miles" else 1.0)),
        "see": _sight(rng, part),
        "dogs": rng.choice(tuple(_DOGS)),
    }
    told = rng.sample(_OPTIONAL, rng.choice((1, 1, 2, 2, 3, 4)))
    half = ".5" if rng.random() < 0.2 else ""
    facts = {
        "name": draw_until(_name, rng, part),
        "level": rng.choice(_LEVELS),
        "length": f"{distance}{half} {unit}",
    }
    return Trail(facts | {key: drawn[key] for key in _OPTIONAL if key in told})


def describe(rng: Random, trail: Trail) -> str:
    """The guide's text: one to three sentences that tell every fact once."""
    facts = trail.facts
    chosen = [_OPENERS_WITH_START if "from" in facts else _OPENERS]
    middle = {("time", "see"): _TIME_AND_SIGHT, ("time",): _TIME, ("see",): _SIGHT}
    chosen += [
        middle[keys] for keys in [tuple(key for key in ("time", "see") if key in facts)] if keys
    ]
    chosen += [_DOGS[facts["dogs"]]] if "dogs" in facts else []
    # "a walk of 3 miles", but "a 3-mile walk"
    stretch = facts["length"].removesuffix("s").replace(" mile", "-mile")
    values = facts | {"a level": article(facts["level"]), "stretch": stretch}
    return " ".join(capital(_fill(rng.choice(options), values)) for options in chosen)


def _fill(template: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        template = template.replace(f"{{{key}}}", value)
    return template


def _draw(rng: Random, part: Part) -> DemoRow:
    trail = draw_trail(rng, part)
    texts = [describe(rng, trail) for _ in range(_REFERENCES)]
    entities = tuple(trail.facts[key] for key in ("name", "from", "see") if key in trail.facts)
    return DemoRow(input=str(trail), references=tuple(dict.fromkeys(texts)), entities=entities)


def _name(rng: Random) -> str:
    first = made_up(rng) if rng.random() < 0.5 else rng.choice(_NAME_WORDS)
    return f"{first} {rng.choice(_NAME_KINDS)}"


def _start(rng: Random) -> str:
    return rng.choice(_START_KINDS).format(made_up(rng))


def _sight(rng: Random, part: Part) -> str:
    """The noun decides the part: a test row's sights are of kinds that no training row mentions."""
    noun = rng.choice(cut(_SIGHT_NOUNS, part))
    if rng.random() < 0.15:
        return f"{rng.choice(_NUMBERS)} {noun}s"
    return article(f"{rng.choice(_SIGHT_ADJECTIVES)} {noun}")


def _time(rng: Random, kilometres: float) -> str:
    """About three to five kilometres an hour."""
    hours = kilometres / rng.uniform(3, 5)
    if hours < 1.5:
        return f"{max(round(hours * 6), 2) * 10} minutes"
    return "half a day" if 3.5 < hours < 4.5 else f"{round(hours)} hours"


TRAILS = DemoTask(
    name="trails",
    title="record → sentence",
    metric="bleu",
    draw=_draw,
)
