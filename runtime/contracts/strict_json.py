"""JSON as all our formats are read: one meaning for every text, and no text that breaks its reader.

Python's own reader takes the last of two equal keys, knows NaN and Infinity, and runs out of stack
on deep nesting. What comes from elsewhere is read here instead.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

DEEPEST = 100
"""Lists and objects within one another, at most."""
MOST_CONTAINERS = 100_000
"""Lists and objects of a document, at most: a few megabytes of `{}` would swell to gigabytes."""
_LONGEST_NUMBER = 308  # digits: what fp64 holds


def read_value(text: str) -> Any:
    """The value of a JSON text.

    Raises ValueError for what is no JSON, for keys that stand twice in one object, numbers beyond
    fp64, and nesting deeper than DEEPEST. Half characters ("\\ud83d") may be in it.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_float=_float,
            parse_int=_int,
        )
    except RecursionError as error:
        raise ValueError(f"nested more than {DEEPEST} deep") from error
    if text.count("[") + text.count("{") > DEEPEST:
        _require_flat(value)
    return value


def read_document(data: bytes) -> Any:
    """The value of a file's UTF-8 JSON. Raises ValueError as `read_value`, for half characters, and
    for more than MOST_CONTAINERS lists and objects.
    """
    if data.count(b"[") + data.count(b"{") > MOST_CONTAINERS:
        raise ValueError(f"more than {MOST_CONTAINERS} lists and objects")
    value = read_value(data.decode("utf-8"))
    json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError
    return value


def is_text(value: Any) -> bool:
    """Whether it is a string of whole characters, which can be encoded and printed."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"key {name!r} stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"number {text[:20]} is too large")
    return number


def _int(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} digits is too large")
    return int(text)


def _require_flat(value: Any) -> None:
    """Level by level, since a recursion could itself run out of stack."""
    level, depth = [value], 0
    while level:
        if depth > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} deep")
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        depth += 1
