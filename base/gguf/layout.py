"""Where each tensor of a GGUF file stands in transformers' model, and what is to be turned around
on the way: rows, columns, the one in a norm. Numbers are never rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgeprefix.base.gguf.config import EMBEDDING, ROPE_DIVISORS, Architecture, architecture_of
from edgeprefix.base.gguf.extra import gguf_package, gguf_version
from edgeprefix.base.gguf.reader import GgufFile, GgufTensor
from edgeprefix.runtime.errors import CheckpointError

_NO_WEIGHTS = (ROPE_DIVISORS, "rope_factors_long.weight", "rope_factors_short.weight")
"""Read as facts (config.py)."""
_TIED = "lm_head.weight"  # the head, in every architecture that is read
_NAMED = 3  # tensors that a message names

Shape = tuple[int, ...]


class Place(NamedTuple):
    """A parameter's numbers in the file."""

    name: str
    """The tensor's name in the file."""
    tensor: GgufTensor
    rows: npt.NDArray[np.int64] | None = None
    """Which row of the file each row of the parameter is; None for the same."""
    columns: bool = False
    """Whether the parameter is [K, N] where the file has [N, K]."""
    from_one: bool = False
    """Whether the file holds the number plus one."""


def places(file: GgufFile, config: Any, shapes: Mapping[str, Shape]) -> dict[str, Place]:
    """The place of every parameter; `shapes` are those of the model, a tied head's as well.

    Raises CheckpointError when a tensor is missing, has another shape, or has no place.
    """
    architecture = architecture_of(file)
    names = _names(file, config)
    found: dict[str, Place] = {}
    missing = []
    for parameter in shapes:
        stem, dot, suffix = parameter.rpartition(".")
        name = f"{names.get_name(stem)}{dot}{suffix}"
        if parameter == _TIED and config.tie_word_embeddings:
            name = EMBEDDING
        if name in file.tensors:
            found[parameter] = _place(name, file.tensors[name], architecture, config)
        else:
            missing.append(parameter)
    _require_whole(file, missing, found)
    _require_shapes(file, found, shapes)
    return found


def _names(file: GgufFile, config: Any) -> Any:
    """The package's table from transformers' names to the file's. Raises CheckpointError when the
    package is older than the architecture.
    """
    gguf = gguf_package()
    known = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
    if file.architecture not in known:
        raise CheckpointError(
            f"{file.path} is of the architecture {file.architecture}, which gguf {gguf_version()} "
            "does not know; type: pip install --upgrade 'edgeprefix[gguf]'"
        )
    return gguf.get_tensor_name_map(known[file.architecture], config.num_hidden_layers)


def _place(name: str, tensor: GgufTensor, architecture: Architecture, config: Any) -> Place:
    part = name.split(".")[-2]
    rows = None
    if architecture.pairs and part in ("attn_q", "attn_k"):
        heads = config.num_attention_heads if part == "attn_q" else config.num_key_value_heads
        rows = _halves(tensor, heads)
    return Place(
        name,
        tensor,
        rows,
        columns=architecture.columns and name.startswith("blk.") and len(tensor.shape) == 2,
        from_one=architecture.norms_from_one and name.endswith("norm.weight"),
    )


def _halves(tensor: GgufTensor, heads: int) -> npt.NDArray[np.int64]:
    """Rows that turn together stand side by side in the file, half a head apart in transformers."""
    count = tensor.shape[0]
    if count % (2 * heads):
        return np.arange(count)  # of another shape than the model's, which is told elsewhere
    order: npt.NDArray[np.int64] = np.arange(count).reshape(heads, -1, 2).swapaxes(1, 2).ravel()
    return order


def _require_whole(file: GgufFile, missing: list[str], found: Mapping[str, Place]) -> None:
    if missing:
        raise CheckpointError(
            f"{file.path} lacks {len(missing)} of the model's tensors, {_some(missing)}; download "
            "another file of the model"
        )
    used = {place.name for place in found.values()}
    if left := sorted(set(file.tensors) - used - set(_NO_WEIGHTS)):
        raise CheckpointError(
            f"{file.path} holds {len(left)} tensors that a {file.architecture} has no place for, "
            f"{_some(left)}; give the checkpoint that the file was made of"
        )


def _require_shapes(
    file: GgufFile, found: Mapping[str, Place], shapes: Mapping[str, Shape]
) -> None:
    for parameter, place in found.items():
        shape = place.tensor.shape[::-1] if place.columns else place.tensor.shape
        if tuple(shapes[parameter]) != shape:
            raise CheckpointError(
                f"{file.path}: {place.name} has the shape {list(shape)}, and its facts make "
                f"{parameter} one of {list(shapes[parameter])}; download another file of the model"
            )


def _some(names: list[str]) -> str:
    return ("such as " if len(names) > _NAMED else "") + ", ".join(names[:_NAMED])
