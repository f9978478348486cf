"""The identity of a checkpoint, computed from its files alone: no torch, and never more than one
chunk of weights in memory.

It is a SHA-256 over the checkpoint's tensors (name, dtype, shape, bytes, sorted by name, so that
shards and file order do not matter), the configuration without what does not change the model's
output, and the tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from edgeprefix.base.identity_cache import remembered
from edgeprefix.base.weight_files import INDEX_FILE, StoredTensor, tensor_table, weight_files
from edgeprefix.runtime.contracts.files import read_json
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.errors import CheckpointError

# What may differ between two copies of one model: where it came from, who saved it, in what dtype
# it is to be loaded.
_IGNORED_CONFIG_KEYS = frozenset(
    {
        "_attn_implementation",
        "_name_or_path",
        "architectures",
        "auto_map",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
_IGNORED_TOKENIZER_KEYS = frozenset({"version", "truncation", "padding"})
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt")
_CHUNK_BYTES = 1 << 22


def checkpoint_identity(folder: str | Path, *, name: str | None = None) -> BaseIdentity:
    """The identity of a local checkpoint folder: config.json, the weights that are loaded
    (weight_files.py), tokenizer files.

    It is computed once and remembered as long as none of these files changes (identity_cache.py).
    Raises CheckpointError when the folder has no config.json or no safetensors weights, or when one
    is damaged.
    """
    folder = Path(folder)
    _read_json(folder / "config.json")  # a folder that is no model is told so, before its weights
    files = [
        folder / "config.json",
        folder / INDEX_FILE,
        *weight_files(folder),
        *(folder / file for file in _TOKENIZER_FILES),
    ]
    parts = remembered(folder, files, lambda: _hashes(folder))
    return BaseIdentity(name=name or folder.resolve().name, **parts)


def _hashes(folder: Path) -> dict[str, str]:
    """The three parts of an identity, by their names in BaseIdentity."""
    config = _read_json(folder / "config.json")
    return {
        "weights_sha256": _weights_hash(folder),
        "config_sha256": _config_hash(config),
        "tokenizer_sha256": _tokenizer_hash(folder),
    }


def _weights_hash(folder: Path) -> str:
    tensors: dict[str, tuple[Path, StoredTensor]] = {}
    for file in weight_files(folder):
        for name, tensor in tensor_table(file).items():
            if name in tensors:
                raise CheckpointError(
                    f"{folder}: tensor {name} is in both {tensors[name][0].name} and {file.name}"
                )
            tensors[name] = (file, tensor)
    digest = hashlib.sha256()
    for name in sorted(tensors):
        file, tensor = tensors[name]
        digest.update(json.dumps([name, tensor.dtype, tensor.shape]).encode())
        with open(file, "rb") as stream:
            for chunk in _read_range(stream, tensor.start, tensor.end, file):
                digest.update(chunk)
    return digest.hexdigest()


def _read_range(stream: BinaryIO, start: int, end: int, file: Path) -> Iterator[bytes]:
    stream.seek(start)
    left = end - start
    while left > 0:
        chunk = stream.read(min(left, _CHUNK_BYTES))
        if not chunk:
            raise CheckpointError(
                f"{file} is truncated: {left} bytes are missing; download or save it again"
            )
        left -= len(chunk)
        yield chunk


def _config_hash(config: Mapping[str, Any]) -> str:
    return _json_hash(
        {
            key: value
            for key, value in config.items()
            if key not in _IGNORED_CONFIG_KEYS and value is not None
        }
    )


def _tokenizer_hash(folder: Path) -> str:
    """tokenizer.json by its content (not its layout) when there is one, else the bytes of the older
    vocabulary files.
    """
    if (folder / "tokenizer.json").exists():
        content = _read_json(folder / "tokenizer.json")
        return _json_hash(
            {key: value for key, value in content.items() if key not in _IGNORED_TOKENIZER_KEYS}
        )
    digest = hashlib.sha256()
    for name in _TOKENIZER_FILES:
        if (folder / name).exists():
            digest.update(name.encode() + b"\0" + (folder / name).read_bytes())
    return digest.hexdigest()


def _json_hash(value: Any) -> str:
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    missing = (
        f"{path.parent} has no {path.name}; give the folder of a Hugging Face checkpoint, or a hub "
        "id"
    )
    content = read_json(path, CheckpointError, missing=missing)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds {type(content).__name__}, expected a JSON object")
    return content
