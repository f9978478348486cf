"""A table of options: a dataclass each of whose fields says once what it is for, which values it
takes and how it is called elsewhere.

    @dataclass(frozen=True, kw_only=True)
    class Options:
        top_k: int = option(0, "Only the k likeliest tokens; 0 is off.", least=0)

`problems` checks an instance; the flags of a command line, the tables of the documentation and the
schema of a server are made of `options_of`. Type and default stand on the field as ever.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import re
import sys
import types
import typing
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


class Kind(enum.Enum):
    """What sort of value an option takes; the field's annotation says it."""

    WHOLE = "a whole number"
    NUMBER = "a number"
    YES_NO = "True or False"
    TEXT = "a text"
    TEXTS = "a text or several, none empty"
    BY_TOKEN = "numbers or -inf by token id"


@dataclass(frozen=True, kw_only=True)
class Range:
    """The finite numbers that are allowed."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (  # NaN is in no range
            -sys.float_info.max <= value <= sys.float_info.max
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        if self.least is not None and self.most is not None:
            return f"between {self.least:g} and {self.most:g}"
        limits = {"at least": self.least, "above": self.above}
        limits |= {"at most": self.most, "below": self.below}
        given = {word: limit for word, limit in limits.items() if limit is not None}
        return " and ".join(f"{word} {limit:g}" for word, limit in given.items())


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a field says of its option beside type and default; see `option`."""

    help: str
    range: Range
    choices: tuple[Any, ...]
    pattern: str
    expected: str
    flag: str
    openai: tuple[str, ...]
    sampling: bool
    unset: str


def option(
    default: T,
    about: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    choices: tuple[Any, ...] = (),
    pattern: str = "",
    expected: str = "",
    flag: str = "",
    openai: tuple[str, ...] = (),
    sampling: bool = False,
    unset: str = "",
) -> T:
    """A field of a table of options. `about` is its help, a sentence or two.

    `least`, `above`, `most`, `below` bound numbers; `choices` are all values there are; a text
    matches the regular expression `pattern`, which `expected` puts in words. `flag` is its name on
    the command line when that is not its own, `openai` are its names in OpenAI's API. `sampling`
    options mean nothing unless tokens are drawn. `unset` says what the default None stands for.
    """
    facts = Facts(
        help=about, range=Range(least=least, above=above, most=most, below=below), choices=choices,
        pattern=pattern, expected=expected, flag=flag, openai=openai, sampling=sampling,
        unset=unset,
    )  # fmt: skip
    value: dict[str, Any] = (
        {"default_factory": default.copy} if isinstance(default, dict) else {"default": default}
    )
    field: T = dataclasses.field(**value, metadata={Facts: facts})
    return field


