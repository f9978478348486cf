"""The identity of a GGUF file, computed from its bytes: by the same rule as a checkpoint's
(base/identity.py), over what this kind of file holds.

It is a SHA-256 over the tensors (name, kind, shape, bytes, sorted by name, so that parts and their
order do not matter), over the architecture's facts, and over the tokenizer's. What says only where
the file came from (general.*) and how chats are written is no part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeprefix.base.gguf.reader import GgufFile


def identity_parts(file: GgufFile) -> dict[str, str]:
    """The three parts of an identity, by their names in BaseIdentity."""
    own = f"{file.architecture}."
    return {
        "weights_sha256": _weights_hash(file),
        "config_sha256": _facts_hash(
            file, lambda key: key == "general.architecture" or key.startswith(own)
        ),
        "tokenizer_sha256": _facts_hash(file, lambda key: key.startswith("tokenizer.ggml.")),
    }


def _weights_hash(file: GgufFile) -> str:
    digest = hashlib.sha256()
    for name in sorted(file.tensors):
        tensor = file.tensors[name]
        digest.update(json.dumps([name, tensor.kind.name, list(tensor.shape)]).encode())
        digest.update(tensor.data.data)
        tensor.give_back()
    return digest.hexdigest()


def _facts_hash(file: GgufFile, counts: Callable[[str], bool]) -> str:
    digest = hashlib.sha256()
    for key in sorted(key for key in file.facts if counts(key)):
        digest.update(json.dumps([key, _plain(file.facts[key])]).encode())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
