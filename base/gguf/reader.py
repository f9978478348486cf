"""A GGUF file read: its facts and the table of its tensors. No tensor is read before it is asked
for.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. A model may be cut into files
NAME-00001-of-0000N.gguf; any of them stands for all. Nothing that a file says is believed before it
is checked against the file's size.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgeprefix.base.gguf.kinds import Kind, kind_of
from edgeprefix.base.rounding import Bytes
from edgeprefix.runtime.errors import CheckpointError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32  # of the tensors' data, where the file states no other
_LONGEST_NAME = 64 * 1024  # bytes of a key
_DIMENSIONS = 4  # that a tensor may have
_NUMBERS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?",
    10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_PART = re.compile(r"(.*-)(\d{5})(-of-)(\d{5})(\.gguf)", re.IGNORECASE)
_REMEDY = "download or copy it again"


class GgufTensor(NamedTuple):
    """One tensor: its shape as torch has it, and its bytes, mapped and not yet read."""

    kind: Kind
    shape: tuple[int, ...]
    data: Bytes
    """[rows, bytes of a row]."""
    mapped: mmap.mmap

    def give_back(self) -> None:
        """Lets go of the resident pages of its bytes; they are read from the file again when they
        are needed.
        """
        if not hasattr(mmap, "MADV_DONTNEED") or not self.data.size:
            return
        start = self.data.ctypes.data - np.frombuffer(self.mapped, np.uint8).ctypes.data
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (start + self.data.size) // mmap.PAGESIZE * mmap.PAGESIZE
        if first < end:
            self.mapped.madvise(mmap.MADV_DONTNEED, first, end - first)


@dataclass(frozen=True, eq=False)
class GgufFile:
    """What a GGUF file holds; of a model in several files, what all of them hold."""

    path: Path
    """The first file."""
    parts: tuple[Path, ...]
    facts: Mapping[str, Any]
    """Key → value: numbers, texts, lists of texts, numpy arrays of numbers."""
    tensors: Mapping[str, GgufTensor]

    @classmethod
    def open(cls, path: Path) -> GgufFile:
        """Reads facts and tables. Raises CheckpointError when a file is no GGUF file, is damaged
        or cut off, or when a part of the model is missing.
        """
        parts = parts_of(path)
        facts, tensors = _read(parts[0])
        _require_parts(parts, facts)
        for part in parts[1:]:
            for name, tensor in _read(part)[1].items():
                if name in tensors:
                    raise CheckpointError(f"{part}: tensor {name} is in another part as well")
                tensors[name] = tensor
        if not tensors:
            raise CheckpointError(f"{parts[0]} holds no tensors: it is no model; {_REMEDY}")
        return cls(parts[0], parts, facts, tensors)

    @property
    def architecture(self) -> str:
        """What kind of model it is, in llama.cpp's words. Raises CheckpointError without one."""
        found = self.facts.get("general.architecture")
        if not isinstance(found, str):
            raise CheckpointError(
                f"{self.path} names no general.architecture: it is no model of llama.cpp's; give a "
                "GGUF file that llama.cpp runs"
            )
        return found


def is_gguf(path: Path) -> bool:
    """Whether a file is one of GGUF's by its name, or by what it begins with."""
    if not path.is_file():
        return False
    if path.suffix.lower() == ".gguf":
        return True
    try:
        with open(path, "rb") as stream:
            return stream.read(len(_MAGIC)) == _MAGIC
    except OSError:  # a file that nobody may read is no base of any kind
        return False


def part_names(name: str) -> list[str]:
    """The names of all files of the model that the file `name` belongs to; most models are one."""
    named = _PART.fullmatch(name)
    if named is None or int(named[4]) < 1:
        return [name]
    start, _, of, count, suffix = named.groups()
    return [f"{start}{number:05d}{of}{count}{suffix}" for number in range(1, int(count) + 1)]


def parts_of(path: Path) -> tuple[Path, ...]:
    """All files of the model that `path` is a file of. Raises CheckpointError when one is not
    there.
    """
    found = tuple(path.with_name(name) for name in part_names(path.name))
    if missing := [part.name for part in found if not part.is_file()]:
        raise CheckpointError(
            f"{path} is one of {len(found)} files of a model, and {', '.join(missing[:3])} is not "
            "beside it; download the missing files into the same folder"
        )
    return found


def _require_parts(parts: tuple[Path, ...], facts: Mapping[str, Any]) -> None:
    count = facts.get("split.count", 1)
    if count not in (0, len(parts)):
        raise CheckpointError(
            f"{parts[0]} is the first of {count} files of a model, and its name does not say how "
            "the others are called; name them NAME-00001-of-0000N.gguf, as llama.cpp does"
        )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
    """The facts and the tensors of one file."""
    cursor = _Cursor(path)
    tensor_count, fact_count = _counts(cursor)
    facts: dict[str, Any] = {}
    for _ in range(fact_count):
        key = cursor.text(f"key {len(facts) + 1}", _LONGEST_NAME)
        if key in facts:
            raise cursor.damaged(f"{key} is stated twice")
        facts[key] = cursor.value(key)
    entries = [_entry(cursor, number) for number in range(tensor_count)]
    start = _aligned(cursor.place, _alignment(cursor, facts))
    return facts, dict(_tensors(cursor, entries, start))


