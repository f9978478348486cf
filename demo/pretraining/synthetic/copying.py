"""Verbatim copying and handling of lists: repeat, quote, pick, count, join, sort, look up,
replace.
"""

from collections.abc import Callable, Sequence
from random import Random

from edgeprefix.demo.pretraining.synthetic import names, words
from edgeprefix.demo.pretraining.synthetic.phrases import (
    capital,
    join,
    number_words,
    ordinal,
    plural,
)
from edgeprefix.demo.pretraining.synthetic.task import Example, Materials, Task

_NAMERS: tuple[Callable[[Random], str], ...] = (
    names.person,
    names.town,
    names.place,
    names.title,
    names.brand,
    names.invented,
    names.street,
    names.code,
    names.first_name,
    names.date,
    names.amount,
    lambda rng: rng.choice(words.COMMON_NOUNS),
    lambda rng: rng.choice(words.FRUITS),
    lambda rng: rng.choice(words.ANIMALS),
    lambda rng: str(rng.randint(0, 999)),
    lambda rng: rng.choice(words.COLOURS),
)
_SEPARATORS = (", ", ", ", "\n", " ", "; ", " | ", " - ", "\n- ", " / ")


def _items(rng: Random, namer: Callable[[Random], str], low: int = 3, high: int = 7) -> list[str]:
    wanted = rng.randint(low, high)
    return list(dict.fromkeys(namer(rng) for _ in range(wanted))) or [namer(rng)]


def _line(rng: Random, materials: Materials) -> str:
    """Return something to copy: a real sentence or a few made-up names."""
    if rng.random() < 0.5:
        return rng.choice(materials.sentences)
    return rng.choice((", ", " ", "; ")).join(_items(rng, rng.choice(_NAMERS), 1, 6))


def repeat_task(rng: Random, materials: Materials) -> Task:
    """Return the task of writing the same text again."""

    def draw(rng: Random) -> Example:
        line = _line(rng, materials)
        return Example(line, line, (line,))

    return Task(
        draw,
        (
            "Copy the line.",
            "Repeat:",
            "Write it again, word for word.",
            "Say it again.",
            "Copy exactly:",
        ),
        target_words=("Copy", "Again", "Output", "Repeat", "Same"),
    )


def quote_task(rng: Random, materials: Materials) -> Task:
    """Return the task of quoting what somebody said, in another frame."""
    frame = rng.choice(
        (
            '{n} said: "{s}"',
            '"{s}", as {n} put it.',
            'The words of {n} were: "{s}"',
            '{n} wrote in the letter: "{s}"',
            'In the notes of {n} one reads: "{s}"',
            "[{n}] {s}",
            "{n}> {s}",
            "{s} ({n})",
            "Speaker: {n}. Words: {s}",
        )
    )
    other = rng.choice(
        ('{n}: "{s}"', '"{s}" - {n}', "{s} / {n}", '{n} told us: "{s}"', "name={n}; text={s}")
    )

    def draw(rng: Random) -> Example:
        name, line = (
            rng.choice((names.person, names.first_name))(rng),
            rng.choice(materials.sentences),
        )
        return Example(frame.format(n=name, s=line), other.format(n=name, s=line), (line, name))

    return Task(draw, ("Quote it.", "Who said what?", "Change the frame of the quotation."), most=4)


