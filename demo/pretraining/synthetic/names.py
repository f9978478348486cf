"""Made-up names and random values: so many that only copying, never memory, can repeat them."""

from collections.abc import Callable
from random import Random

from edgeprefix.demo.pretraining.synthetic import words
from edgeprefix.demo.pretraining.synthetic.phrases import article, capital, ordinal


def _split(text: str) -> tuple[str, ...]:
    """Split at blanks; a dash stands for the empty string."""
    return tuple(part.strip("-") for part in text.split())


_ONSETS = _split("""
b b b c c d d d f f g g h h j k k l l l m m m n n n p p r r r s s s t t t v v w w z ch sh th br cr dr fr gr pr
tr bl cl fl gl pl sl st sp sk qu kr""")
_VOWELS = _split("""
a a a a e e e e i i i o o o u u ai ea ee oa ou ia""")
_CODAS = _split("""
- - - - - - - l l n n n r r s t m d ck nd rd rn ll lt""")
_RUDE = _split("""
shit fuck cunt cock dick nig fag slut piss tit rape nazi arse cum sex wank whor twat kkk""")
_TOWN_ENDS = _split("""
ton ham ford by wick stead mouth bury field bridge worth dale port ville burg stad haven""")
_SURNAME_ENDS = _split("""
son man sen ley er ov ini ez ell ett well ard ado ova ski wood iak""")


def syllable(rng: Random) -> str:
    """Return one pronounceable syllable."""
    return rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)


def _decent(draw: Callable[[], str]) -> str:
    """Draw until the word holds no rude one."""
    word = draw()
    while any(rude in word for rude in _RUDE):
        word = draw()
    return word


def invented(rng: Random, most: int = 3) -> str:
    """Return an invented capitalised word of one to `most` syllables."""
    count = rng.choice((1, 2, 2, 2)) if most < 3 else rng.choice((2, 2, 2, 3))
    word = _decent(lambda: "".join(syllable(rng) for _ in range(count)))
    return (word if len(word) > 2 else word + "la").capitalize()


def surname(rng: Random) -> str:
    """Return an invented surname."""
    return _decent(
        lambda: syllable(rng) + rng.choice(("", "", syllable(rng))) + rng.choice(_SURNAME_ENDS)
    ).capitalize()


def first_name(rng: Random) -> str:
    """Return a first name, mostly real, sometimes invented."""
    return rng.choice(words.FIRST_NAMES) if rng.random() < 0.8 else invented(rng, 2)


def person(rng: Random) -> str:
    """Return a full name, sometimes with a title or an initial."""
    roll = rng.random()
    last = surname(rng)
    if roll < 0.08:
        return f"{rng.choice(('Dr', 'Mr', 'Mrs', 'Ms', 'Professor'))} {last}"
    if roll < 0.16:
        return f"{first_name(rng)} {rng.choice('ABCDEFGHJKLMNPRSTW')}. {last}"
    return f"{first_name(rng)} {last}"


def district(rng: Random) -> str:
    """Return a part of a town, to follow "in the"."""
    return f"{rng.choice((invented(rng, 2), surname(rng)))} {rng.choice(('quarter', 'district', 'area'))}"


def pronoun(name: str, rng: Random) -> str:
    """Return "He" or "She" to fit a full name; invented names take either."""
    first = name.split()[0]
    if first in ("Dr", "Professor") or (
        first not in words.FIRST_NAMES and first not in ("Mr", "Mrs", "Ms")
    ):
        return rng.choice(("He", "She"))
    return (
        "She"
        if first in ("Mrs", "Ms") or first.endswith("a") or first in words.FEMALE_NAMES
        else "He"
    )


def town(rng: Random) -> str:
    """Return an invented town."""
    ends = ("", rng.choice(_TOWN_ENDS), rng.choice(_TOWN_ENDS))
    stem = _decent(lambda: syllable(rng) + rng.choice(ends)).capitalize()
    if len(stem) < 4:
        stem += rng.choice(_TOWN_ENDS)
    roll = rng.random()
    if roll < 0.08:
        return f"{rng.choice(('New', 'Old', 'Great', 'Little', 'Upper', 'Port', 'Saint'))} {stem}"
    return stem


def _word(rng: Random, options: tuple[str, ...]) -> str:
    return rng.choice(options).title()


