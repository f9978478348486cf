"""The prefix file: written here, read here, specified in docs/prefix-file.md.

A safetensors file with `past_key_values.{i}.key` and `.value` of shape [H, P, D] for each layer i,
and one metadata entry `edgeprefix` that holds the header: format version, task name, base identity,
content hash and task pack. Reading verifies everything before anything is used; writing is atomic.
The same prefix always gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors

from edgeprefix.runtime.contracts.files import write_atomic
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.contracts.prompt import template_fields
from edgeprefix.runtime.contracts.regular_file import open_regular
from edgeprefix.runtime.contracts.signature import SIGNATURE_KEY, SigningKey, TrustedKeys
from edgeprefix.runtime.contracts.strict_json import read_document
from edgeprefix.runtime.contracts.task_pack import TaskPack
from edgeprefix.runtime.errors import PrefixFileError, TemplateError

FORMAT_VERSION = 1
DTYPES = ("fp32", "fp16", "bf16", "int8")

LARGEST_FILE_BYTES = 4 << 30
"""Larger files are refused before they are read, unless a caller says less."""
LARGEST_HEADER_BYTES = 4 << 20

_METADATA_KEY = "edgeprefix"
_TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TENSOR_NAME = re.compile(r"past_key_values\.([0-9]{1,5})\.(key|value)(\.scale)?")
_FILE_DTYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "int8": "I8"}
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1}
_FP16_MAX = float(np.finfo(np.float16).max)

Array = npt.NDArray[np.float32]


class PrefixLayer(NamedTuple):
    """One layer's keys and values, each fp32 [H, P, D]; keys as they lie in the cache (after rotary
    embedding).
    """

    key: Array
    value: Array


class _Tensor(NamedTuple):
    """A tensor as it lies in the file."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Prefix:
    """A task's keys and values with all that it takes to run them.

    `layers` are held in fp32; `dtype` is the precision that the file keeps. Raises PrefixFileError
    when name, shapes or numbers cannot be a prefix.

    >>> prefix = Prefix.load("e2e.safetensors")  # doctest: +SKIP
    >>> prefix.length, prefix.base.name  # doctest: +SKIP
    (20, 'base')
    """

    name: str
    base: BaseIdentity
    layers: tuple[PrefixLayer, ...]
    pack: TaskPack = field(default_factory=TaskPack)
    dtype: str = "fp32"

    def __post_init__(self) -> None:
        if not _TASK_NAME.fullmatch(self.name):
            raise PrefixFileError(
                f"task name {self.name[:140]!r} cannot be used: letters, digits, '.', '_' and '-' "
                "only, at most 128 of them"
            )
        if self.dtype not in DTYPES:
            raise PrefixFileError(
                f"prefix dtype {self.dtype!r} is unknown; choose one of {', '.join(DTYPES)}"
            )
        _check_layers(self.layers)
        try:
            template_fields(self.pack.prompt)
        except TemplateError as error:
            raise PrefixFileError(f"task pack: {error}") from error

    @property
    def length(self) -> int:
        """P, the number of positions that the prefix takes up."""
        return int(self.layers[0].key.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values in fp32, as they are held in memory."""
        return sum(layer.key.nbytes + layer.value.nbytes for layer in self.layers)

    def with_dtype(self, dtype: str) -> Prefix:
        """The same prefix, kept in another precision when saved: fp32, fp16, bf16 or int8."""
        return dataclasses.replace(self, dtype=dtype)

    def to_bytes(self) -> bytes:
        """The file's content. Raises PrefixFileError when a number does not fit the dtype (fp16
        overflow).
        """
        tensors: dict[str, _Tensor] = {}
        for index, layer in enumerate(self.layers):
            for kind, array in (("key", layer.key), ("value", layer.value)):
                tensors |= _encode(f"past_key_values.{index}.{kind}", array, self.dtype)
        header = {
            "format_version": FORMAT_VERSION,
            "task": self.name,
            "base": self.base.to_json(),
            "pack": self.pack.to_json(),
        }
        header["content_sha256"] = _content_hash(header, tensors)
        return _serialize(tensors, {_METADATA_KEY: _canonical_json(header)})

    def save(self, path: str | Path) -> None:
        """Writes the file whole or not at all. Raises OutputError, PrefixFileError."""
        write_atomic(path, self.to_bytes())

    @classmethod
    def from_bytes(
        cls, data: bytes, *, source: str = "prefix", trusted_keys: TrustedKeys | None = None
    ) -> Prefix:
        """Reads and verifies a file's content; `source` names it in messages.

        Raises PrefixFileError for anything that is not a whole, unaltered prefix file of a known
        version, SignatureError unless one of `trusted_keys` signed it, when they are given.
        """
        try:
            metadata = _metadata(data)
            header = _header(metadata)
            prefix = _decode_prefix(header, _tensors(data))
            if trusted_keys is not None:
                trusted_keys.require(metadata.get(SIGNATURE_KEY), header["content_sha256"])
            return prefix
        except PrefixFileError as error:
            raise type(error)(f"{source}: {error}") from error

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        trusted_keys: TrustedKeys | None = None,
        largest_bytes: int = LARGEST_FILE_BYTES,
    ) -> Prefix:
        """Reads and verifies a prefix file. Raises as `from_bytes`, also when the file is missing,
        no regular file, larger than `largest_bytes`, or foreign: its header is looked at before the
        rest is read.
        """
        data = read_prefix_bytes(path, largest_bytes=largest_bytes)
        return cls.from_bytes(data, source=str(path), trusted_keys=trusted_keys)


def sign_prefix(data: bytes, key: SigningKey) -> bytes:
    """A prefix file's content with the key's signature in place of one that was there; nothing else
    changes. Raises PrefixFileError as `Prefix.from_bytes`.
    """
    Prefix.from_bytes(data)
    entries, metadata = _entries(data), _metadata(data)
    claim = key.sign(_header(metadata)["content_sha256"])
    entries["__metadata__"] = metadata | {SIGNATURE_KEY: _canonical_json(claim)}
    return _container(entries, data[8 + _header_length(data) :])


def read_signature(data: bytes) -> str | None:
    """The text of a prefix file's signature, unchecked; None when it is not signed."""
    return _metadata(data).get(SIGNATURE_KEY)


