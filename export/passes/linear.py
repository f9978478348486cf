"""Projections in one form: MatMul with a [K, N] weight on the hidden states, and an Add for the
bias.

torch writes nn.Linear as Transpose of the weight → MatMul, GPT-2's Conv1D as Reshape to two
dimensions → Gemm → Reshape back. All later passes (and the quantiser) then know one form only. The
vocabulary projection is a Gemm on [N, K] rows that reads the weight as the checkpoint has it, so
that an embedding tied to it is stored once; it stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeprefix.base.rounded_weights import SMALLEST_SIDE
from edgeprefix.export.derived import Columns, PackedTensor, TurnedTensor
from edgeprefix.export.passes.graph import (
    attribute,
    is_op,
    make_node,
    producer,
    rank,
    remove,
    replace,
    sole_user,
    users,
)
from edgeprefix.export.passes.layout import LAYOUT_OPS, Labels, is_unchanged
from edgeprefix.export.weights import (
    Array,
    constant,
    dims,
    initializer,
    unique_name,
    weight_of,
)


@dataclass(frozen=True, eq=False)
class Linear:
    """A projection: `matmul` by a constant weight [K, N], and the Add of a constant bias [N] when
    there is one.
    """

    matmul: ir.Node
    add: ir.Node | None

    @property
    def output(self) -> ir.Value:
        """The projection's result, bias included."""
        return (self.add or self.matmul).outputs[0]

    @property
    def source(self) -> ir.Value:
        """The hidden states that are projected."""
        value = self.matmul.inputs[0]
        assert value is not None
        return value

    @property
    def weight(self) -> ir.Value:
        """The initializer [K, N]."""
        value = self.matmul.inputs[1]
        assert value is not None
        return value

    @property
    def width(self) -> int:
        """N, the number of output features."""
        return dims(self.weight_tensor)[1]

    @property
    def weight_tensor(self) -> ir.TensorProtocol:
        """The weight's numbers, [K, N]."""
        assert self.weight.const_value is not None
        return self.weight.const_value

    @property
    def bias_tensor(self) -> ir.TensorProtocol | None:
        """The bias's numbers, [N]; None without a bias."""
        bias = bias_of(self.add) if self.add is not None else None
        return None if bias is None else bias.const_value


def linear_of(matmul: ir.Node | None) -> Linear | None:
    """The projection that a MatMul node belongs to, None when its weight is not a constant
    [K, N].
    """
    if matmul is None or matmul.op_type != "MatMul" or weight_of(matmul.inputs[1], rank=2) is None:
        return None
    add = sole_user(matmul.outputs[0], "Add")
    return Linear(matmul, add if add is not None and bias_of(add) is not None else None)


def linear_behind(value: ir.Value | None) -> Linear | None:
    """The projection whose result `value` is."""
    node = value.producer() if value is not None else None
    if is_op(node, "Add") and node is not None:
        linear = next(
            (found for item in node.inputs if (found := linear_of(producer(item, "MatMul")))), None
        )
        return linear if linear is not None and linear.add is node else None
    linear = linear_of(node)
    return linear if linear is not None and linear.add is None else None


def bias_of(add: ir.Node) -> ir.Value | None:
    """The constant vector that an Add node adds."""
    return next((item for item in add.inputs if weight_of(item, rank=1) is not None), None)


class CanonicalLinearPass(ir.passes.InPlacePass):
    """Transpose → MatMul and Reshape → Gemm → Reshape become MatMul (+ Add).

    Requires: weights are initializers. Ensures: no Transpose of a weight is left.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites in place."""
        changed = False
        for node in list(model.graph):
            if is_op(node, "Transpose") and weight_of(node.inputs[0], rank=2) is not None:
                _fold_transpose(model.graph, node)
                changed = True
            elif is_op(node, "Gemm") and _is_projection(node):
                _gemm_to_matmul(model.graph, node)
                changed = True
        return ir.passes.PassResult(model, changed)

    def ensures(self, model: ir.Model) -> None:
        """No Transpose of a weight is left."""
        left = [
            n.name
            for n in model.graph
            if is_op(n, "Transpose") and weight_of(n.inputs[0], rank=2) is not None
        ]
        if left:
            raise ir.passes.PostconditionError(
                f"weights are still transposed at run time: {left[:3]}"
            )