def place(rng: Random) -> str:
    """Return the name of an eating place or another business."""
    adjective, thing, other = (
        _word(rng, group) for group in (words.ADJECTIVES, words.THINGS, words.THINGS)
    )
    roll = rng.randrange(14)
    patterns = (
        f"The {adjective} {thing}",
        f"The {thing}",
        f"The {thing} and {other}",
        f"{adjective} {thing}",
        f"{first_name(rng)}'s",
        f"{first_name(rng)}'s {rng.choice(('Kitchen', 'Place', 'Table', 'Corner', 'House'))}",
        f"{surname(rng)}'s",
        f"{invented(rng)}",
        f"The {invented(rng)} {thing}",
        f"Café {invented(rng, 2)}",
        (
            f"{invented(rng, 2)} "
            f"{rng.choice(('Palace', 'Garden', 'Bar', 'Lounge', 'House', 'Kitchen', 'Grill'))}"
        ),
        f"The {invented(rng, 2)}",
        f"{town(rng)} {rng.choice(('Arms', 'Inn', 'House', 'Hall', 'Hotel', 'Rooms'))}",
        f"{invented(rng, 2)} {rng.choice(('and', '&'))} {invented(rng, 2)}",
    )
    return patterns[roll]


def title(rng: Random) -> str:
    """Return the title of a book, film or song."""
    adjective, thing, other = (
        _word(rng, group) for group in (words.ADJECTIVES, words.THINGS, words.COMMON_NOUNS)
    )
    roll = rng.randrange(8)
    return (
        f"The {adjective} {thing}",
        f"{capital(article(other))} in {town(rng)}",
        f"{first_name(rng)} and the {thing}",
        f"The {other} of {invented(rng, 2)}",
        f"The Last {other}",
        f"{adjective} {other}",
        f"The {surname(rng)} {other}",
        f"{invented(rng, 2)}",
    )[roll]


def brand(rng: Random) -> str:
    """Return a product name such as "Brelto 400"."""
    suffix = rng.choice(
        (
            "",
            "",
            f" {rng.randint(1, 9)}",
            f" {rng.randint(1, 99) * 10}",
            " Pro",
            " Mini",
            " Plus",
            f" {rng.choice('ABCKMSTXZ')}{rng.randint(1, 99)}",
        )
    )
    return invented(rng) + suffix


def street(rng: Random) -> str:
    """Return a street, half of the time with a number."""
    name = rng.choice((surname(rng), _word(rng, words.THINGS), invented(rng, 2)))
    road = f"{name} {rng.choice(('Street', 'Road', 'Lane', 'Avenue', 'Square'))}"
    return f"{rng.randint(1, 199)} {road}" if rng.random() < 0.5 else road


def code(rng: Random) -> str:
    """Return an order number, ticket id or the like."""
    letters = "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(rng.randint(1, 3)))
    digits = "".join(rng.choice("0123456789") for _ in range(rng.randint(2, 5)))
    return rng.choice((f"{letters}-{digits}", f"{letters}{digits}", f"{digits}", f"#{digits}"))


def year(rng: Random) -> str:
    """Return a year."""
    return str(rng.randint(1650, 2029) if rng.random() < 0.4 else rng.randint(1950, 2026))


def date(rng: Random) -> str:
    """Return a day in one of several spellings."""
    day, month = rng.randint(1, 28), rng.choice(words.MONTHS)
    return rng.choice(
        (
            f"{day} {month}",
            f"{month} {day}",
            f"{ordinal(day)} {month}",
            f"{day} {month} {rng.randint(1990, 2029)}",
        )
    )


def clock(rng: Random) -> str:
    """Return a time of day."""
    hour, minute = rng.randint(1, 12), rng.choice((0, 0, 15, 30, 45, rng.randint(1, 59)))
    half = rng.choice(("am", "pm"))
    spelled = f"{hour} {half}" if minute == 0 else f"{hour}:{minute:02d} {half}"
    return rng.choice((spelled, spelled, f"{rng.randint(0, 23):02d}:{minute:02d}"))


def amount(rng: Random, low: int = 2, high: int = 500) -> str:
    """Return a sum of money."""
    value = rng.randint(low, high)
    sign = rng.choice("££$$€")
    return rng.choice(
        (f"{sign}{value}", f"{sign}{value}", f"{sign}{value}.{rng.randint(0, 99):02d}")
    )