def _check_layers(layers: Sequence[PrefixLayer]) -> None:
    if not layers:
        raise PrefixFileError("a prefix needs at least one layer")
    lengths = set()
    for index, (key, value) in enumerate(layers):
        for kind, array in (("key", key), ("value", value)):
            if array.dtype != np.float32 or array.ndim != 3 or 0 in array.shape:
                raise PrefixFileError(
                    f"layer {index} {kind} is {array.dtype} {array.shape}, expected fp32 [H, P, D]"
                )
            if not np.isfinite(array).all():
                raise PrefixFileError(f"layer {index} {kind} holds NaN or infinity")
        if key.shape[:2] != value.shape[:2]:
            raise PrefixFileError(
                f"layer {index}: key {key.shape} and value {value.shape} differ in heads or "
                "positions"
            )
        lengths.add(key.shape[1])
    if len(lengths) > 1:
        raise PrefixFileError(f"layers differ in length: {sorted(lengths)} positions")


def _encode(name: str, array: Array, dtype: str) -> dict[str, _Tensor]:
    file_dtype, shape = _FILE_DTYPES[dtype], array.shape
    if dtype == "fp32":
        return {name: _Tensor(file_dtype, shape, array.astype("<f4").tobytes())}
    if dtype == "bf16":
        return {name: _Tensor(file_dtype, shape, _to_bf16(array).astype("<u2").tobytes())}
    if dtype == "fp16":
        largest = float(np.abs(array).max())
        if largest > _FP16_MAX:
            raise PrefixFileError(
                f"{name} reaches {largest:.0f}, more than fp16 holds ({_FP16_MAX:.0f}); save it "
                "as bf16 or fp32"
            )
        return {name: _Tensor(file_dtype, shape, array.astype("<f2").tobytes())}
    # [H, P, 1]
    scale = np.maximum(np.abs(array).max(axis=-1, keepdims=True) / 127.0, np.finfo(np.float32).tiny)
    rounded = np.clip(np.rint(array / scale), -127, 127).astype(np.int8)
    return {
        name: _Tensor(file_dtype, shape, rounded.tobytes()),
        f"{name}.scale": _Tensor("F32", scale.shape, scale.astype("<f4").tobytes()),
    }