class MergeSiblingsPass(ir.passes.InPlacePass):
    """Projections of one input become one projection and a Split: gate and up, or queries, keys and
    values.

    Narrow ones (a router) stay apart: they are not rounded when the rest is. Requires: canonical
    projections (CanonicalLinearPass). Ensures: no two mergeable projections share an input.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites in place."""
        groups: dict[ir.Value, list[Linear]] = {}
        for node in model.graph:
            if (linear := linear_of(node)) is not None and linear.width >= SMALLEST_SIDE:
                groups.setdefault(linear.source, []).append(linear)
        siblings = [group for group in groups.values() if len(group) > 1]
        for group in siblings:
            _merge(model.graph, group)
        return ir.passes.PassResult(model, bool(siblings))


class EliminateLayoutPass(ir.passes.InPlacePass):
    """Layout chains that give back what they got are bypassed.

    Ensures: every value read behind such a chain is read at its source.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites in place."""
        changed = False
        for node in list(model.graph):
            if node.op_type not in LAYOUT_OPS or len(node.outputs) > 1:
                continue
            value = node.outputs[0]
            for start in _chain(value):
                if start is not value and is_unchanged(value, start):
                    replace(model.graph, value, start)
                    changed = True
                    break
        return ir.passes.PassResult(model, changed)


def pack(graph: ir.Graph, parts: list[tuple[Linear, Labels | None]], *, like: ir.Value) -> ir.Value:
    """One projection that gives chosen columns of several, side by side. All parts read the same
    source.

    A part's columns are indices into its projection's output, None for all of them in order.
    """
    first = parts[0][0]
    width = sum(linear.width if chosen is None else len(chosen) for linear, chosen in parts)
    matmul = make_node("MatMul", [first.source, _packed_weight(graph, parts)], like=like)
    shape = list(first.source.shape or [])
    matmul.outputs[0].shape = ir.Shape([*shape[:-1], width]) if shape else None
    nodes = [matmul]
    if any(linear.add is not None for linear, _ in parts):
        nodes.append(
            make_node(
                "Add",
                [matmul.outputs[0], _packed_bias(graph, parts, width)],
                like=matmul.outputs[0],
            )
        )
    graph.insert_before(_earliest(graph, [linear.matmul for linear, _ in parts]), nodes)
    return nodes[-1].outputs[0]


def _packed_weight(graph: ir.Graph, parts: list[tuple[Linear, Labels | None]]) -> ir.Value:
    first, chosen = parts[0]
    if len(parts) == 1 and chosen is None:
        return first.weight
    tensors = [
        Columns(linear.weight_tensor, columns) for linear, columns in parts
    ]  # not the nodes: they will be gone
    name = unique_name(graph, _derived(first.weight, "packed"))
    return initializer(graph, name, PackedTensor(tensors, name=name))


def _packed_bias(
    graph: ir.Graph, parts: list[tuple[Linear, Labels | None]], width: int
) -> ir.Value:
    first = parts[0][0]
    rows = []
    for linear, columns in parts:
        bias = linear.bias_tensor
        array = (
            np.zeros(linear.width, first.weight_tensor.dtype.numpy())
            if bias is None
            else bias.numpy()
        )
        rows.append(_chosen(array, columns))
    return constant(
        graph, unique_name(graph, _derived(first.weight, "packed", "bias")), np.concatenate(rows)
    )


def _chosen(array: Array, columns: Labels | None) -> Array:
    return array if columns is None else array[..., columns]


def _fold_transpose(graph: ir.Graph, node: ir.Node) -> None:
    weight = node.inputs[0]
    assert weight is not None
    assert weight.const_value is not None
    tensor = weight.const_value
    name = unique_name(graph, _derived(weight, "t"))
    value = initializer(graph, name, TurnedTensor(tensor, name=name))
    replace(graph, node.outputs[0], value)
    remove(graph, [node])


