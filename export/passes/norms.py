"""Normalisation in one node, and the residual addition before it in the same one.

torch writes RMS norms as seven small nodes. They become SimplifiedLayerNormalization; an Add of two
hidden states that feeds one becomes part of SkipSimplifiedLayerNormalization, which gives the sum
as well. LayerNormalization and its Add stay apart: the fused kernel takes four times as long as the
two (benchmarks/graph.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeprefix.export.passes.graph import (
    MICROSOFT,
    attribute,
    is_scalar,
    last_dim,
    make_node,
    other_input,
    producer,
    rank,
    remove,
    replace,
    scalar,
    sole_user,
)
from edgeprefix.export.weights import computed, dims, weight_of

RMS_NORM = "SimplifiedLayerNormalization"


class FuseNormPass(ir.passes.InPlacePass):
    """x · rsqrt(mean(x²) + ε) · w becomes SimplifiedLayerNormalization; so does ONNX's own
    RMSNormalization.

    A weight of the form 1 + w is computed once. Ensures: no RMSNormalization is left.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites in place."""
        changed = False
        for node in list(model.graph):
            found = _rms_norm(node) if node.op_type == "Mul" else _standard_norm(node)
            if found is not None:
                _fuse_norm(model.graph, node, found)
                changed = True
        return ir.passes.PassResult(model, changed)

    def ensures(self, model: ir.Model) -> None:
        """No RMSNormalization is left."""
        if any(
            node.op_type == "RMSNormalization" and attribute(node, "axis", -1) == -1
            for node in model.graph
        ):
            raise ir.passes.PostconditionError("an RMSNormalization was left")


class FuseSkipPass(ir.passes.InPlacePass):
    """Add → RMS norm becomes one node that also gives the sum.

    Requires: FuseNormPass. Ensures: no RMS norm reads an Add of two hidden states.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites in place."""
        changed = False
        for node in list(model.graph):
            add = (
                producer(node.inputs[0], "Add")
                if node.op_type == RMS_NORM and node.domain == ""
                else None
            )
            if add is not None and _is_residual(add) and _takes_skip(node):
                _fuse_skip(model.graph, node, add)
                changed = True
        return ir.passes.PassResult(model, changed)


@dataclass(frozen=True)
class _RmsNorm:
    source: ir.Value
    scale: ir.Value
    epsilon: float


def _rms_norm(mul: ir.Node) -> _RmsNorm | None:
    """The pattern that ends in `mul`: weight · (x · rsqrt(mean(x²) + ε))."""
    for normed in mul.inputs:
        core = producer(normed, "Mul")
        scale = other_input(mul, normed)
        if core is None or normed is None or sole_user(normed) is not mul or not _is_scale(scale):
            continue
        for source in core.inputs:
            epsilon = _epsilon(other_input(core, source), source)
            if epsilon is not None and source is not None and scale is not None:
                return _RmsNorm(source, scale, epsilon)
    return None


def _is_scale(value: ir.Value | None) -> bool:
    if weight_of(value, rank=1) is not None:
        return True
    shifted = producer(value, "Add")
    return shifted is not None and _shifted_weight(shifted) is not None


def _shifted_weight(add: ir.Node) -> tuple[ir.Value, float] | None:
    """(w, c) of w + c, w a constant vector and c a number."""
    for weight in add.inputs:
        shift = scalar(other_input(add, weight))
        if weight is not None and weight_of(weight, rank=1) is not None and shift is not None:
            return weight, shift
    return None


def _epsilon(factor: ir.Value | None, source: ir.Value | None) -> float | None:
    """ε when `factor` is rsqrt(mean(source²) + ε) over the last dimension."""
    reciprocal = producer(factor, "Reciprocal")
    root = producer(reciprocal.inputs[0], "Sqrt") if reciprocal is not None else None
    if root is None:  # some write x / sqrt(…), some x · (…)^-½
        power = producer(factor, "Pow")
        root = power if power is not None and is_scalar(power.inputs[1], -0.5) else None
    shifted = producer(root.inputs[0], "Add") if root is not None else None
    if shifted is None:
        return None
    for mean in shifted.inputs:
        if _is_mean_square(producer(mean, "ReduceMean"), source):
            return scalar(other_input(shifted, mean))
    return None


def _is_mean_square(mean: ir.Node | None, source: ir.Value | None) -> bool:
    if (
        mean is None
        or len(mean.inputs) < 2
        or not attribute(mean, "keepdims", 1)
        or not is_scalar(mean.inputs[1], -1)
    ):
        return False
    square = producer(mean.inputs[0], "Pow", "Mul")
    if square is None or square.inputs[0] is not source:
        return False
    return square.inputs[1] is source if square.op_type == "Mul" else is_scalar(square.inputs[1], 2)


def _standard_norm(node: ir.Node) -> _RmsNorm | None:
    if node.op_type != "RMSNormalization" or attribute(node, "axis", -1) != -1:
        return None
    source, scale = node.inputs[:2]
    return (
        None
        if source is None or scale is None
        else _RmsNorm(source, scale, attribute(node, "epsilon", 1e-5))
    )


def _fuse_norm(graph: ir.Graph, node: ir.Node, found: _RmsNorm) -> None:
    scale = _plain_scale(graph, found.scale)
    norm = make_node(
        RMS_NORM,
        [found.source, scale],
        like=node.outputs[0],
        axis=-1,
        epsilon=found.epsilon,
        stash_type=1,
    )
    graph.insert_after(node, norm)
    replace(graph, node.outputs[0], norm.outputs[0])
    remove(graph, [node])


def _plain_scale(graph: ir.Graph, scale: ir.Value) -> ir.Value:
    """The weight itself, or 1 + w as an initializer of its own."""
    add = producer(scale, "Add")
    shifted = _shifted_weight(add) if add is not None else None
    if shifted is None:
        return scale
    weight, shift = shifted
    tensor = weight.const_value
    assert tensor is not None
    name = f"{weight.name}_shifted"
    if name in graph.initializers:
        return graph.initializers[name]
    return computed(
        graph, name, tensor.dtype, dims(tensor), lambda: tensor.numpy() + np.float32(shift)
    )


def _is_residual(add: ir.Node) -> bool:
    """An Add of two hidden states [B, S, hidden] of the same width."""
    one, other = add.inputs
    if weight_of(one) is not None or weight_of(other) is not None:
        return False
    return (
        rank(one) == rank(other) == 3
        and last_dim(one) is not None
        and last_dim(one) == last_dim(other)
    )


def _takes_skip(norm: ir.Node) -> bool:
    """The fused kernels need a weight vector and normalise the last dimension."""
    return attribute(norm, "axis", -1) in (-1, 2) and weight_of(norm.inputs[1], rank=1) is not None


def _fuse_skip(graph: ir.Graph, norm: ir.Node, add: ir.Node) -> None:
    fused = make_node(
        "SkipSimplifiedLayerNormalization",
        [*add.inputs, norm.inputs[1]],
        like=norm.outputs[0],
        domain=MICROSOFT,
        outputs=4,
        epsilon=attribute(norm, "epsilon", 1e-5),
    )
    total = fused.outputs[3]
    total.type, total.shape = add.outputs[0].type, add.outputs[0].shape
    for unused in fused.outputs[1:3]:
        unused.name = ""
    graph.insert_after(add, fused)
    replace(graph, norm.outputs[0], fused.outputs[0])
    replace(graph, add.outputs[0], total)
    if not total.uses():
        fused.resize_outputs(1)
    remove(graph, [norm, add])
