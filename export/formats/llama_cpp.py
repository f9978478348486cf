"""A prefix as a llama.cpp sequence state, which `llama_state_seq_load_file` puts into a context's
cache.

Written is what llama.cpp's LLAMA_STATE_SEQ_VERSION 3 reads (checked with llama-cpp-python 0.3.36):
a header with token ids, then the cache's cells, then all keys and values layer by layer.
Little-endian. llama.cpp compares the types of the cache, sizes of a row and the order of values
with its own, and takes nothing else. H heads, P prefix length, D head size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgeprefix.export.formats.onnx_adapter import cast
from edgeprefix.runtime.contracts.files import write_atomic
from edgeprefix.runtime.contracts.prefix_file import Array, Prefix
from edgeprefix.runtime.errors import ExportError

STATE_VERSION = 3
"""LLAMA_STATE_SEQ_VERSION of the files that are written."""
TYPES = {"fp32": 0, "fp16": 1}
"""ggml's numbers of the cache's types; fp16 is llama.cpp's default cache."""
INTERLEAVED = {"llama": True, "gpt2": False, "qwen2": False}
"""Bases that were tried, and whether their GGUF turns neighbouring numbers where the checkpoint
turns halves.
"""

_MAGIC = 0x67677371  # "ggsq"
# Which tokens a prefix stands for llama.cpp cannot know; it gives them back and does not use them
_TOKEN = 0
_ROPE_TYPES = ("default", "llama3")


def write_llama_cpp(prefix: Prefix, out: str | Path, config: Any, *, dtype: str = "fp16") -> None:
    """Writes `out`, whole or not at all. `config` is the base's transformers configuration, `dtype`
    the cache's type.

    Raises ExportError when the base is none of those that were tried, when it has what the state
    cannot express, or when numbers do not fit the dtype; OutputError.
    """
    if dtype not in TYPES:
        raise ExportError(
            f"llama.cpp's cache of a state file is fp16 or fp32 here, not {dtype}; leave --dtype "
            "out for its default"
        )
    refuse(config)
    write_atomic(out, state_bytes(prefix, dtype=dtype, interleaved=INTERLEAVED[config.model_type]))


def refuse(config: Any) -> None:
    """Raises ExportError naming what of the base a state file cannot express, or has not been
    tried.
    """
    model_type = str(config.model_type)
    if model_type not in INTERLEAVED:
        raise ExportError(
            f"llama.cpp states of {model_type} have not been tried; they were of "
            f"{', '.join(sorted(INTERLEAVED))}"
        )
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        raise ExportError(
            "llama.cpp keeps sliding windows in a cache of its own, which is not written; choose "
            "another format"
        )
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in _ROPE_TYPES:
        raise ExportError(
            f"rope of type {rope_type!r} has not been tried; it was with {', '.join(_ROPE_TYPES)}"
        )


def state_bytes(prefix: Prefix, *, dtype: str, interleaved: bool) -> bytes:
    """The file's content."""
    return b"".join(_parts(prefix, dtype, interleaved))


def _parts(prefix: Prefix, dtype: str, interleaved: bool) -> Iterator[bytes]:
    P = prefix.length
    yield struct.pack(f"<III{P}i", _MAGIC, STATE_VERSION, P, *([_TOKEN] * P))
    yield struct.pack("<II", 1, P)  # streams, cells
    for position in range(P):
        yield struct.pack("<iII", position, 1, 0)  # position, how many sequences, which
    # Values are not transposed: with flash attention, the default
    yield struct.pack("<II", 0, len(prefix.layers))
    for part in (0, 1):
        for index, layer in enumerate(prefix.layers):
            kind = ("key", "value")[part]
            array = interleave(layer.key) if interleaved and kind == "key" else layer[part]
            # [P, H·D]
            rows = cast(array.transpose(1, 0, 2).reshape(P, -1), dtype, f"layer {index} {kind}")
            yield struct.pack("<iQ", TYPES[dtype], rows.nbytes // P) + rows.tobytes()


def interleave(key: Array) -> Array:
    """Keys [H, P, D] that turn in halves, (i, i + D/2), become keys that turn as neighbours, (2i,
    2i + 1).
    """
    H, P, D = key.shape
    return np.ascontiguousarray(key.reshape(H, P, 2, D // 2).swapaxes(2, 3).reshape(H, P, D))