def _counts(cursor: _Cursor) -> tuple[int, int]:
    """How many tensors and facts follow, once it is a GGUF file of a version that can be read."""
    magic = bytes(cursor.take(4, "its first bytes"))
    if magic != _MAGIC:
        raise CheckpointError(
            f"{cursor.path} is no GGUF file (it begins with {magic!r}); give the folder of a "
            "checkpoint, a GGUF file, or a hub id"
        )
    version = int(cursor.number("<u4", "its version"))
    if version not in _VERSIONS:
        turned = int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS
        raise CheckpointError(
            f"{cursor.path} is "
            + ("a GGUF file for big-endian machines" if turned else f"GGUF version {version}")
            + f"; versions {' and '.join(map(str, _VERSIONS))}, little-endian, can be read"
        )
    return cursor.number("<u8", "its counts"), cursor.number("<u8", "its counts")


def _alignment(cursor: _Cursor, facts: Mapping[str, Any]) -> int:
    alignment = facts.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise cursor.damaged(f"general.alignment is {alignment!r}, expected a power of two")
    return alignment


def _aligned(place: int, alignment: int) -> int:
    return -(-place // alignment) * alignment


class _Entry(NamedTuple):
    """A line of the table of tensors; `offset` counts from where the data begin."""

    name: str
    kind: Kind
    shape: tuple[int, ...]
    offset: int


def _entry(cursor: _Cursor, number: int) -> _Entry:
    name = cursor.text(f"the name of tensor {number + 1}", _LONGEST_NAME)
    count = int(cursor.number("<u4", name))
    if not 1 <= count <= _DIMENSIONS:
        raise cursor.damaged(f"tensor {name} has {count} dimensions")
    shape = tuple(int(cursor.number("<u8", name)) for _ in range(count))[::-1]
    kind = kind_of(int(cursor.number("<u4", name)), where=f"{cursor.path}: tensor {name}")
    if 0 in shape or shape[-1] % kind.numbers:
        raise cursor.damaged(
            f"tensor {name} has the shape {list(shape)}, and {kind.name} holds numbers "
            f"{kind.numbers} at a time"
        )
    return _Entry(name, kind, shape, int(cursor.number("<u8", name)))


def _tensors(
    cursor: _Cursor, entries: list[_Entry], start: int
) -> Iterator[tuple[str, GgufTensor]]:
    """The tensors by name, once none lies outside the file or over another."""
    end_before = 0
    for entry in sorted(entries, key=lambda entry: entry.offset):
        row = entry.shape[-1] // entry.kind.numbers * entry.kind.bytes
        rows = prod(entry.shape[:-1])
        end = start + entry.offset + rows * row
        if entry.offset < end_before:
            raise cursor.damaged(f"tensor {entry.name} lies over another")
        if end > cursor.size:
            raise CheckpointError(
                f"{cursor.path} is truncated: {end - cursor.size:,} bytes of tensor {entry.name} "
                f"are missing; {_REMEDY}"
            )
        end_before = entry.offset + rows * row
        data = cursor.bytes[start + entry.offset : end].reshape(rows, row)
        yield entry.name, GgufTensor(entry.kind, entry.shape, data, cursor.mapped)
    if len({entry.name for entry in entries}) < len(entries):
        raise cursor.damaged("two tensors have one name")


class _Cursor:
    """Reads a mapped file from front to back; what lies beyond its end is an error."""

    def __init__(self, path: Path) -> None:
        self.path, self.place = path, 0
        try:
            with open(path, "rb") as stream:
                self.mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: it is empty
            raise CheckpointError(f"{path} cannot be read: {error}; {_REMEDY}") from error
        self.bytes: Bytes = np.frombuffer(self.mapped, np.uint8)
        self.size = len(self.mapped)
        self._view = memoryview(self.mapped)

    def damaged(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path} is damaged: {what}; {_REMEDY}")

    def take(self, count: int, what: str) -> memoryview:
        """The next `count` bytes."""
        if count > self.size - self.place:
            raise CheckpointError(
                f"{self.path} is truncated: it ends within {what}, byte {self.size:,}; {_REMEDY}"
            )
        start, self.place = self.place, self.place + count
        return self._view[start : self.place]

    def number(self, form: str, what: str) -> Any:
        size = np.dtype(form).itemsize
        return np.frombuffer(self.take(size, what), form)[0].item()

    def text(self, what: str, longest: int | None = None) -> str:
        (length,) = struct.unpack("<Q", self.take(8, what))
        if longest is not None and length > longest:
            raise self.damaged(f"{what} has {length:,} bytes")
        try:
            return str(self.take(length, what), "utf-8")
        except UnicodeDecodeError as error:
            raise self.damaged(f"{what} is no text: {error}") from error

    def value(self, key: str) -> Any:
        kind = self.number("<u4", key)
        if kind == _STRING:
            return self.text(key)
        if kind == _ARRAY:
            return self._array(key)
        return self.number(self._form(kind, key), key)

    def _array(self, key: str) -> Any:
        kind, count = self.number("<u4", key), self.number("<u8", key)
        if kind == _STRING:
            if 8 * count > self.size - self.place:
                raise self.damaged(f"{key} has {count:,} entries, more than the file can hold")
            return [self.text(key) for _ in range(count)]
        form = self._form(kind, key)
        return np.frombuffer(self.take(count * np.dtype(form).itemsize, key), form)

    def _form(self, kind: int, key: str) -> str:
        if kind not in _NUMBERS:
            raise self.damaged(f"{key} is of a type {kind} that GGUF does not have")
        return _NUMBERS[kind]
