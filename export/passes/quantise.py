"""Weight-only quantisation: projections become MatMulNBits, the embedding GatherBlockQuantized over
the same bytes when tied.
"""

from __future__ import annotations

from typing import NamedTuple, TypeGuard

import numpy as np
import onnx_ir as ir

from edgeprefix.base.rounded_weights import Role, format_of
from edgeprefix.base.rounding import QuantisedFormat
from edgeprefix.export.blockwise import BlockwiseWeight
from edgeprefix.export.passes.graph import (
    MICROSOFT,
    attribute,
    make_node,
    rank,
    remove,
    replace,
    users,
)
from edgeprefix.export.passes.layout import source_of
from edgeprefix.export.passes.linear import linear_of
from edgeprefix.export.planned import Plan, PlannedWeight, planned_weight
from edgeprefix.export.weights import computed, constant, dims, shared, unique_name, weight_of

_ACCURACY_LEVEL = (
    4  # activations are rounded to int8 block by block, which the fast CPU kernels need
)

_REPLACING = {"Where": 1, "ScatterND": 0}  # which input is kept where nothing is replaced


Rounded = BlockwiseWeight | PlannedWeight


class _Stored(NamedTuple):
    """A rounded weight, and where the graph keeps its steps, scales and zero points."""

    weight: Rounded
    packed: ir.Value
    scales: ir.Value
    zeros: ir.Value | None


class QuantiseWeightsPass(ir.passes.InPlacePass):
    """Projections, the vocabulary projection and tables of token embeddings: by the plan where it
    says something, else as base/rounded_weights.py says, to the nearest step.

    Without a format, what the plan says nothing of stays as it is. Requires: canonical
    projections. Ensures: no projection that is to be rounded is left in floating point.
    """

    def __init__(self, form: QuantisedFormat | None, plan: Plan | None = None) -> None:
        self._form = form
        self._plan = plan or {}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites in place."""
        graph = model.graph
        heads: dict[ir.Value, _Stored] = {}
        changed = False
        for node in list(graph):
            weight, rounded = _projected(node), self._rounded(node)
            if weight is None or rounded is None:
                continue
            is_head, transposed = _is_head(node), bool(attribute(node, "transB", 0))
            stored = _store(graph, str(weight.name), rounded)
            _replace_projection(graph, node, stored)
            if is_head and transposed:
                heads[weight] = stored
            changed = True
        for node in list(graph):
            changed |= self._embed(graph, node, heads)
        return ir.passes.PassResult(model, changed)

    def ensures(self, model: ir.Model) -> None:
        """No large projection is left in floating point."""
        left = [node.name for node in model.graph if self._rounded(node) is not None]
        if left:
            raise ir.passes.PostconditionError(f"projections were not quantised: {left[:3]}")

    def _rounded(self, node: ir.Node) -> Rounded | None:
        """A node's weight, rounded; None for what is no projection or stays as it is."""
        weight = _projected(node)
        if weight is None or weight.const_value is None:
            return None
        role = Role.HEAD if _is_head(node) else Role.PROJECTION
        transposed = bool(attribute(node, "transB", 0))
        return self._of(weight.const_value, role, transposed=transposed)

    def _of(self, tensor: ir.TensorProtocol, role: Role, *, transposed: bool) -> Rounded | None:
        planned = planned_weight(tensor, self._plan, transposed=transposed)
        if planned is not None:
            return planned
        form = None if self._form is None else format_of(role, dims(tensor), self._form)
        return None if form is None else BlockwiseWeight(tensor, form, transposed)

    def _embed(self, graph: ir.Graph, node: ir.Node, heads: dict[ir.Value, _Stored]) -> bool:
        table = node.inputs[0] if node.op_type == "Gather" else None
        if (
            table is None
            or weight_of(table, rank=2) is None
            or table.const_value is None
            or not _is_token_ids(node.inputs[1])
        ):
            return False
        rounded = self._of(table.const_value, Role.EMBEDDING, transposed=True)
        if rounded is None or _has_rests(rounded):
            return False  # GatherBlockQuantized cannot add them: the table stays as it is
        if table not in heads:
            heads[table] = _store(graph, str(table.name), rounded)
        _replace_embedding(graph, node, heads[table])
        return True


def _projected(node: ir.Node) -> ir.Value | None:
    """The constant matrix by which a node multiplies, None when it does no such thing."""
    if node.op_type not in ("MatMul", "Gemm") or node.domain != "":
        return None
    weight = node.inputs[1]
    return weight if weight_of(weight, rank=2) is not None else None


def _is_head(node: ir.Node) -> bool:
    """Whether the logits come out of it, through whatever scaling or cap."""
    value = node.outputs[0]
    while not value.is_graph_output():
        after = users(value)
        if len(after) != 1 or after[0].op_type in (
            "MatMul",
            "MatMulNBits",
            "GroupQueryAttention",
            "Gemm",
        ):
            return False
        value = after[0].outputs[0]
    return value.name == "logits"


