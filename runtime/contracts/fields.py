"""JSON objects read field by field: each value is of the kind that was asked for, or refused by
name. Numbers are no texts, and texts no numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MOST = 2**31 - 1
"""The largest count that fits all that it meets."""


class Fields:
    """One object. Every method raises ValueError that names the field; names that nobody asks for
    are ignored.
    """

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} holds {_kind(value)}, expected an object")
        self._values, self._where = value, where

    def text(self, name: str) -> str:
        """A string that must be there."""
        return str(self._of(name, str, "text"))

    def text_or_none(self, name: str) -> str | None:
        """A string; None when it is null or missing."""
        return None if self._values.get(name) is None else self.text(name)

    def truth(self, name: str) -> bool:
        """True or false, and it must be there."""
        return bool(self._of(name, bool, "true or false"))

    def count(self, name: str, *, least: int = 0) -> int:
        """A whole number from `least` to MOST, and it must be there."""
        return whole(self._of(name, int, "a whole number"), f"{self._where}{name!r}", least=least)

    def count_or_none(self, name: str, *, least: int = 0) -> int | None:
        """Like `count`; None when it is null or missing."""
        return None if self._values.get(name) is None else self.count(name, least=least)

    def size(self, name: str) -> int:
        """Bytes, and they must be there."""
        number = int(self._of(name, int, "a whole number"))
        if not 0 <= number < 1 << 63:
            raise ValueError(f"{self._where}{name!r} holds {number}, expected bytes")
        return number

    def values(self, name: str) -> Sequence[Any]:
        """A list that must be there."""
        return list(self._of(name, list | tuple, "a list"))

    def mapping(self, name: str) -> dict[str, Any]:
        """An object's values by name; empty when it is missing."""
        return dict(self._of(name, Mapping, "an object")) if name in self._values else {}

    def fields(self, name: str) -> Fields:
        """An object that must be there, to be read in turn."""
        return Fields(self._of(name, Mapping, "an object"), f"{name}.")

    def _of(self, name: str, kind: Any, expected: str) -> Any:
        if name not in self._values:
            raise ValueError(f"{self._where}{name!r} is missing")
        value = self._values[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{self._where}{name!r} holds {_kind(value)}, expected {expected}")
        return value


def whole(value: Any, what: str, *, least: int = 0) -> int:
    """A whole number from `least` to MOST. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST:
        shown = value if isinstance(value, int) else _kind(value)
        raise ValueError(f"{what} holds {shown}, expected a whole number of at least {least}")
    return value


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
