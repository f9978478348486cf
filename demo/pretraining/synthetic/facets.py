"""What a record says about a thing, and how a sentence may say the same.

A *facet* is one attribute: the keys it may have in a record, a way to draw its value, and
*fragments*, the pieces of sentences that express it. Fragments are written in a compact form,
variants parted by bars:

- `pre`    before the noun            "cheap"
- `post`   after the noun             "in the {v}"
- `verb`   a predicate                "is located in the {v}"
- `front`  before the subject         "Located in the {v}"
- `full`   a sentence of its own      "Prices at {n} start from {v}"

`{v}` is the value, `{n}` the thing's name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from edgeprefix.demo.pretraining.synthetic.phrases import join

Draw = Callable[[Random], str]


@dataclass(frozen=True)
class Fragments:
    """The pieces of sentences that express one value."""

    pre: tuple[str, ...] = ()
    post: tuple[str, ...] = ()
    verb: tuple[str, ...] = ()
    front: tuple[str, ...] = ()
    full: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facet:
    """One attribute of a domain."""

    keys: tuple[str, ...]
    draw: Draw
    fragments: Fragments
    special: Mapping[str, Fragments]
    ask: tuple[str, ...]

    def phrases(self, value: str) -> Fragments:
        """Return the fragments for `value`: some values, such as "no", have their own."""
        return self.special.get(value, self.fragments)


@dataclass(frozen=True)
class Domain:
    """A kind of thing: its nouns, its pronoun, its name and its facets."""

    nouns: tuple[str, ...]
    name_keys: tuple[str, ...]
    name: Draw
    facets: tuple[Facet, ...]
    pronouns: tuple[str, ...] = ("It",)
    plain: bool = False  # the noun goes without saying: nobody writes "Ada is a person"
    copula: str = "is"


def fragments(
    pre: str = "", post: str = "", verb: str = "", front: str = "", full: str = ""
) -> Fragments:
    """Build `Fragments` from texts whose variants are parted by bars."""
    return Fragments(
        *(tuple(text.split("|")) if text else () for text in (pre, post, verb, front, full))
    )


def facet(
    keys: str,
    draw: Draw,
    *,
    pre: str = "",
    post: str = "",
    verb: str = "",
    front: str = "",
    full: str = "",
    ask: str = "",
    special: Mapping[str, Fragments] | None = None,
) -> Facet:
    """Build a `Facet` in the compact form."""
    questions = tuple(ask.split("|")) if ask else ()
    return Facet(
        tuple(keys.split("|")),
        draw,
        fragments(pre, post, verb, front, full),
        special or {},
        questions,
    )


def one_of(*options: str) -> Draw:
    """Return a draw from fixed options."""
    return lambda rng: rng.choice(options)


def spread(draw: Callable[[Random], str], *others: Callable[[Random], str]) -> Draw:
    """Return a draw that uses one of several draws."""
    draws = (draw, *others)
    return lambda rng: rng.choice(draws)(rng)


def number(low: int, high: int, pattern: str = "{}") -> Draw:
    """Return a draw of a whole number, set into `pattern`."""
    return lambda rng: pattern.format(rng.randint(low, high))


def several(options: tuple[str, ...], low: int = 2, high: int = 3) -> Draw:
    """Return a draw of `low` to `high` different options, joined as in a sentence."""
    return lambda rng: join(rng.sample(options, rng.randint(low, high)))
