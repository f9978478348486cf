"""The prefix file: golden bytes, round trips, and a catalogue of hostile files. Spec:
docs/prefix-file.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from prefixes import BASE, PACK, small_prefix

from edgeprefix.runtime.contracts.prefix_file import DTYPES, Prefix, PrefixLayer
from edgeprefix.runtime.errors import BaseMismatchError, OutputError, PrefixFileError


def test_golden_bytes() -> None:
    """One prefix has one content, for ever: a change here breaks every file that users have."""
    data = small_prefix().to_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    assert (8 + length) % 8 == 0
    numbers = [sign * x / 8 for sign in (1, -1) for x in range(1, 9)]
    assert data[8 + length :] == struct.pack("<16f", *numbers)
    assert (
        hashlib.sha256(data).hexdigest()
        == "bdffc97fa8721c1a962df9175d2091aab829a6b6fafd092c426e4198d09c8453"
    )


def test_any_safetensors_reader_can_open_it(tmp_path: Path) -> None:
    small_prefix().save(tmp_path / "t.safetensors")
    tensors = safetensors.numpy.load_file(tmp_path / "t.safetensors")
    assert {name: array.shape for name, array in tensors.items()} == {
        "past_key_values.0.key": (1, 2, 4),
        "past_key_values.0.value": (1, 2, 4),
    }


def test_round_trip_keeps_everything(tmp_path: Path) -> None:
    prefix = small_prefix()
    prefix.save(tmp_path / "t.safetensors")
    again = Prefix.load(tmp_path / "t.safetensors")
    assert (again.name, again.base, again.pack, again.dtype, again.length) == (
        "t",
        BASE,
        PACK,
        "fp32",
        2,
    )
    assert again.to_bytes() == prefix.to_bytes()
    np.testing.assert_array_equal(again.layers[0].key, prefix.layers[0].key)


arrays = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=3, max_dims=3, max_side=5),
    elements=st.floats(-1000, 1000, width=32),
)
# What half of a last place is worth, relative to the number itself (int8: to the row's largest).
TOLERANCE = {"fp32": 0.0, "fp16": 2.0**-11, "bf16": 2.0**-8, "int8": 0.5 / 127}


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=60, deadline=None)
@given(key=arrays)
def test_each_dtype_loses_no_more_than_its_rounding(dtype: str, key: np.ndarray[Any, Any]) -> None:
    prefix = small_prefix(layers=(PrefixLayer(key, key * np.float32(0.5)),), dtype=dtype)
    data = prefix.to_bytes()
    again = Prefix.from_bytes(data)
    assert again.dtype == dtype
    assert again.to_bytes() == data, "reading and writing again must not lose more"
    largest = np.abs(key).max(axis=-1, keepdims=True) if dtype == "int8" else np.abs(key)
    assert (np.abs(again.layers[0].key - key) <= largest * TOLERANCE[dtype] * 1.001 + 1e-7).all()


def test_fp16_overflow_is_refused() -> None:
    huge = np.full((1, 2, 4), 1e6, np.float32)
    with pytest.raises(PrefixFileError, match="more than fp16 holds.*bf16 or fp32"):
        small_prefix(layers=(PrefixLayer(huge, huge),), dtype="fp16").to_bytes()


def test_every_truncation_is_refused() -> None:
    data = small_prefix().to_bytes()
    for length in range(len(data)):
        with pytest.raises(PrefixFileError):
            Prefix.from_bytes(data[:length])
    with pytest.raises(PrefixFileError):
        Prefix.from_bytes(data + b"\0")


def test_every_altered_byte_is_refused_or_harmless() -> None:
    """A flipped bit anywhere: an error, or (spaces that pad the header) the very same prefix."""
    data = small_prefix().to_bytes()
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1
        try:
            again = Prefix.from_bytes(bytes(altered))
        except PrefixFileError:
            continue
        assert again.to_bytes() == data, f"byte {position} changed the prefix unnoticed"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(PrefixFileError):
        Prefix.from_bytes(data)


def rewritten(change: Callable[[dict[str, Any], dict[str, np.ndarray[Any, Any]]], None]) -> bytes:
    """A prefix file changed by someone who knows the format, its content hash made to fit again."""
    data = small_prefix().to_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["edgeprefix"])
    tensors = safetensors.numpy.load(data)
    change(header, tensors)
    header.pop("content_sha256")
    digest = hashlib.sha256(
        json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    )
    names = {"float32": "F32", "float64": "F64"}
    for name in sorted(tensors):
        digest.update(
            json.dumps([name, names[str(tensors[name].dtype)], list(tensors[name].shape)]).encode()
        )
        digest.update(tensors[name].tobytes())
    header["content_sha256"] = digest.hexdigest()
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return bytes(safetensors.numpy.save(tensors, metadata={"edgeprefix": text}))


ONE = np.ones((1, 2, 4), np.float32)
HOSTILE: list[tuple[str, Callable[[Any, Any], None]]] = [
    ("format version 2 is unknown", lambda header, tensors: header.update(format_version=2)),
    ("format version None is unknown", lambda header, tensors: header.pop("format_version")),
    ("task name '../x' cannot be used", lambda header, tensors: header.update(task="../x")),
    ("task name is not text", lambda header, tensors: header.update(task=7)),
    ("'base' is missing", lambda header, tensors: header.pop("base")),
    (
        "base identity is inconsistent",
        lambda header, tensors: header["base"].update(weights_sha256="9" * 64),
    ),
    ("base identity lacks name", lambda header, tensors: header["base"].pop("name")),
    ("field 'labels' holds str", lambda header, tensors: header["pack"].update(labels="ab")),
    (
        "top_k='x': expected a whole number, at least 0",
        lambda header, tensors: header["pack"].update(generation={"top_k": "x"}),
    ),
    ("does not belong in a prefix file", lambda header, tensors: tensors.update({"extra": ONE})),
    ("do not form layers", lambda header, tensors: tensors.update({"past_key_values.2.key": ONE})),
    ("do not form layers", lambda header, tensors: tensors.pop("past_key_values.0.value")),
    (
        "holds NaN or infinity",
        lambda header, tensors: tensors.update({"past_key_values.0.key": ONE * np.nan}),
    ),
    (
        "dtype F64",
        lambda header, tensors: tensors.update({"past_key_values.0.key": ONE.astype(np.float64)}),
    ),
    (
        r"expected fp32 \[H, P, D\]",
        lambda header, tensors: tensors.update({"past_key_values.0.key": ONE[0]}),
    ),
    (
        "differ in heads or positions",
        lambda header, tensors: tensors.update({"past_key_values.0.key": ONE[:, :1]}),
    ),
]


@pytest.mark.parametrize(("message", "change"), HOSTILE, ids=[message for message, _ in HOSTILE])
def test_hostile_files_are_refused(message: str, change: Callable[[Any, Any], None]) -> None:
    with pytest.raises(PrefixFileError, match=message):
        Prefix.from_bytes(rewritten(change))


def test_an_unknown_field_may_be_there() -> None:
    data = rewritten(lambda header, tensors: header.update(colour="green"))
    assert Prefix.from_bytes(data).name == "t"


def test_a_foreign_safetensors_file_says_so() -> None:
    data = safetensors.numpy.save({"weight": ONE})
    with pytest.raises(
        PrefixFileError, match=r"not a prefix file: its metadata has no 'edgeprefix' entry"
    ):
        Prefix.from_bytes(data, source="x.safetensors")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PrefixFileError, match=r"absent.safetensors cannot be read: No such file"):
        Prefix.load(tmp_path / "absent.safetensors")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    small_prefix().save(path)
    before = path.read_bytes()
    huge = np.full((1, 2, 4), 1e6, np.float32)
    with pytest.raises(PrefixFileError):
        small_prefix(layers=(PrefixLayer(huge, huge),), dtype="fp16").save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["t.safetensors"]


def test_a_folder_that_is_a_file_cannot_be_written_into(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        small_prefix().save(tmp_path / "file" / "t.safetensors")


def test_another_base_is_refused_naming_both() -> None:
    other = dataclasses.replace(
        BASE, name="other", weights_sha256="4" * 64, tokenizer_sha256="5" * 64
    )
    with pytest.raises(
        BaseMismatchError,
        match=(
            r"prefix 't' belongs to base b \(.*this base is other \(.*different weights and "
            r"tokenizer"
        ),
    ):
        other.require_same(small_prefix().base, what="prefix 't'")
    BASE.require_same(dataclasses.replace(BASE, name="renamed"), what="prefix 't'")


def test_layers_must_agree_in_length() -> None:
    layer, longer = (
        PrefixLayer(ONE, ONE),
        PrefixLayer(np.ones((1, 3, 4), np.float32), np.ones((1, 3, 4), np.float32)),
    )
    with pytest.raises(PrefixFileError, match=r"layers differ in length: \[2, 3\]"):
        small_prefix(layers=(layer, longer))
    with pytest.raises(PrefixFileError, match="at least one layer"):
        small_prefix(layers=())
    with pytest.raises(PrefixFileError, match="dtype 'fp8' is unknown"):
        small_prefix(dtype="fp8")


def test_a_header_that_no_reader_takes_is_not_written() -> None:
    pack = dataclasses.replace(PACK, recipe={"text": "x" * (4 << 20)})
    with pytest.raises(PrefixFileError, match="more than the 4194304 .*; shorten the task pack"):
        small_prefix(pack=pack).to_bytes()
