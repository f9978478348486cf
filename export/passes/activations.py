"""Activation functions in one node each.

SiLU is a Sigmoid and a Mul in torch's graph, GPT-2's GELU eight nodes. Both have kernels of their
own in ONNX Runtime; FastGelu also adds the bias of the projection before it.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from edgeprefix.export.passes.graph import (
    MICROSOFT,
    attribute,
    is_scalar,
    make_node,
    other_input,
    producer,
    remove,
    replace,
)
from edgeprefix.export.passes.linear import bias_of


class FuseActivationPass(ir.passes.InPlacePass):
    """x · sigmoid(x) → QuickGelu(α = 1); ½x(1 + tanh(√(2/π)(x + 0.044715x³))) → FastGelu; a bias
    goes into the GELU.

    Ensures: no Sigmoid multiplies its own input.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites in place."""
        changed = False
        for node in list(model.graph):
            fused = _silu(node) or _tanh_gelu(node) or _standard_gelu(node)
            if fused is not None:
                model.graph.insert_after(node, fused)
                replace(model.graph, node.outputs[0], fused.outputs[0])
                remove(model.graph, [node])
                changed = True
        return ir.passes.PassResult(model, changed)

    def ensures(self, model: ir.Model) -> None:
        """No Sigmoid multiplies its own input."""
        if any(_silu(node) is not None for node in model.graph):
            raise ir.passes.PostconditionError("a SiLU was left in two nodes")


def _silu(node: ir.Node) -> ir.Node | None:
    if node.op_type != "Mul":
        return None
    for value in node.inputs:
        sigmoid = producer(value, "Sigmoid")
        source = other_input(node, value)
        if sigmoid is not None and source is not None and sigmoid.inputs[0] is source:
            return make_node(
                "QuickGelu", [source], like=node.outputs[0], domain=MICROSOFT, alpha=1.0
            )
    return None


def _tanh_gelu(node: ir.Node) -> ir.Node | None:
    """(½x) · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))"""
    if node.op_type != "Mul":
        return None
    for half in node.inputs:
        source = _factor(half, 0.5)
        gate = producer(other_input(node, half), "Add")
        if source is None or gate is None:
            continue
        tanh = next((found for item in gate.inputs if (found := producer(item, "Tanh"))), None)
        if (
            tanh is not None
            and is_scalar(other_input(gate, tanh.outputs[0]), 1.0)
            and _is_gelu_argument(tanh.inputs[0], source)
        ):
            return _fast_gelu(source, node.outputs[0])
    return None


def _standard_gelu(node: ir.Node) -> ir.Node | None:
    """ONNX's Gelu of a projection with a bias: the contrib kernels add the bias."""
    if node.op_type != "Gelu" or node.domain != "" or node.inputs[0] is None:
        return None
    if attribute(node, "approximate", "none") == "tanh":
        return _fast_gelu(node.inputs[0], node.outputs[0])
    states, bias = _biased(node.inputs[0])
    return (
        None
        if bias is None
        else make_node("BiasGelu", [states, bias], like=node.outputs[0], domain=MICROSOFT)
    )


def _is_gelu_argument(value: ir.Value | None, source: ir.Value) -> bool:
    inner = producer(_factor(value, math.sqrt(2 / math.pi)), "Add")
    if inner is None or not any(item is source for item in inner.inputs):
        return False
    cubed = producer(_factor(other_input(inner, source), 0.044715), "Pow")
    return cubed is not None and cubed.inputs[0] is source and is_scalar(cubed.inputs[1], 3.0)


def _factor(value: ir.Value | None, expected: float) -> ir.Value | None:
    """x when `value` is x · expected."""
    node = producer(value, "Mul")
    if node is None:
        return None
    return next(
        (other_input(node, item) for item in node.inputs if is_scalar(item, expected)), None
    )


def _fast_gelu(source: ir.Value, like: ir.Value) -> ir.Node:
    states, bias = _biased(source)
    return make_node(
        "FastGelu", [states] if bias is None else [states, bias], like=like, domain=MICROSOFT
    )


def _biased(value: ir.Value) -> tuple[ir.Value | None, ir.Value | None]:
    """(states, bias) when `value` is their sum and is read by one activation only (of however many
    nodes).
    """
    add = producer(value, "Add")
    bias = bias_of(add) if add is not None else None
    if add is None or bias is None:
        return value, None
    return other_input(add, bias), bias