def _to_bf16(array: Array) -> npt.NDArray[np.uint16]:
    """Round to nearest even on the upper 16 bits of each fp32."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype(np.uint16)


def _decode(name: str, tensors: Mapping[str, _Tensor]) -> Array:
    tensor = tensors[name]
    if tensor.dtype == "F32":
        array = np.frombuffer(tensor.data, "<f4")
    elif tensor.dtype == "F16":
        array = np.frombuffer(tensor.data, "<f2")
    elif tensor.dtype == "BF16":
        array = (np.frombuffer(tensor.data, "<u2").astype(np.uint32) << np.uint32(16)).view(
            np.float32
        )
    elif tensor.dtype == "I8":
        return _decode_int8(name, tensors)
    else:
        raise PrefixFileError(
            f"tensor {name} has dtype {tensor.dtype}; known are {', '.join(_FILE_DTYPES.values())}"
        )
    return array.astype(np.float32).reshape(tensor.shape)


def _decode_int8(name: str, tensors: Mapping[str, _Tensor]) -> Array:
    tensor, scale = tensors[name], tensors.get(f"{name}.scale")
    expected = (*tensor.shape[:-1], 1)
    if scale is None or scale.dtype != "F32" or scale.shape != expected:
        raise PrefixFileError(
            f"int8 tensor {name} needs {name}.scale, F32 of shape {list(expected)}"
        )
    steps = np.frombuffer(tensor.data, np.int8).astype(np.float32).reshape(tensor.shape)
    with np.errstate(over="ignore", invalid="ignore"):  # what is infinite then is refused
        array: Array = steps * np.frombuffer(scale.data, "<f4").astype(np.float32).reshape(expected)
    return array


def _decode_prefix(header: Mapping[str, Any], tensors: Mapping[str, _Tensor]) -> Prefix:
    version = header.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:  # 1.0 and true equal 1
        raise PrefixFileError(
            f"format version {version!r} is unknown (this edgeprefix reads {FORMAT_VERSION}); "
            "upgrade edgeprefix"
        )
    claimed = header.get("content_sha256")
    actual = _content_hash(
        {key: value for key, value in header.items() if key != "content_sha256"}, tensors
    )
    if claimed != actual:
        raise PrefixFileError(
            f"content hash is {actual[:12]}, the header says {str(claimed)[:12]}: the file was "
            "altered or damaged"
        )
    try:
        base = BaseIdentity.from_json(_object(header, "base"))
        pack = TaskPack.from_json(_object(header, "pack"))
        name = header["task"]
        if not isinstance(name, str):
            raise ValueError("task name is not text")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PrefixFileError(f"header is not valid: {error}") from error
    layers = _decode_layers(tensors)
    file_dtype = tensors["past_key_values.0.key"].dtype
    dtype = next(name for name, value in _FILE_DTYPES.items() if value == file_dtype)
    return Prefix(name=name, base=base, layers=layers, pack=pack, dtype=dtype)


def _decode_layers(tensors: Mapping[str, _Tensor]) -> tuple[PrefixLayer, ...]:
    foreign = [name for name in tensors if not _TENSOR_NAME.fullmatch(name)]
    if foreign:
        raise PrefixFileError(f"tensor {foreign[0]!r} does not belong in a prefix file")
    count = sum(name.endswith(".key") for name in tensors)
    names = {
        f"past_key_values.{index}.{kind}" for index in range(count) for kind in ("key", "value")
    }
    present = {name for name in tensors if not name.endswith(".scale")}
    stray = {name for name in tensors if name.endswith(".scale")} - {
        f"{name}.scale" for name in names if name in tensors and tensors[name].dtype == "I8"
    }
    if not names or names != present or stray:
        odd = sorted((names ^ present) | stray)
        raise PrefixFileError(
            f"tensors do not form layers 0…{count - 1}: check {', '.join(odd[:3]) or 'the file'}"
        )
    return tuple(
        PrefixLayer(
            _decode(f"past_key_values.{index}.key", tensors),
            _decode(f"past_key_values.{index}.value", tensors),
        )
        for index in range(count)
    )


def read_prefix_bytes(path: str | Path, *, largest_bytes: int = LARGEST_FILE_BYTES) -> bytes:
    """All bytes of a regular file that begins as a prefix file does; nothing else is verified. The
    header comes first, so that a foreign file of many gigabytes costs a few kilobytes. Raises
    PrefixFileError.
    """
    try:
        with open_regular(path) as (file, size):
            beginning = file.read(8)
            if len(beginning) == 8:
                beginning += file.read(min(_header_length(beginning), LARGEST_HEADER_BYTES))
            _header(_metadata(beginning))
            if size > largest_bytes:
                raise PrefixFileError(
                    f"it has {size} bytes, more than the {largest_bytes} that a prefix may have "
                    "here"
                )
            file.seek(0)
            return file.read(size)
    except PrefixFileError as error:
        raise PrefixFileError(f"{path}: {error}") from error
    except OSError as error:
        raise PrefixFileError(f"{path} cannot be read: {error.strerror or error}") from error


def _header_length(data: bytes) -> int:
    (length,) = struct.unpack("<Q", data[:8])
    return int(length)


def _entries(data: bytes) -> dict[str, Any]:
    """The container's own header: tensors by name, and metadata."""
    if len(data) < 8:
        raise PrefixFileError(
            f"{len(data)} bytes are too few for a prefix file: it is truncated or no prefix file"
        )
    length = _header_length(data)
    if length > min(LARGEST_HEADER_BYTES, len(data) - 8):
        raise PrefixFileError("not a safetensors file, or truncated within its header")
    try:
        entries = read_document(data[8 : 8 + length])
    except ValueError as error:
        raise PrefixFileError(f"header is not valid JSON: {error}") from error
    if not isinstance(entries, dict):
        raise PrefixFileError("header is not a JSON object")
    return entries


