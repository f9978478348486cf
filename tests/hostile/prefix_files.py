"""Prefix files as somebody would write them who knows the format and means harm. Every one of them
breaks a MUST of docs/prefix-file.md; the same seed gives the same file.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "i1", "F64": "<f8", "BOOL": "?"}
HALF = "\ud83d"
NOT_TEXT = (None, 7, 1.5, True, [], {}, ["x"], HALF, f"a{HALF}b")
NOT_TEXTS = (None, 7, "x", True, {}, [1], [None], [["x"]], [HALF], ["ok", {}])
NOT_OBJECT = (None, 7, "x", True, [], [1])
NOT_NUMBER = ("x", True, [], {}, "0.5")
DEEP = 3000


@dataclass
class Draft:
    """A prefix file before it is written: two layers, a header whose hash is made to fit."""

    header: dict[str, Any]
    tensors: dict[str, tuple[str, list[int], bytes]]
    hash_fits: bool = True
    metadata: dict[str, Any] = field(default_factory=dict)
    entries: dict[str, Any] = field(default_factory=dict)
    """Overrides of the container's own header."""


Change = Callable[[Random, Draft], None]


def draft(random: Random) -> Draft:
    """An honest file in one of the four dtypes."""
    dtype = random.choice(["F32", "F16", "BF16", "I8"])
    tensors = {}
    for layer in range(2):
        for kind in ("key", "value"):
            name = f"past_key_values.{layer}.{kind}"
            tensors[name] = tensor(dtype, [2, 3, 4], random.randrange(1, 100))
            if dtype == "I8":
                tensors[f"{name}.scale"] = tensor("F32", [2, 3, 1], 1)
    parts = [digit * 64 for digit in "123"]
    base = dict(zip(("weights_sha256", "config_sha256", "tokenizer_sha256"), parts, strict=True))
    base |= {"name": "b", "sha256": hashlib.sha256("\n".join(parts).encode()).hexdigest()}
    pack = {
        "prompt": "{input}\n", "labels": ["a", "b"], "stop": ["\n"], "licence": "MIT",
        "generation": {"max_new_tokens": 9}, "recipe": {"method": "x"}, "metrics": {"bleu": 1.5},
    }  # fmt: skip
    return Draft({"format_version": 1, "task": "t", "base": base, "pack": pack}, tensors)


def tensor(dtype: str, shape: list[int], value: float = 1.0) -> tuple[str, list[int], bytes]:
    """A tensor full of one number (BF16: of its bits)."""
    array = np.full([max(0, size) for size in shape], value, DTYPES[dtype])
    return dtype, shape, array.tobytes()


def written(made: Draft) -> bytes:
    """The file. Its container is written here, and not by the code that is tested."""
    header = dict(made.header)
    if made.hash_fits:
        header["content_sha256"] = content_hash(header, made.tensors)
    position, entries = 0, {}
    for name, (dtype, shape, data) in made.tensors.items():
        offsets = [position, position + len(data)]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        position += len(data)
    metadata = {"edgeprefix": json.dumps(header)} | made.metadata
    data = b"".join(data for _, _, data in made.tensors.values())
    return container({"__metadata__": metadata} | entries | made.entries, data)


def container(entries: Any, data: bytes) -> bytes:
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + data


def content_hash(header: dict[str, Any], tensors: dict[str, tuple[str, list[int], bytes]]) -> str:
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    for name, (dtype, shape, data) in sorted(tensors.items()):
        digest.update(json.dumps([name, dtype, shape]).encode())
        digest.update(data)
    return digest.hexdigest()


# Header ---------------------------------------------------------------------------------------


def other_version(random: Random, made: Draft) -> None:
    made.header["format_version"] = random.choice([0, 2, -1, 1.0, True, "1", None, [1], 10**30])


def no_task_name(random: Random, made: Draft) -> None:
    names = ("", "../x", "a/b", "a\0", "-x", ".x", "x" * 129, "ü", "a b", "a\n", "a\\b", "/")
    made.header["task"] = random.choice([*names, *NOT_TEXT])


