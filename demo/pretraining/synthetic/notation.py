"""The many ways in which people write a record down: each notation turns key-value pairs
into text.
"""

import json
from collections.abc import Callable, Sequence
from random import Random

from edgeprefix.demo.pretraining.synthetic.phrases import capital

Pairs = Sequence[tuple[str, str]]
Notation = Callable[[Pairs], str]


def _separated(between: str, after_key: str, end: str = "", start: str = "") -> Notation:
    return lambda pairs: (
        start + between.join(f"{key}{after_key}{value}{end}" for key, value in pairs)
    )


def _tags(pairs: Pairs) -> str:
    return "\n".join(
        f"<{key.replace(' ', '_')}>{value}</{key.replace(' ', '_')}>" for key, value in pairs
    )


def _json(pairs: Pairs) -> str:
    return json.dumps(dict(pairs), ensure_ascii=False)


def _json_lines(pairs: Pairs) -> str:
    return json.dumps(dict(pairs), ensure_ascii=False, indent=2)


def _table(pairs: Pairs) -> str:
    keys, values = (" | ".join(column) for column in zip(*pairs, strict=True))
    return f"| {keys} |\n| {values} |"


def _csv(pairs: Pairs) -> str:
    keys, values = (";".join(column) for column in zip(*pairs, strict=True))
    return f"{keys}\n{values}"


def _values(pairs: Pairs) -> str:
    return " | ".join(value for _, value in pairs)


def _triples(pairs: Pairs) -> str:
    subject = pairs[0][1]
    return "\n".join(f"({subject}, {key}, {value})" for key, value in pairs[1:]) or f"({subject})"


def _capital_keys(inner: Notation) -> Notation:
    return lambda pairs: inner([(capital(key), value) for key, value in pairs])


def _upper_keys(inner: Notation) -> Notation:
    return lambda pairs: inner([(key.upper(), value) for key, value in pairs])


_LINES = _separated("\n", ": ")
_BRACKETS = _separated(", ", "[", "]")
_COLON_BARS = _separated(" | ", " : ")
_COMMON: tuple[Notation, ...] = (
    _LINES,
    _LINES,
    _capital_keys(_LINES),
    _BRACKETS,
    _BRACKETS,
    _BRACKETS,
    _separated("\n", " = "),
    _json,
    _json_lines,
    _table,
    _COLON_BARS,
    _COLON_BARS,
    _separated("\n- ", ": ", start="- "),
    _separated("; ", ": "),
)
_RARE: tuple[Notation, ...] = (
    _separated(", ", "="),
    _separated("; ", "="),
    _separated(", ", ": "),
    _separated("\n", "\t"),
    _csv,
    _tags,
    _triples,
    _separated(" ", "(", ")"),
    _separated("\n", " -> "),
    _separated(" / ", " "),
    _separated("\n* ", ": ", start="* "),
    _separated("\n- ", ": ", start="- "),
    _upper_keys(_LINES),
    _separated("\n", " is "),
    _separated(", ", " "),
    _separated("; ", "[", "]"),
    _separated(" ", "[", "]"),
    _separated("\n", "[", "]"),
    _separated(" | ", "="),
    _separated(", ", "(", ")"),
    _separated("\n", " - "),
    _separated(" # ", ":"),
    _separated(" && ", " == "),
    _separated(", ", "<", ">"),
    _separated(", ", "{", "}"),
    _separated("\n", ' "', '"'),
    _values,
    _capital_keys(_separated(". ", ": ")),
    _separated(" && ", ":"),
    _separated("\n", " | "),
)


def choose_notation(rng: Random, *, keyed: bool = False) -> Notation:
    """Return a notation; with `keyed`, never one that leaves the keys out."""
    while True:
        notation = rng.choice(_COMMON if rng.random() < 0.55 else _RARE)
        if not (keyed and notation is _values):
            return notation