def _is_projection(gemm: ir.Node) -> bool:
    """A Gemm by a constant weight whose result only goes on through Reshape, so that its rank does
    not matter.
    """
    plain = attribute(gemm, "alpha", 1.0) == attribute(gemm, "beta", 1.0) == 1.0 and not attribute(
        gemm, "transA", 0
    )
    after = users(gemm.outputs[0])
    return (
        plain
        and weight_of(gemm.inputs[1], rank=2) is not None
        and bool(after)
        and not gemm.outputs[0].is_graph_output()
        and all(node.op_type == "Reshape" for node in after)
    )


def _gemm_to_matmul(graph: ir.Graph, gemm: ir.Node) -> None:
    source, weight = gemm.inputs[:2]
    assert source is not None
    assert weight is not None
    assert weight.const_value is not None
    flattened = producer(source, "Reshape")
    if flattened is not None and _keeps_rows(flattened):
        source = flattened.inputs[0]
        assert source is not None
    if attribute(gemm, "transB", 0):
        name = unique_name(graph, _derived(weight, "t"))
        weight = initializer(graph, name, TurnedTensor(weight.const_value, name=name))
    assert weight.const_value is not None
    matmul = make_node("MatMul", [source, weight], like=gemm.outputs[0])
    shape = list(source.shape or [])
    matmul.outputs[0].shape = (
        ir.Shape([*shape[:-1], dims(weight.const_value)[1]]) if shape else None
    )
    nodes = [matmul]
    if len(gemm.inputs) > 2 and gemm.inputs[2] is not None:
        nodes.append(make_node("Add", [matmul.outputs[0], gemm.inputs[2]], like=matmul.outputs[0]))
    graph.insert_after(gemm, nodes)
    replace(graph, gemm.outputs[0], nodes[-1].outputs[0])
    remove(graph, [gemm])


def _keeps_rows(reshape: ir.Node) -> bool:
    """[B, S, K] → [B·S, K]: rows stay rows."""
    before, after = reshape.inputs[0], reshape.outputs[0]
    if (
        rank(before) != 3
        or rank(after) != 2
        or before is None
        or before.shape is None
        or after.shape is None
    ):
        return False
    return before.shape[-1] == after.shape[-1] and isinstance(after.shape[-1], int)


def _merge(graph: ir.Graph, group: list[Linear]) -> None:
    merged = pack(graph, [(linear, None) for linear in group], like=group[0].matmul.outputs[0])
    sizes = np.array([linear.width for linear in group], np.int64)
    name = unique_name(graph, f"{merged.name}_sizes")
    lengths = ir.Value(
        name=name,
        const_value=ir.Tensor(sizes, name=name),
        type=ir.TensorType(ir.DataType.INT64),
        shape=ir.Shape([len(sizes)]),
    )
    graph.register_initializer(lengths)
    split = make_node("Split", [merged, lengths], like=merged, outputs=len(group), axis=-1)
    node = merged.producer()
    assert node is not None
    graph.insert_after(node, split)
    for linear, part in zip(group, split.outputs, strict=True):
        part.type, part.shape = linear.output.type, linear.output.shape
        replace(graph, linear.output, part)
        remove(graph, [node for node in (linear.add, linear.matmul) if node is not None])


def _derived(weight: ir.Value, what: str, kind: str = "weight") -> str:
    """`q_proj.weight` → `q_proj.packed.weight`."""
    owner = str(weight.name).removesuffix(".weight").removesuffix(".t")
    return f"{owner}.{what}.{kind}"


def _earliest(graph: ir.Graph, nodes: list[ir.Node]) -> ir.Node:
    if len(nodes) == 1:
        return nodes[0]
    chosen = set(nodes)
    return next(node for node in graph if node in chosen)


def _chain(value: ir.Value) -> list[ir.Value]:
    """The values of the layout chain that ends in `value`, the start first."""
    chain = [value]
    while (
        (node := chain[0].producer()) is not None
        and node.op_type in LAYOUT_OPS
        and node.inputs[0] is not None
    ):
        chain.insert(0, node.inputs[0])
    return chain
