"""Which base a prefix belongs to: a fingerprint of a checkpoint's weights, configuration and
tokenizer.

A prefix means something only over the very weights that it was trained or compiled with. The
identity is a SHA-256 over the checkpoint's tensors (name, dtype, shape, bytes, sorted by name, so
that shards and file order do not matter), the configuration without what does not change the
model's output, and the tokenizer. It is computed from the files alone: no torch, and never more
than one chunk of weights in memory.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from edgeprefix.runtime.contracts.files import read_json
from edgeprefix.runtime.contracts.identity_cache import remembered
from edgeprefix.runtime.errors import BaseMismatchError, CheckpointError

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
_MAX_HEADER_BYTES = 100_000_000  # the safetensors format's own limit


@dataclass(frozen=True, kw_only=True)
class BaseIdentity:
    """The fingerprint of a base. `name` is for people and is not compared; the rest are SHA-256 in
    hexadecimal.
    """

    name: str
    weights_sha256: str
    config_sha256: str
    tokenizer_sha256: str

    @property
    def sha256(self) -> str:
        """The identity in one value: SHA-256 over the three parts."""
        parts = (self.weights_sha256, self.config_sha256, self.tokenizer_sha256)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.name} ({self.sha256[:12]})"

    def require_same(self, other: BaseIdentity, *, what: str) -> None:
        """Raises BaseMismatchError, naming both and the parts that differ, unless `other` is the
        same base.
        """
        differing = [
            part
            for part in ("weights", "config", "tokenizer")
            if getattr(self, f"{part}_sha256") != getattr(other, f"{part}_sha256")
        ]
        if differing:
            raise BaseMismatchError(
                f"{what} belongs to base {other}, but this base is {self}: different "
                f"{' and '.join(differing)}; "
                "train or export the prefix again with this base, or load the bundle of "
                f"{other.name}"
            )

    def to_json(self) -> dict[str, str]:
        """The form kept in prefix files and manifests."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "weights_sha256": self.weights_sha256,
            "config_sha256": self.config_sha256,
            "tokenizer_sha256": self.tokenizer_sha256,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BaseIdentity:
        """Reads `to_json`'s form. Raises ValueError when a part is missing or the parts do not give
        the whole.
        """
        keys = ("name", "weights_sha256", "config_sha256", "tokenizer_sha256")
        values = {key: data.get(key) for key in keys}
        missing = [key for key, value in values.items() if not isinstance(value, str)]
        if missing:
            raise ValueError(f"base identity lacks {', '.join(missing)}")
        identity = cls(**{key: str(value) for key, value in values.items()})
        if data.get("sha256") != identity.sha256:
            raise ValueError("base identity is inconsistent: sha256 does not follow from its parts")
        return identity


def checkpoint_identity(folder: str | Path, *, name: str | None = None) -> BaseIdentity:
    """The identity of a local checkpoint folder (config.json, *.safetensors, tokenizer files).

    It is computed once and remembered as long as none of these files changes (identity_cache.py).
    Raises CheckpointError when the folder has no config.json or no safetensors weights, or when one
    is damaged.
    """
    folder = Path(folder)
    files = [
        folder / "config.json",
        *sorted(folder.glob("*.safetensors")),
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
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(
            f"{folder} has no *.safetensors weights; save the model with save_pretrained(), which "
            "writes them"
        )
    tensors: dict[str, tuple[Path, str, list[int], int, int]] = {}
    for file in files:
        for tensor, (dtype, shape, start, end) in _tensor_table(file).items():
            if tensor in tensors:
                raise CheckpointError(
                    f"{folder}: tensor {tensor} is in both {tensors[tensor][0].name} and "
                    f"{file.name}"
                )
            tensors[tensor] = (file, dtype, shape, start, end)
    digest = hashlib.sha256()
    for tensor in sorted(tensors):
        file, dtype, shape, start, end = tensors[tensor]
        digest.update(json.dumps([tensor, dtype, shape]).encode())
        with open(file, "rb") as stream:
            for chunk in _read_range(stream, start, end, file):
                digest.update(chunk)
    return digest.hexdigest()


def _tensor_table(file: Path) -> dict[str, tuple[str, list[int], int, int]]:
    """Name → (dtype, shape, first byte, end byte) from a safetensors header; positions count from
    the file's start.
    """
    try:
        with open(file, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _MAX_HEADER_BYTES:
                raise ValueError("header length out of range")
            header = json.loads(stream.read(length))
        return {
            name: (
                entry["dtype"],
                entry["shape"],
                8 + length + entry["data_offsets"][0],
                8 + length + entry["data_offsets"][1],
            )
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (struct.error, ValueError, KeyError, TypeError, IndexError) as error:
        raise CheckpointError(
            f"{file} is no readable safetensors file: {error}; download or save it again"
        ) from error


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
