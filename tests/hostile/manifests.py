"""Manifests that break a MUST of docs/bundle.md: fields missing, of another kind, out of range."""

from __future__ import annotations

import copy
import hashlib
import json
from random import Random
from typing import Any

from json_texts import damaged

HALF = "\ud83d"
NOT_TEXT = (None, 7, 1.5, True, [], {}, ["x"], HALF)
NOT_TEXT_OR_NULL = NOT_TEXT[1:]
NOT_COUNT = ("9", 9.5, True, [], {}, None, -1, 0, 10**12, 10**400)
NOT_COUNT_OR_NULL = ("9", 9.5, True, [], {}, -1, 10**12)
NOT_OBJECT = (None, 7, "x", True, [1], HALF)
NOT_LIST = (None, 7, "x", True, {"a": 1})
NAMES = ("../x", "/etc/passwd", "a/b", "", ".", "..", "a\0b", "x" * 300, "a\nb", "\x1b[2J", "./a")

BASE = dict(
    zip(
        ("weights_sha256", "config_sha256", "tokenizer_sha256"),
        ("1" * 64, "2" * 64, "3" * 64),
        strict=True,
    )
)
RECORD = {"bytes": 5, "sha256": "0" * 64}
GRAPH = {
    "exporter": "x",
    "cache": "grown",
    "inputs": ["attention_mask"],
    "mixed": True,
    "many": True,
}
POSITIONS = {
    "kind": "relative",
    "rotations": [{"frequencies": [1.0, 0.5], "interleaved": False}],
    "layers": [0, None],
}


def honest_manifest() -> dict[str, Any]:
    """What has to be accepted."""
    identity = hashlib.sha256("\n".join(BASE.values()).encode()).hexdigest()
    return {
        "format_version": 1,
        "base": {**BASE, "name": "b", "sha256": identity},
        "model_type": "llama",
        "layers": [{"kv_heads": 2, "head_size": 16, "window": 8}, {"kv_heads": 2, "head_size": 16}],
        "vocabulary": 384,
        "max_positions": 64,
        "precision": "int8",
        "cache_dtype": "float32",
        "end_ids": [0],
        "begin_id": None,
        "pad_id": 1,
        "chat_template": None,
        "positions": copy.deepcopy(POSITIONS),
        "graph": dict(GRAPH),
        "files": {"decoder.onnx": dict(RECORD)},
        "parity": {"passed": True},
        "made_with": {"torch": "2"},
    }


FIELDS: dict[str, tuple[Any, ...]] = {
    "format_version": (0, 2, "1", 1.0, True, None, [1]),
    "base": (None, [], "b", 7, {}, {"name": "b"}, {**BASE, "name": "b", "sha256": "0" * 64}),
    "model_type": NOT_TEXT,
    "layers": (None, {}, [], "x", 7, [None], [1], [[]], [{}], ["x"]),
    "vocabulary": NOT_COUNT,
    "max_positions": NOT_COUNT,
    "precision": ("int3", "FP32", "", *NOT_TEXT),
    "cache_dtype": ("fp32", "", *NOT_TEXT_OR_NULL),
    "end_ids": (None, 0, "0", {}, ["0"], [-1], [None], [True], [1.5], [[0]], [10**12]),
    "begin_id": NOT_COUNT_OR_NULL,
    "pad_id": NOT_COUNT_OR_NULL,
    "chat_template": NOT_TEXT_OR_NULL,
    "special_tokens": (7, "x", [], ["x"], {"bos_token": 7}, {"bos_token": None}, {"a": HALF}),
    "files": (None, [], [1], "x", {"a": None}, {"a": 5}, {"a": []}, {"a": {}}),
    "parity": NOT_OBJECT,
    "made_with": NOT_OBJECT,
    "positions": (7, "x", [], {}, {"kind": "none"}, {**POSITIONS, "layers": [0]}),
    "graph": (7, "x", [], {}, {**GRAPH, "cache": "none"}, {**GRAPH, "inputs": ["w"]}),
}
INNER: tuple[tuple[tuple[Any, ...], tuple[Any, ...]], ...] = (
    (("base", "name"), NOT_TEXT),
    (("base", "weights_sha256"), ("9" * 64, *NOT_TEXT)),
    (("base", "sha256"), ("9" * 64, *NOT_TEXT)),
    (("layers", 0, "kv_heads"), NOT_COUNT),
    (("layers", 1, "head_size"), NOT_COUNT),
    (("layers", 0, "window"), NOT_COUNT_OR_NULL),
    (("files", "decoder.onnx", "bytes"), ("5", 1.5, True, None, -1, 10**30, [])),
    (("files", "decoder.onnx", "sha256"), NOT_TEXT),
    (("graph", "exporter"), NOT_TEXT),
    (("graph", "mixed"), (None, 1, "no", [])),
    (("graph", "many"), (None, 1, "no", [])),
    (("graph", "inputs"), (*NOT_LIST, [None], [["x"]], [7])),
    (("positions", "kind"), ("none", *NOT_TEXT)),
    (("positions", "layers"), (*NOT_LIST, ["0", None], [0], [2, None], [-1, None], [0.5, None])),
    (("positions", "rotations"), (*NOT_LIST, [None, None], [{}])),
    (("positions", "rotations", 0, "frequencies"), (*NOT_LIST, ["1"], [None], [[]], [True])),
    (("positions", "rotations", 0, "interleaved"), (None, 1, "no", [])),
)
NEEDED = (
    "format_version",
    "base",
    "model_type",
    "layers",
    "vocabulary",
    "max_positions",
    "precision",
)


def hostile_manifest(seed: int) -> tuple[str, bytes]:
    """What was done to it, and the file."""
    random = Random(seed)
    data = honest_manifest()
    way = random.random()
    if way < 0.2:
        return damaged(random, data)
    if way < 0.5:
        name = random.choice(list(FIELDS))
        data[name] = random.choice(FIELDS[name])
    elif way < 0.6:
        name = random.choice(NEEDED)
        del data[name]
    elif way < 0.7:
        name = "file name"
        data["files"] = {random.choice(NAMES): dict(RECORD)}
    elif way < 0.75:
        name = "nested parity"
        for _ in range(random.choice([101, 900])):
            data["parity"] = {"a": data["parity"]}
    else:
        path, values = random.choice(INNER)
        name, holder = ".".join(map(str, path)), data
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = random.choice(values)
    return name, json.dumps(data).encode()
