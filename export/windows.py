"""Sliding windows: does every attention node see as far as its layer in torch, and no further?

Windows of thousands of tokens are not passed with text, which torch would read for minutes. A
prefix costs nothing to read: keys and values up to the window's edge and beyond are made up, and a
few tokens behind them tell whether what lies beyond is seen. What is beyond has one large value
throughout, so that an average over it stands out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgeprefix.export.reference import Reference, Row, States
from edgeprefix.runtime.contracts.manifest import GRAPH_FILE, LayerShape

LONGEST_TEXT = 2048
"""Windows from here on are passed with a prefix."""

_TOKENS = 12  # of text behind the prefix
_SHARE = 8  # an eighth of the window lies beyond it
_LARGEST_BYTES = 2 << 30  # of made-up keys and values


def wide_windows(layers: Sequence[LayerShape], limit: int) -> list[int]:
    """Windows that no text of `verify` passes, and that a base of `limit` positions can."""
    windows = {layer.window for layer in layers if layer.window is not None}
    return sorted(window for window in windows if LONGEST_TEXT <= window < limit - 2 * _TOKENS)


def rows_beyond(
    reference: Reference, layers: Sequence[LayerShape], limit: int, tokens: np.ndarray
) -> Iterator[Row]:
    """A row for each wide window: a few tokens behind a prefix that reaches beyond it."""
    for window in wide_windows(layers, limit):
        length = min(window + window // _SHARE, limit - _TOKENS)
        if fits(layers, length):
            states = reference.random_states(tokens, length, seed=window)
            yield Row(tokens[:_TOKENS], _marked(states, length - window + 1))


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


def _marked(states: States, hidden: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The same, with values at the channel's largest in the first `hidden` positions."""
    marked = []
    for key, value in states:
        value = value.copy()
        value[:, :hidden] = np.abs(value).max(axis=1, keepdims=True)
        marked.append((key, value))
    return marked


def fits(layers: Sequence[LayerShape], length: int) -> bool:
    """Whether so many positions of keys and values may be made up; above, windows are only read off
    the graph.
    """
    size = sum(2 * 4 * layer.kv_heads * layer.head_size * length for layer in layers)
    return size <= _LARGEST_BYTES
