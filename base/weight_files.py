"""Which files hold a checkpoint's weights, and what their headers say.

The files are those that transformers reads: `model.safetensors`, or the shards that
`model.safetensors.index.json` names. What else lies in the folder (Mistral's
`consolidated.safetensors`, an adapter, macOS's `._*` files) is no part of the base.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from edgeprefix.runtime.contracts.files import read_json
from edgeprefix.runtime.errors import CheckpointError

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_MAX_HEADER_BYTES = 100_000_000  # the safetensors format's own limit


class StoredTensor(NamedTuple):
    """Where a tensor lies: safetensors' name of its dtype, its shape, and its first and end byte,
    counted from the file's start.
    """

    dtype: str
    shape: list[int]
    start: int
    end: int


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights, sorted by name.

    Raises CheckpointError when there are none, or when one that the index names is missing.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / INDEX_FILE).is_file():
        return [_shard(folder, name) for name in index_names(folder / INDEX_FILE)]
    found = sorted(file for file in folder.glob("*.safetensors") if _counts(file.name))
    if not found:
        raise CheckpointError(
            f"{folder} has no *.safetensors weights; save the model with save_pretrained(), which "
            "writes them"
        )
    return found


def index_names(index: Path) -> list[str]:
    """The files that an index names, sorted. Raises CheckpointError when it names none, or one
    outside its folder.
    """
    content = read_json(index, CheckpointError, missing=f"{index} is missing")
    table = content.get("weight_map") if isinstance(content, dict) else None
    names = table.values() if isinstance(table, dict) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{index} names no files of weights; download or save it again")
    for name in names:
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts:
            raise CheckpointError(f"{index} names {name}, which is outside the checkpoint's folder")
    return sorted(set(names))


def _shard(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise CheckpointError(
            f"{folder} lacks {name}, which {INDEX_FILE} names; download or copy it again"
        )
    return folder / name


def _counts(name: str) -> bool:
    return not name.startswith((".", "consolidated"))


def tensor_table(file: Path) -> dict[str, StoredTensor]:
    """Name → place from a safetensors header. Raises CheckpointError when it cannot be read."""
    try:
        with open(file, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _MAX_HEADER_BYTES:
                raise ValueError("header length out of range")
            header = json.loads(stream.read(length))
        return {
            name: StoredTensor(
                entry["dtype"],
                entry["shape"],
                8 + length + entry["data_offsets"][0],
                8 + length + entry["data_offsets"][1],
            )
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{file} is no readable safetensors file: {error}; download or save it again"
        ) from error
    except (IndexError, RecursionError) as error:
        raise CheckpointError(
            f"{file} is no readable safetensors file: its header is damaged; download or save it "
            "again"
        ) from error


def stored_dtype(files: list[Path]) -> str:
    """safetensors' name of the dtype that all floating-point tensors have; "F32" when they differ
    (it holds the others' numbers).
    """
    kinds = {
        tensor.dtype
        for file in files
        for tensor in tensor_table(file).values()
        if tensor.dtype.startswith(("F", "BF"))
    }
    return kinds.pop() if len(kinds) == 1 else "F32"
