"""Sliding windows: does every attention node see as far as its layer in torch, and no further?

Windows of thousands of tokens are not passed with text, which torch would read for minutes. A
prefix costs nothing to read: keys and values up to the window's edge and beyond are made up, and a
few tokens behind them tell whether what lies beyond is seen. All keys of such a layer are alike, so
that every position that is seen counts the same, and values are large beyond the edge and on it: a
window that is one position too long sees one of them too many, one too short misses one. Layers of
other windows keep ordinary values; those that see everything would be drowned in large ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgeprefix.export.reference import Array, Reference, Row
from edgeprefix.runtime.contracts.manifest import GRAPH_FILE, LayerShape

LONGEST_TEXT = 2048
"""Windows from here on are passed with a prefix alone."""

_TOKENS = 12  # of text behind the prefix: the edge lies elsewhere for each of them
_SHARE = 8  # an eighth of the window lies beyond it
_LARGEST_BYTES = 2 << 30  # of made-up keys and values
_MARK, _LARGEST_MARK = 16, 256  # values of marks: a sixteenth of the window times ordinary ones


def rows_beyond(
    reference: Reference, layers: Sequence[LayerShape], limit: int, tokens: np.ndarray
) -> Iterator[Row]:
    """For each window a few tokens behind a prefix that reaches beyond it, as far as the base has
    positions and the machine memory for it.
    """
    for window in sorted({layer.window for layer in layers if layer.window is not None}):
        length = min(window + max(window // _SHARE, _TOKENS), limit - _TOKENS)
        if length >= window and fits(layers, length):
            states = reference.random_states(tokens, length, seed=window)
            marked = [
                _marked(*pair, window) if layer.window == window else pair
                for layer, pair in zip(layers, states, strict=True)
            ]
            yield Row(tokens[:_TOKENS], marked)


def window_faults(bundle: str | Path, layers: Sequence[LayerShape]) -> tuple[str, ...]:
    """Attention nodes of our own graph whose window is not that of their layer in torch."""
    found = []
    for node in ir.load(Path(bundle) / GRAPH_FILE).graph.all_nodes():
        if node.op_type == "GroupQueryAttention":
            past = node.inputs[3]
            assert past is not None  # every attention node has one
            index = int(str(past.name).split(".")[1])  # past_key_values.{index}.key
            attribute = node.attributes.get("local_window_size")
            seen, wanted = attribute and attribute.as_int(), layers[index].window
            if seen != wanted:
                found.append(
                    f"layer {index} has a window of {seen or 'all'} positions, in torch of "
                    f"{wanted or 'all'}: the graph itself is wrong"
                )
    return tuple(found)


def _marked(key: Array, value: Array, window: int) -> tuple[Array, Array]:
    """Keys and values [H, P, D], all keys alike, values large up to the last position that some of
    the tokens cannot see.
    """
    H, P, D = value.shape
    alike = np.broadcast_to(key.mean(axis=1, keepdims=True), key.shape).copy()
    marked, edge = value.copy(), min(P, P - window + _TOKENS)
    size = np.abs(value).max(axis=1, keepdims=True) * min(1 + window / _MARK, _LARGEST_MARK)
    signs = np.random.default_rng(window).choice(np.array([-1, 1], value.dtype), (H, edge, D))
    marked[:, :edge] = signs * size
    # Beyond the first token's edge of one sign: what is seen there together does not cancel out
    marked[:, : P - window + 1] = size
    return alike, marked


def fits(layers: Sequence[LayerShape], length: int) -> bool:
    """Whether so many positions of keys and values may be made up; above, windows are only read off
    the graph.
    """
    size = sum(2 * 4 * layer.kv_heads * layer.head_size * length for layer in layers)
    return size <= _LARGEST_BYTES