def _pick(rng: Random) -> tuple[str, Callable[[list[str]], str]]:
    index = rng.randint(1, 3)
    return rng.choice(
        (
            ("the first item", lambda items: items[0]),
            ("the last item", lambda items: items[-1]),
            (f"item {index}", lambda items: items[index - 1]),
            (f"the {ordinal(index)} item", lambda items: items[index - 1]),
            ("how many items", lambda items: str(len(items))),
            ("the second item", lambda items: items[1]),
            ("all but the first", lambda items: ", ".join(items[1:])),
            ("the first two", lambda items: join(items[:2])),
            ("joined", join),
            ("as a list", lambda items: "\n".join(f"- {item}" for item in items)),
            (
                "numbered",
                lambda items: "\n".join(f"{place}. {item}" for place, item in enumerate(items, 1)),
            ),
            ("backwards", lambda items: ", ".join(reversed(items))),
            ("in alphabetical order", lambda items: ", ".join(sorted(items))),
            ("joined with or", lambda items: join(items, "or")),
            ("in capitals", lambda items: ", ".join(items).upper()),
            ("the longest item", lambda items: max(items, key=len)),
            ("first and last", lambda items: f"{items[0]} and {items[-1]}"),
        )
    )


def list_task(rng: Random, materials: Materials) -> Task:
    """Return one operation on lists."""
    wanted, operation = _pick(rng)
    separator, namer = rng.choice(_SEPARATORS), rng.choice(_NAMERS)

    def draw(rng: Random) -> Example:
        items = _items(rng, namer)
        while len(items) < 3:
            items = _items(rng, namer)
        target = operation(items)
        return Example(
            separator.join(items), target, tuple(item for item in items if item in target)
        )

    return Task(
        draw,
        (
            f"Give {wanted}."
            if wanted.startswith(("the", "how", "all", "item"))
            else f"Write it {wanted}.",
            capital(wanted) + ":",
            capital(wanted),
        ),
        ("List", "Items", "Input"),
    )


def lookup_task(rng: Random, materials: Materials) -> Task:
    """Return the task of looking a key up among several pairs."""
    key_of, value_of = rng.sample(_NAMERS, 2)
    mark, between = (
        rng.choice((": ", " = ", " -> ", " - ", "\t", " | ")),
        rng.choice(("\n", "\n", "; ", ", ")),
    )
    asked = rng.choice(("{k}", "{k}?", "What is {k}?", "Look up {k}.", "Find {k}", "Value of {k}?"))

    def draw(rng: Random) -> Example:
        pairs = {key_of(rng): value_of(rng) for _ in range(rng.randint(2, 8))}
        key = rng.choice(list(pairs))
        listed = between.join(f"{name}{mark}{value}" for name, value in pairs.items())
        return Example(f"{listed}\n{asked.format(k=key)}", pairs[key], (pairs[key],))

    return Task(
        draw,
        ("Look it up.", "Find the value."),
        ("List", "Table", "Data"),
        ("Value", "Answer", "Found"),
        most=4,
    )


def echo_task(rng: Random, materials: Materials) -> Task:
    """Return sequences that come twice, the plainest induction."""
    separator, namer = rng.choice(_SEPARATORS), rng.choice(_NAMERS)

    def draw(rng: Random) -> Example:
        text = separator.join(_items(rng, namer, 4, 12))
        return Example(text, text, (text,))

    return Task(draw, (), most=3)


def replace_task(rng: Random, materials: Materials) -> Task:
    """Return the task of putting another word in the place of one."""

    def draw(rng: Random) -> Example:
        line = rng.choice(materials.sentences)
        old = rng.choice([word.strip(".,;:!?\"'()") for word in line.split()] or ["a"]) or "a"
        new = rng.choice(
            (names.first_name(rng), names.invented(rng), rng.choice(words.COMMON_NOUNS))
        )
        changed = " ".join(
            part.replace(old, new) if part.strip(".,;:!?\"'()") == old else part
            for part in line.split(" ")
        )
        return Example(f"{line}\n{old} -> {new}", changed, (new,))

    return Task(
        draw,
        ("Replace the word.", "Put the new word in."),
        ("Text", "Sentence"),
        ("New text", "Result"),
        most=3,
    )


