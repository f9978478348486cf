"""Queries, keys and values enter the attention node packed, straight from one projection.

Architectures project them in many ways: three matrices, one matrix in thirds, one matrix
interleaved head by head. Whatever lies between the projections and the node is layout;
`layout.columns` says which column ends where, and one matrix with its columns in the node's order
replaces it all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeprefix.base.rounded_weights import SMALLEST_SIDE
from edgeprefix.export.passes.graph import remove, users
from edgeprefix.export.passes.layout import LAYOUT_OPS, Labels, columns, source_of
from edgeprefix.export.passes.linear import Linear, linear_behind, pack


@dataclass(frozen=True, eq=False)
class _Part:
    """One of the node's three inputs: columns of a projection."""

    linear: Linear
    columns: Labels


class PackQkvPass(ir.passes.InPlacePass):
    """Q, K and V inputs of each attention node become one packed input, where nothing but layout
    stands before them, and none is so narrow that it stays unrounded when the others are rounded.

    Requires: canonical projections. Ensures: a packed node has no separate keys and values.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites in place."""
        changed = False
        for node in list(model.graph):
            if node.op_type == "GroupQueryAttention" and node.inputs[1] is not None:
                parts = [_part(value) for value in node.inputs[:3]]
                found = [part for part in parts if part is not None]
                if (
                    len(found) == 3
                    and len({part.linear.source for part in found}) == 1
                    and all(part.linear.width >= SMALLEST_SIDE for part in found)
                    and _used_only_by(node, found)
                ):
                    _pack(model.graph, node, found)
                    changed = True
        return ir.passes.PassResult(model, changed)

    def ensures(self, model: ir.Model) -> None:
        """Keys and values are both there, or both packed."""
        for node in model.graph:
            if node.op_type == "GroupQueryAttention" and (node.inputs[1] is None) != (
                node.inputs[2] is None
            ):
                raise ir.passes.PostconditionError(f"{node.name} has keys without values")


def _part(value: ir.Value | None) -> _Part | None:
    source = source_of(value)
    linear = linear_behind(source)
    if value is None or source is None or linear is None:
        return None
    chosen = columns(value, source)
    return None if chosen is None else _Part(linear, chosen)


def _used_only_by(node: ir.Node, parts: list[_Part]) -> bool:
    """Whether the projections end in this node alone: otherwise packing would store a
    weight twice.
    """
    return all(_leads_only_to(part.linear.output, node) for part in parts)


def _leads_only_to(value: ir.Value, node: ir.Node) -> bool:
    if value.is_graph_output():
        return False
    for user in users(value):
        if user is node or user.op_type == "Shape":
            continue
        if user.op_type not in LAYOUT_OPS or not all(
            _leads_only_to(output, node) for output in user.outputs
        ):
            return False
    return True


def _pack(graph: ir.Graph, node: ir.Node, parts: list[_Part]) -> None:
    like = node.inputs[0]
    assert like is not None
    packed = pack(graph, _merged(parts), like=like)
    stale = [value.producer() for value in node.inputs[:3] if value is not None]
    for index, value in enumerate((packed, None, None)):
        node.replace_input_with(index, value)
    remove(graph, [producer for producer in stale if producer is not None])


def _merged(parts: list[_Part]) -> list[tuple[Linear, Labels | None]]:
    """Columns that come from one projection one after the other are taken together; all of them in
    order are None.
    """
    joined: list[_Part] = []
    for part in parts:
        if joined and joined[-1].linear.matmul is part.linear.matmul:
            joined[-1] = _Part(part.linear, np.concatenate([joined[-1].columns, part.columns]))
        else:
            joined.append(part)
    return [
        (p.linear, None if np.array_equal(p.columns, np.arange(p.linear.width)) else p.columns)
        for p in joined
    ]
