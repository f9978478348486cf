"""Damage to a JSON file that no reader may survive as if nothing had happened."""

from __future__ import annotations

import json
from random import Random
from typing import Any

DEEP = 5000


def damaged(random: Random, value: Any) -> tuple[str, bytes]:
    """What was done, and the bytes: never the JSON of an object."""
    text = json.dumps(value)
    data = text.encode()
    ways = {
        "truncated": data[: random.randrange(len(data))],
        "lengthened": data + random.choice([b"}", b"{}", b"x", b"\0"]),
        "nested lists": b"[" * DEEP,
        "nested objects": b'{"a":' * DEEP,
        "nested within": text.replace("{", '{"x":' + "[" * DEEP + "]" * DEEP + ",", 1).encode(),
        "not UTF-8": data.replace(b'"', b'"\xc3\x28', 1),
        "UTF-16": text.encode("utf-16"),
        "noise": random.randbytes(random.choice([1, 10, 1000])),
        "another value": random.choice([b"", b"null", b"[]", b"7", b'"x"', b"true", b"NaN"]),
        "quotes": data.replace(b'"', b"'"),
    }
    name = random.choice(list(ways))
    return name, ways[name]
