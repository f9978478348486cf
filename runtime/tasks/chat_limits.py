"""How much a chat template may do: steps, the length of what it makes, and the numbers that it asks
lengths with.

A template decides by itself what it costs: a loop in a loop or `'a' * 10**10` is enough. So each
turn of a loop, each call, filter and operator counts as a step, each text and list as its length,
before it is made where that can be told. The limits are far beyond what the templates of chat
models need, and the same on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

MOST_STEPS = 1_000_000
"""Seconds on a slow machine."""
A_CALL = 5
"""Steps: a macro takes about so long."""
LONGEST = 4_000_000
"""Characters of a text or items of a list: the text of a million tokens."""
MOST_MADE = 20 * LONGEST
"""Of all texts and lists that one rendering makes."""
WIDEST = 10_000
"""The largest number that a filter or a text's method takes (`center`, `indent`, …)."""
_MOST_BITS = 1024
_WIDE = re.compile(r"\d{5}")
_NUMBER = re.compile(r"\d+")
_BREAK = re.compile(r"[\n\t\r\f\v]")
# These do not look into lists within lists, which may hold one another many times; others may.
_SHALLOW = frozenset(
    (
        "length", "count", "list", "first", "last", "reverse", "random", "items", "batch", "slice",
        "map", "select", "reject", "selectattr", "rejectattr", "attr", "default", "d",
    )
)  # fmt: skip


class LimitError(Exception):
    """The template asks for more than this."""


class Budget:
    """What one rendering has used up."""

    def __init__(self) -> None:
        self._steps = self._made = 0

    def step(self, count: int = 1) -> None:
        """Counts. Raises LimitError."""
        self._steps += count
        if self._steps > MOST_STEPS:
            raise LimitError(f"it takes more than {MOST_STEPS} steps")

    def make(self, length: int) -> None:
        """Counts a text or a list that is to be made. Raises LimitError."""
        if length > LONGEST:
            raise LimitError(f"it makes a text or a list longer than {LONGEST}")
        self._made += length
        if self._made > MOST_MADE:
            raise LimitError(f"it makes texts and lists of more than {MOST_MADE} in all")


BUDGET: ContextVar[Budget] = ContextVar("budget")


def counted(items: Iterable[Any]) -> Iterator[Any]:
    """The items, each a step."""
    budget = BUDGET.get()
    for item in items:
        budget.step()
        yield item


def measured(value: Any) -> Any:
    """The value, unless it is too much to be written out or compared. Raises LimitError."""
    if isinstance(value, list | tuple | dict):
        _printed(value)
    return value


def joined(pieces: Iterable[Any]) -> str:
    """Their texts end to end."""
    texts = [piece if isinstance(piece, str) else str(measured(piece)) for piece in pieces]
    BUDGET.get().make(sum(map(len, texts)))
    return "".join(texts)


def charge(name: str, value: Any, given: Sequence[Any]) -> None:
    """Counts a filter, or a method of a text, before it is applied to a value with what is given.
    Raises LimitError.
    """
    budget = BUDGET.get()
    budget.step()
    _require_narrow(given)
    if name not in _SHALLOW:
        for one in (value, *given):
            measured(one)
    budget.make(_length_made(name, value, given))


def charge_operator(operator: str, left: Any, right: Any) -> None:
    """Counts a binary operator before it is computed. Raises LimitError."""
    budget = BUDGET.get()
    budget.step()
    if operator == "%" and isinstance(left, str):
        values = right if isinstance(right, tuple) else (right,)
        _require_narrow(values)
        budget.make(_formatted(left, values))
    elif operator in ("*", "**"):
        budget.make(_product(operator, left, right))
    elif operator == "+" and isinstance(left, str | list | tuple):
        budget.make(len(left) + (len(right) if isinstance(right, str | list | tuple) else 0))


def noted(result: Any) -> Any:
    """The result, its length counted; what comes one by one is counted one by one."""
    if isinstance(result, str | list | tuple | dict):
        BUDGET.get().make(len(result))
    elif isinstance(result, Iterator):
        return counted(result)
    return result


def _require_narrow(values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, int) and abs(value) > WIDEST:
            raise LimitError(f"{value} is more than {WIDEST}")


def _length_made(name: str, value: Any, given: Sequence[Any]) -> int:
    """At most, for what makes much of little; 0 where the result is about as long as `value`."""
    numbers = [number for number in given if isinstance(number, int)]
    texts = [text for text in given if isinstance(text, str)]
    if name in ("join", "sum"):
        return _joined_length(value, given)
    if not isinstance(value, str):
        return 0
    if name in ("indent", "expandtabs"):
        width = max([8, *numbers, *map(len, texts)])
        return len(value) + width * (1 + len(_BREAK.findall(value)))
    if name == "replace" and texts:
        found = value.count(texts[0]) if texts[0] else 1 + len(value)
        return len(value) + max(map(len, texts)) * found
    return _formatted(value, given) if name in ("format", "format_map") else 0


def _joined_length(value: Any, given: Sequence[Any]) -> int:
    """Of the filter, whose value are the pieces, and of the method, whose value is the glue."""
    pieces = next((one for one in (value, *given) if isinstance(one, list | tuple)), ())
    glue = max((len(one) for one in (value, *given) if isinstance(one, str)), default=0)
    return sum(glue + (len(one) if isinstance(one, str | list | tuple) else 20) for one in pieces)


def _formatted(layout: str, values: Sequence[Any]) -> int:
    if _WIDE.search(layout):
        raise LimitError("it formats to more than 9999 places")
    widths = sum(map(int, _NUMBER.findall(layout)))
    longest = max((_printed(value) for value in values), default=0)
    numbers = sum(value for value in values if isinstance(value, int) and value > 0)
    return len(layout) + widths + (layout.count("%") + layout.count("{")) * (longest + numbers)


def _printed(value: Any) -> int:
    """Characters that a value takes when it is written out, roughly. Raises LimitError."""
    budget, length, waiting = BUDGET.get(), 0, [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list | tuple):
            waiting += one
        elif isinstance(one, dict):
            waiting += [*one, *one.values()]
        length += 2 + (len(one) if isinstance(one, str) else 20)
        if length > LONGEST or len(waiting) > LONGEST:
            budget.make(LONGEST + 1)
    return length


def _product(operator: str, left: Any, right: Any) -> int:
    for items, times in ((left, right), (right, left)):
        if isinstance(items, str | list | tuple) and isinstance(times, int):
            return len(items) * max(0, times)
    if isinstance(left, int) and isinstance(right, int):
        power = operator == "**"
        bits = left.bit_length() * (right if power else 1) + (0 if power else right.bit_length())
        if bits > _MOST_BITS:
            raise LimitError(f"it computes a number of more than {_MOST_BITS} bits")
    return 0