def other_base(random: Random, made: Draft) -> None:
    part = random.choice(list(made.header["base"]))
    if part == "name":
        made.header["base"][part] = random.choice(NOT_TEXT)
    else:
        made.header["base"][part] = random.choice(["9" * 64, "", *NOT_TEXT])


def field_missing(random: Random, made: Draft) -> None:
    del made.header[random.choice(["format_version", "task", "base", "pack"])]


def part_of_base_missing(random: Random, made: Draft) -> None:
    del made.header["base"][random.choice(list(made.header["base"]))]


def no_object(random: Random, made: Draft) -> None:
    made.header[random.choice(["base", "pack"])] = random.choice(NOT_OBJECT)


def pack_of_another_kind(random: Random, made: Draft) -> None:
    kinds = {
        "prompt": NOT_TEXT, "licence": NOT_TEXT, "labels": NOT_TEXTS, "stop": NOT_TEXTS,
        "generation": NOT_OBJECT, "recipe": NOT_OBJECT, "metrics": NOT_OBJECT,
        "continues_text": (None, 1, "true", []),
    }  # fmt: skip
    name = random.choice(list(kinds))
    made.header["pack"][name] = random.choice(kinds[name])


def no_prompt_template(random: Random, made: Draft) -> None:
    bad = (
        "{",
        "}",
        "{}",
        "{0}",
        "{a.b}",
        "{a[0]}",
        "{a!r}",
        "{a:>9}",
        "{a" * 50,
        "{input.__class__}",
    )
    made.header["pack"]["prompt"] = random.choice(bad)


def defaults_of_another_kind(random: Random, made: Draft) -> None:
    names = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    made.header["pack"]["generation"] = {random.choice(names): random.choice(NOT_NUMBER)}


def defaults_out_of_range(random: Random, made: Draft) -> None:
    values = {
        "max_new_tokens": (0, -5, 1.5, 10**400), "temperature": (-1, -0.001), "top_k": (-1, 2.5),
        "top_p": (0, -1, 1.01), "min_p": (-0.1, 1.1), "repetition_penalty": (0, -1),
    }  # fmt: skip
    name = random.choice(list(values))
    made.header["pack"]["generation"] = {name: random.choice(values[name])}


def empty_stop(random: Random, made: Draft) -> None:
    made.header["pack"]["stop"] = random.choice([[""], ["a", ""], ["", "", "b"]])


def nested_header(random: Random, made: Draft) -> None:
    value: Any = 0
    for _ in range(random.choice([101, 400, 900])):
        value = [value] if random.random() < 0.5 else {"a": value}
    made.header["pack"]["recipe"] = {"deep": value}


def number_beyond_fp64(random: Random, made: Draft) -> None:
    made.header["pack"]["metrics"] = {"n": random.choice([10**400, -(10**309)])}


def wrong_hash(random: Random, made: Draft) -> None:
    made.hash_fits = False
    made.header["content_sha256"] = random.choice(["0" * 64, "", None, 7, [], HALF])


# Tensors --------------------------------------------------------------------------------------


def tensor_missing(random: Random, made: Draft) -> None:
    del made.tensors[random.choice(list(made.tensors))]


def tensor_renamed(random: Random, made: Draft) -> None:
    new = random.choice([
        "", "w", "past_key_values.2.key", "past_key_values.00.key", "past_key_values.٣.key",
        "past_key_values.-1.value", "past_key_values.0.query", "past_key_values.0.key.scale.scale",
        "past_key_values.99999999999.key", "__metadata_", "past_key_values.1.value\n",
    ])  # fmt: skip
    old = random.choice([name for name in made.tensors if not name.endswith(".scale")])
    made.tensors[new] = made.tensors.pop(old)


def tensor_too_many(random: Random, made: Draft) -> None:
    name = random.choice(["extra", "past_key_values.7.key", "past_key_values.9.key.scale", "É"])
    made.tensors[name] = tensor("F32", [2, 3, 4])