def _is_token_ids(value: ir.Value | None) -> bool:
    """The graph's input_ids, as they are or with those that a table lacks replaced (Gemma 3n), or
    those that stand for images (Gemma 3).
    """
    source = source_of(value)
    chosen = None if source is None else source.producer()
    if chosen is not None and chosen.op_type in _REPLACING:
        source = source_of(chosen.inputs[_REPLACING[chosen.op_type]])
    return source is not None and source.is_graph_input() and source.name == "input_ids"


def _store(graph: ir.Graph, name: str, weight: Rounded) -> _Stored:
    """Adds packed steps, scales and zero points."""
    name = unique_name(graph, f"{name}.int{weight.bits}")
    packed = computed(
        graph,
        name,
        ir.DataType.UINT8,
        weight.packed_shape,
        weight.packed,
        metadata=weight.metadata(),
    )
    scales = computed(
        graph, f"{name}.scale", ir.DataType.FLOAT, (weight.N, weight.blocks), weight.scales
    )
    zeros = None
    if weight.has_zeros:
        zeros = computed(graph, f"{name}.zero", ir.DataType.UINT8, weight.zeros_shape, weight.zeros)
    return _Stored(weight, packed, scales, zeros)


def _replace_projection(graph: ir.Graph, node: ir.Node, stored: _Stored) -> None:
    weight = stored.weight
    linear = linear_of(node)
    add = linear.add if linear is not None else None
    bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    if add is not None:
        bias = next(value for value in add.inputs if value is not node.outputs[0])
    end = add or node
    inputs = [node.inputs[0], *stored[1:]] + ([None, bias] if bias is not None else [])
    while inputs[-1] is None:
        inputs.pop()
    new = make_node(
        "MatMulNBits",
        inputs,
        like=end.outputs[0],
        domain=MICROSOFT,
        K=weight.K,
        N=weight.N,
        bits=weight.bits,
        block_size=weight.block,
        accuracy_level=_ACCURACY_LEVEL,
    )
    nodes = [new]
    if _has_rests(weight):
        nodes += _rests_added(graph, node.inputs[0], new, weight, f"{stored.packed.name}.rest")
    graph.insert_after(end, nodes)
    replace(graph, end.outputs[0], nodes[-1].outputs[0])
    remove(graph, [end, node])


def _has_rests(weight: Rounded) -> TypeGuard[PlannedWeight]:
    return isinstance(weight, PlannedWeight) and weight.has_rests


def _rests_added(
    graph: ir.Graph, source: ir.Value | None, product: ir.Node, weight: PlannedWeight, name: str
) -> list[ir.Node]:
    """The kernels take whole steps for zero points. What a block's numbers lack is the same for all
    of them, so it is multiplied by the sum of their inputs.
    """
    dimensions = rank(source)
    if source is None or dimensions is None or weight.K % weight.block:
        raise ValueError(f"{name}: blocks of {weight.block} do not divide {weight.K} features")
    like = product.outputs[0]
    shape = np.array([0] * (dimensions - 1) + [weight.blocks, weight.block], np.int64)
    last = np.array([-1], np.int64)
    rests = computed(graph, name, ir.DataType.FLOAT, (weight.blocks, weight.N), weight.rests)
    cut = make_node("Reshape", [source, constant(graph, f"{name}.shape", shape)], like=like)
    sums = make_node(
        "ReduceSum", [cut.outputs[0], constant(graph, f"{name}.axis", last)], like=like, keepdims=0
    )
    more = make_node("MatMul", [sums.outputs[0], rests], like=like)
    whole = make_node("Add", [product.outputs[0], more.outputs[0]], like=like)
    for node in (cut, sums):
        node.outputs[0].shape = None
    return [cut, sums, more, whole]


def _replace_embedding(graph: ir.Graph, node: ir.Node, stored: _Stored) -> None:
    weight, packed, scales, zeros = stored
    table = shared(
        graph,
        unique_name(graph, f"{packed.name}.rows"),
        packed,
        (weight.N, weight.packed_shape[1] * weight.packed_shape[2]),
    )
    inputs = [table, node.inputs[1], scales] + ([zeros] if zeros is not None else [])
    new = make_node(
        "GatherBlockQuantized",
        inputs,
        like=node.outputs[0],
        domain=MICROSOFT,
        bits=weight.bits,
        block_size=weight.block,
        gather_axis=0,
        quantize_axis=1,
    )
    nodes = [new]
    if weight.blocks * weight.block != weight.K:  # the last block is padded: cut what is not there
        bounds = [
            constant(graph, unique_name(graph, f"{table.name}.{name}"), np.array([value], np.int64))
            for name, value in (("start", 0), ("end", weight.K), ("axis", -1))
        ]
        nodes.append(make_node("Slice", [new.outputs[0], *bounds], like=node.outputs[0]))
        new.outputs[0].shape = None
    graph.insert_after(node, nodes)
    replace(graph, node.outputs[0], nodes[-1].outputs[0])
    remove(graph, [node])