def blank_task(rng: Random, materials: Materials) -> Task:
    """Return the task of finding the word that a gap has taken away, given the full line before."""
    gap = rng.choice(("___", "...", "[?]", "(gap)"))

    def draw(rng: Random) -> Example:
        parts = _line(rng, materials).split(" ")
        place = rng.randrange(len(parts))
        word = parts[place].strip(".,;:!?\"'()") or parts[place]
        holed = " ".join([*parts[:place], parts[place].replace(word, gap), *parts[place + 1 :]])
        return Example(f"{' '.join(parts)}\n{holed}", word, (word,))

    return Task(
        draw,
        ("Which word is missing?", "Fill the gap."),
        ("Text", "Lines"),
        ("Missing", "Word", "Answer"),
        most=3,
    )


def _small_forms(rng: Random) -> tuple[str, Callable[[Random], tuple[str, str]]]:
    def swap(rng: Random) -> tuple[str, str]:
        first, last = names.first_name(rng), names.surname(rng)
        return f"{first} {last}", f"{last}, {first}"

    def initials(rng: Random) -> tuple[str, str]:
        first, last = names.first_name(rng), names.surname(rng)
        return f"{first} {last}", f"{first[0]}. {last[0]}."

    def spelled(rng: Random) -> tuple[str, str]:
        value = rng.choice((rng.randint(0, 20), rng.randint(0, 99), rng.randint(0, 9999)))
        return str(value), number_words(value)

    def several(rng: Random) -> tuple[str, str]:
        noun = rng.choice(words.FRUITS + words.TOOLS + words.VEHICLES + words.INSTRUMENTS)
        return noun, plural(noun)

    def upper(rng: Random) -> tuple[str, str]:
        text = rng.choice(_NAMERS)(rng)
        return text, text.upper()

    def opposite(rng: Random) -> tuple[str, str]:
        first, last = rng.choice(words.OPPOSITES)
        return (first, last) if rng.random() < 0.5 else (last, first)

    def greeting(rng: Random) -> tuple[str, str]:
        name = names.first_name(rng)
        return name, f"Dear {name},"

    def mail(rng: Random) -> tuple[str, str]:
        first, last, firm = names.first_name(rng), names.surname(rng), names.invented(rng)
        return f"{first} {last}, {firm}", f"{first.lower()}.{last.lower()}@{firm.lower()}.com"

    return rng.choice(
        (
            ("Last name first.", swap),
            ("Give the initials.", initials),
            ("Write the number in words.", spelled),
            ("Give the plural.", several),
            ("Write it in capitals.", upper),
            ("Give the opposite.", opposite),
            ("Begin a letter.", greeting),
            ("Write the email address.", mail),
        )
    )


def small_task(rng: Random, materials: Materials) -> Task:
    """Return one small change of form: plurals, numbers in words, initials, opposites."""
    instruction, form = _small_forms(rng)
    return Task(lambda rng: Example(*form(rng)), (instruction,))


def ordered_sentences(rng: Random, materials: Materials) -> Task:
    """Return the task of picking the first, the last or the sentence with a given word from a short
    text.
    """
    which = rng.choice(("first", "last", "word"))

    def draw(rng: Random) -> Example:
        lines: Sequence[str] = [rng.choice(materials.sentences) for _ in range(3)]
        if which != "word":
            chosen = lines[0] if which == "first" else lines[-1]
            return Example(" ".join(lines), chosen, (chosen,))
        chosen = rng.choice(lines)
        word = max((part.strip(".,;:!?\"'()") for part in chosen.split()), key=len)
        return Example(f"{' '.join(lines)}\n{word}", chosen, (chosen,))

    wanted = (
        "Give the sentence with this word." if which == "word" else f"Give the {which} sentence."
    )
    return Task(draw, (wanted,), ("Text", "Passage"), ("Sentence", "Answer"), most=2)


COPYING = (
    repeat_task,
    repeat_task,
    quote_task,
    list_task,
    list_task,
    list_task,
    lookup_task,
    lookup_task,
    echo_task,
    replace_task,
    blank_task,
    small_task,
    small_task,
    ordered_sentences,
)