def odd_shape(random: Random, made: Draft) -> None:
    shapes = ([], [24], [6, 4], [1, 2, 3, 4], [0, 3, 4], [2, 0, 4], [2, 3, 0], [2, 4, 3], [3, 3, 4],
              [2, 5, 4])  # fmt: skip
    name = random.choice([name for name in made.tensors if not name.endswith(".scale")])
    made.tensors[name] = tensor(made.tensors[name][0], list(random.choice(shapes)))
    made.tensors.pop(f"{name}.scale", None)
    if made.tensors[name][0] == "I8":
        made.tensors[f"{name}.scale"] = tensor("F32", [*made.tensors[name][1][:-1], 1])


def no_number(random: Random, made: Draft) -> None:
    name = random.choice([name for name in made.tensors if made.tensors[name][0] != "I8"])
    dtype, shape, data = made.tensors[name]
    bits = {"F32": (0x7F800000, 0xFF800000, 0x7FC00000), "F16": (0x7C00, 0xFC00, 0x7E01),
            "BF16": (0x7F80, 0xFF80, 0x7FC1)}[dtype]  # fmt: skip
    size = 4 if dtype == "F32" else 2
    place = random.randrange(len(data) // size) * size
    bad = random.choice(bits).to_bytes(size, "little")
    made.tensors[name] = (dtype, shape, data[:place] + bad + data[place + size :])


def unknown_dtype(random: Random, made: Draft) -> None:
    name = random.choice([name for name in made.tensors if not name.endswith(".scale")])
    made.tensors[name] = tensor(random.choice(["F64", "BOOL"]), made.tensors[name][1])


def scales_that_do_not_fit(random: Random, made: Draft) -> None:
    name = "past_key_values.0.key"
    made.tensors[name] = tensor("I8", [2, 3, 4], 127)
    made.tensors.pop(f"{name}.scale", None)
    bad = [
        ("F32", [2, 3, 4], 1.0), ("F32", [2, 3], 1.0), ("F32", [1], 1.0), ("F16", [2, 3, 1], 1.0),
        ("F32", [2, 3, 1], float("nan")), ("F32", [2, 3, 1], 3e38), ("F32", [2, 3, 0], 1.0), None,
    ]  # fmt: skip
    if (chosen := random.choice(bad)) is not None:
        made.tensors[f"{name}.scale"] = tensor(*chosen)


def stray_scale(random: Random, made: Draft) -> None:
    name = random.choice(["past_key_values.0.key", "past_key_values.1.value"])
    made.tensors[name] = tensor("F32", [2, 3, 4])
    made.tensors[f"{name}.scale"] = tensor("F32", [2, 3, 1])


# Container ------------------------------------------------------------------------------------


def odd_entry(random: Random, made: Draft) -> None:
    name = random.choice(list(made.tensors))
    dtype, shape, data = made.tensors[name]
    entry: dict[str, Any] = {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}
    key = random.choice(list(entry))
    values = {
        "dtype": ["F33", "", None, 4, [], HALF],
        "shape": [[-2, 3, 4], [2.5, 3, 4], "2", None, [2**63, 2**63, 4], [2**40, 3, 4], {}],
        "data_offsets": [[0, 2**63], [8, 0], [-4, 4], [0], [0, 1, 2], None, ["0", "8"], [1.5, 9],
                         [10**6, 10**6 + 96]],
    }  # fmt: skip
    entry[key] = random.choice(values[key])
    made.entries[name] = random.choice([entry, None, [], "x", 7]) if key == "dtype" else entry
    if made.entries[name] == entry and entry[key] == dtype:
        made.entries[name] = None


def odd_metadata(random: Random, made: Draft) -> None:
    made.entries["__metadata__"] = random.choice(
        [None, [], {}, "x", 7, {"edgeprefix": None}, {"edgeprefix": {}}, {"edgeprefix": "[]"},
         {"edgeprefix": "null"}, {"edgeprefix": ""}, {"edgeprefix": "{"}, {"Edgeprefix": "{}"},
         {"edgeprefix": "[" * DEEP}, {"edgeprefix": '{"a":' * DEEP}, {"edgeprefix": "NaN"},
         {"edgeprefix": '{"task":"a","task":"b"}'}, {"edgeprefix": "9" * 5000},
         {"edgeprefix": '{"task":1e999}'}, {"edgeprefix": "{}", "x": 1}]
    )  # fmt: skip


def more_metadata(random: Random, made: Draft) -> None:
    made.metadata["other"] = random.choice([None, 7, [], {}, HALF])


CHANGES: tuple[Change, ...] = (
    other_version, no_task_name, other_base, field_missing, part_of_base_missing, no_object,
    pack_of_another_kind, no_prompt_template, defaults_of_another_kind, defaults_out_of_range,
    empty_stop, nested_header,
    number_beyond_fp64, wrong_hash, tensor_missing, tensor_renamed, tensor_too_many, odd_shape,
    no_number, unknown_dtype, scales_that_do_not_fit, stray_scale, odd_entry, odd_metadata,
    more_metadata,
)  # fmt: skip


# Bytes ----------------------------------------------------------------------------------------


def truncated(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(len(data))]


def lengthened(random: Random, data: bytes) -> bytes:
    return data + random.randbytes(random.choice([1, 8, 4096]))


def flipped(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 1, 3])):
        changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(changed) if bytes(changed) != data else data[:-1]