@dataclass(frozen=True, kw_only=True)
class Option:
    """One line of a table."""

    name: str
    kind: Kind
    optional: bool
    """Whether None may be given."""
    default: Any
    facts: Facts

    @property
    def flag(self) -> str:
        """Its name on a command line."""
        return self.facts.flag or "--" + self.name.replace("_", "-")

    @property
    def expected(self) -> str:
        """Which values it takes, in words."""
        if self.facts.choices:
            return "one of " + ", ".join(map(str, self.facts.choices))
        words = self.facts.expected or self.kind.value
        return ", ".join(filter(None, (words, str(self.facts.range))))

    @property
    def default_text(self) -> str:
        """What holds when it is not given, in words."""
        nothing = self.default is None or self.default in ((), {}, "")
        return self.facts.unset or ("none" if nothing else str(self.default))

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value; None when it is fine."""
        fine = (value is None and self.optional) or self._fits(value)
        return None if fine else f"{self.name}={value!r}: expected {self.expected}"

    def _fits(self, value: Any) -> bool:
        facts = self.facts
        if facts.choices:
            return any(type(value) is type(one) and value == one for one in facts.choices)
        match self.kind:
            case Kind.WHOLE:
                return _is_whole(value) and value in facts.range
            case Kind.NUMBER:
                return _is_number(value) and value in facts.range
            case Kind.YES_NO:
                return isinstance(value, bool)
            case Kind.TEXT:
                pattern = facts.pattern
                return isinstance(value, str) and bool(not pattern or re.fullmatch(pattern, value))
            case Kind.TEXTS:
                return isinstance(value, list | tuple) and all(
                    isinstance(text, str) and text for text in value
                )
            case Kind.BY_TOKEN:
                return isinstance(value, Mapping) and all(
                    _is_whole(token)
                    and _is_number(number)
                    and (number in facts.range or number == -np.inf)
                    for token, number in value.items()
                )


def options_of(table: type) -> tuple[Option, ...]:
    """The lines of a table, in order. Raises TypeError for a field of another type than the kinds
    know, or made without `option`.
    """
    return _options_of(table)


@functools.cache  # a request asks, and annotations take a while to read
def _options_of(table: Hashable) -> tuple[Option, ...]:
    assert isinstance(table, type)
    hints = typing.get_type_hints(table)
    return tuple(_option(field, hints[field.name]) for field in dataclasses.fields(table))


def problems(values: Any) -> list[str]:
    """What is wrong with an instance of a table, value by value."""
    found = (one.problem(getattr(values, one.name)) for one in options_of(type(values)))
    return [problem for problem in found if problem]


def json_schema(table: type) -> dict[str, Any]:
    """The table as a JSON schema (2020-12) of an object whose properties may all be left out.

    Beside the schema's own words a property has `x-openai`, its names in OpenAI's API.
    """
    return {
        "type": "object",
        "properties": {one.name: _property(one) for one in options_of(table)},
        "additionalProperties": False,
    }


def _option(field: dataclasses.Field[Any], hint: Any) -> Option:
    if Facts not in field.metadata:
        raise TypeError(f"{field.name} says nothing of itself; make it with option(…)")
    default = field.default if field.default_factory is dataclasses.MISSING else {}
    kinds = set(typing.get_args(hint)) if _is_union(hint) else {hint}
    kind = _kind(kinds - {types.NoneType}, field.name)
    return Option(
        name=field.name,
        kind=kind,
        optional=types.NoneType in kinds,
        default=default,
        facts=field.metadata[Facts],
    )


def _kind(hints: set[Any], name: str) -> Kind:
    """The kind of an annotation, None left out of it."""
    known = {int: Kind.WHOLE, float: Kind.NUMBER, str: Kind.TEXT, tuple[str, ...]: Kind.TEXTS}
    known |= {bool: Kind.YES_NO, Mapping[int, float]: Kind.BY_TOKEN}
    literals = {hint for hint in hints if typing.get_origin(hint) is typing.Literal}
    if literals:  # `choices` say the rest
        return Kind.TEXT
    if len(hints) == 1 and (hint := next(iter(hints))) in known:
        return known[hint]
    raise TypeError(f"{name}: no kind of option is annotated {hints}")


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _property(one: Option) -> dict[str, Any]:
    limits = one.facts.range
    bounds = {
        "minimum": limits.least,
        "exclusiveMinimum": limits.above,
        "maximum": limits.most,
        "exclusiveMaximum": limits.below,
    }
    numbers = {word: limit for word, limit in bounds.items() if limit is not None}
    text = {"type": "string", **({"pattern": one.facts.pattern} if one.facts.pattern else {})}
    kinds: dict[Kind, dict[str, Any]] = {
        Kind.WHOLE: {"type": "integer", **numbers},
        Kind.NUMBER: {"type": "number", **numbers},
        Kind.YES_NO: {"type": "boolean"},
        Kind.TEXT: text,
        Kind.TEXTS: {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string", "minLength": 1}},
            ]
        },
        # JSON has no -inf; a server may take null for it
        Kind.BY_TOKEN: {
            "type": "object",
            "propertyNames": {"pattern": "^[0-9]+$"},
            "additionalProperties": {"type": "number", **numbers},
        },
    }
    value = {"enum": list(one.facts.choices)} if one.facts.choices else kinds[one.kind]
    return {
        **({"anyOf": [value, {"type": "null"}]} if one.optional else value),
        "description": one.facts.help,
        "default": list(one.default) if isinstance(one.default, tuple) else one.default,
        "x-openai": list(one.facts.openai),
    }
