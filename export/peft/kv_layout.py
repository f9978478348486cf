"""How PEFT lays the keys and values of a prefix out: one row a virtual token, layer after layer,
key before value.

A row of `prompt_embeddings` is [L, 2, H, D] in a row (peft 0.21, `PeftModel.get_prompt`). PEFT puts
them into the cache as they are: keys are not rotated again, the text starts at position P, and
heads are key/value heads, so grouped queries need nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgeprefix.runtime.contracts.prefix_file import Array, PrefixLayer


def unpack_layers(
    rows: npt.NDArray[np.float32], *, layers: int, heads: int
) -> tuple[PrefixLayer, ...]:
    """[P, L·2·H·D] → keys and values [H, P, D] of each layer."""
    P = rows.shape[0]
    states = rows.reshape(P, layers, 2, heads, -1).transpose(1, 2, 3, 0, 4)  # [L, 2, H, P, D]
    return tuple(PrefixLayer(*(np.ascontiguousarray(part) for part in pair)) for pair in states)


def pack_layers(layers: Sequence[PrefixLayer]) -> Array:
    """Keys and values [H, P, D] of each layer, all of one shape → [P, L·2·H·D]."""
    states = np.stack([np.stack(layer) for layer in layers])  # [L, 2, H, P, D]
    P = states.shape[3]
    return np.ascontiguousarray(states.transpose(3, 0, 1, 2, 4).reshape(P, -1))