def odd_length(random: Random, data: bytes) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    odd = [0, 1, length - 1, length + 1, len(data), len(data) - 7, 2**31, 2**63, 2**64 - 1]
    return struct.pack("<Q", random.choice(odd)) + data[8:]


def odd_header(random: Random, data: bytes) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    header, rest = data[8 : 8 + length], data[8 + length :]
    texts = [
        b"", b"{", b"null", b"[]", b"7", b'"x"', b"\xff\xfe" + header, b"\xef\xbb\xbf" + header,
        header.decode().encode("utf-16"), header[:-1], header + b"x", b"[" * DEEP, b'{"a":' * DEEP,
        header.replace(b"{", b'{"past_key_values.0.key":1,', 1), header.replace(b'"', b"'"),
        header[:-1] + b',"__metadata__":{}}', header.replace(b"F", b"\xc3\x28"),
    ]  # fmt: skip
    text = random.choice(texts)
    return struct.pack("<Q", len(text)) + text + rest


def spliced(random: Random, data: bytes) -> bytes:
    start = random.randrange(len(data))
    end = min(len(data), start + random.randrange(1, 40))
    cut = random.choice([b"", random.randbytes(end - start), data[start:end] * 2])
    changed = data[:start] + cut + data[end:]
    return changed if changed != data else data[:-1]


def noise(random: Random, data: bytes) -> bytes:
    return random.randbytes(random.choice([0, 7, 8, 9, 100, 2000]))


BYTES = (truncated, lengthened, flipped, odd_length, odd_header, spliced, noise)


def hostile_prefix_file(seed: int) -> tuple[str, bytes]:
    """What was done to it, and the file."""
    random = Random(seed)
    made = draft(random)
    if random.random() < 0.35:
        alter = random.choice(BYTES)
        return alter.__name__, alter(random, written(made))
    change = random.choice(CHANGES)
    change(random, made)
    return change.__name__, written(made)


def swelling_prefix_file(seed: int) -> tuple[str, bytes]:
    """The largest header that is read, full of what takes far more memory than bytes."""
    unit = (b"{},", b"[],", b'{"":0},', b"0,", b'"",', b"[[[[]]]],")[seed % 6]
    most = 4 << 20
    text = b'{"__metadata__":{"edgeprefix":"{}"},"x":[' + unit * ((most - 60) // len(unit)) + b"0]}"
    return unit.decode(), struct.pack("<Q", len(text)) + text


def honest_prefix_file(seed: int) -> bytes:
    """The same file before anything was done to it: it has to be accepted."""
    return written(draft(Random(seed)))