def _metadata(data: bytes) -> dict[str, str]:
    """The texts that the container holds besides tensors."""
    metadata = _entries(data).get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise PrefixFileError("header is not valid: its metadata are no texts by name")
    return metadata


def _header(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The edgeprefix header out of a safetensors file's metadata."""
    if _METADATA_KEY not in metadata:
        raise PrefixFileError(
            "a safetensors file, but not a prefix file: its metadata has no 'edgeprefix' entry"
        )
    try:
        header = read_document(metadata[_METADATA_KEY].encode())
    except ValueError as error:
        raise PrefixFileError(f"header is not valid JSON: {error}") from error
    if not isinstance(header, dict):
        raise PrefixFileError("header is not a JSON object")
    return header


def _serialize(tensors: Mapping[str, _Tensor], metadata: Mapping[str, str]) -> bytes:
    """The safetensors container: 8 bytes of header length, the header as JSON, the tensors.

    Written here and not by the library, whose bytes may change with its version: one prefix has one
    content. Wider dtypes stand first, and the header is padded to 8 bytes, so that every tensor is
    aligned.
    """
    order = sorted(tensors, key=lambda name: (-_ITEM_BYTES[tensors[name].dtype], name))
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    position = 0
    for name in order:
        tensor = tensors[name]
        end = position + len(tensor.data)
        entries[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    return _container(entries, b"".join(tensors[name].data for name in order))


def _container(entries: Mapping[str, Any], tensors: bytes) -> bytes:
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > LARGEST_HEADER_BYTES:
        raise PrefixFileError(
            f"the header would have {len(header)} bytes, more than the {LARGEST_HEADER_BYTES} that "
            "readers take; shorten the task pack"
        )
    return struct.pack("<Q", len(header)) + header + tensors


def _tensors(data: bytes) -> dict[str, _Tensor]:
    try:
        entries = safetensors.deserialize(data)  # type: ignore[no-untyped-call]  # the library has no hints
    except safetensors.SafetensorError as error:
        raise PrefixFileError(f"truncated or altered: {error}") from error
    return {
        name: _Tensor(entry["dtype"], tuple(entry["shape"]), bytes(entry["data"]))
        for name, entry in entries
    }


def _content_hash(header: Mapping[str, Any], tensors: Mapping[str, _Tensor]) -> str:
    """SHA-256 over the header without its hash, then each tensor by name: name, dtype, shape,
    bytes.
    """
    digest = hashlib.sha256(_canonical_json(header).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, tensor.dtype, list(tensor.shape)]).encode())
        digest.update(tensor.data)
    return digest.hexdigest()


def _canonical_json(value: Mapping[str, Any]) -> str:
    try:
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
    except (TypeError, ValueError) as error:
        raise PrefixFileError(f"task pack cannot be written as JSON: {error}") from error


def _object(header: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = header.get(key)
    if not isinstance(value, dict):
        raise ValueError(f"{key!r} is missing or not an object")
    return value
