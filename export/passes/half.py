"""fp16 for GPUs: weights, activations and cache in half precision; logits and positions stay in
fp32.

The graph is traced in fp32, so every float in it is one of two kinds. Numbers of the model
(weights, hidden states, cache) become fp16. Numbers computed from positions alone (angles of a
rotation that stays outside the attention node) keep fp32, since fp16 cannot even count to 4,096;
they are cast where they meet the others.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeprefix.export.passes.graph import make_node
from edgeprefix.export.weights import Array, computed, dims
from edgeprefix.runtime.errors import ExportError

_HALF, _FULL = ir.DataType.FLOAT16, ir.DataType.FLOAT
_HALF_MAX = float(np.finfo(np.float16).max)


class BeyondHalfError(ExportError):
    """A weight that fp16 cannot hold."""


class HalfPrecisionPass(ir.passes.InPlacePass):
    """Requires: an fp32 graph. Ensures: cache inputs are fp16, logits fp32."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites in place."""
        graph = model.graph
        halves = _model_values(graph)
        for value in graph.inputs:
            if value.dtype == _FULL:
                value.type = ir.TensorType(_HALF)
        for node in list(graph):
            if any(value in halves for value in node.outputs):
                _convert_node(graph, node, halves)
        _logits_in_full(graph)
        return ir.passes.PassResult(model, True)

    def ensures(self, model: ir.Model) -> None:
        """Cache inputs are fp16, logits fp32."""
        wrong = [
            v.name
            for v in (*model.graph.inputs, *model.graph.outputs)
            if v.dtype == (_HALF if v.name == "logits" else _FULL)
        ]
        if wrong:
            raise ir.passes.PostconditionError(f"wrong precision: {wrong[:3]}")


def _model_values(graph: ir.Graph) -> set[ir.Value]:
    """Float values that depend on the cache, on the embedding or on a weight matrix."""
    halves = {value for value in graph.inputs if value.dtype == _FULL}
    for node in graph:
        looks_up = node.op_type == "Gather" and _is_float_weight(node.inputs[0])
        if looks_up or any(value in halves for value in node.inputs):
            halves.update(
                value for value in node.outputs if value.name and value.dtype in (_FULL, None)
            )
    return halves


def _is_float_weight(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None and value.const_value.dtype == _FULL


def _convert_node(graph: ir.Graph, node: ir.Node, halves: set[ir.Value]) -> None:
    for index, value in enumerate(node.inputs):
        if value is None or value in halves or value.dtype != _FULL:
            continue
        if value.const_value is not None:
            node.replace_input_with(index, _half_constant(graph, value))
        else:
            cast = make_node("Cast", [value], like=value, to=int(_HALF))
            cast.outputs[0].type = ir.TensorType(_HALF)
            graph.insert_before(node, cast)
            node.replace_input_with(index, cast.outputs[0])
    if node.op_type == "Cast" and node.attributes["to"].as_int() == _FULL:
        node.attributes["to"] = ir.AttrInt64("to", int(_HALF))
    for value in node.outputs:
        if value.dtype == _FULL:
            value.type = ir.TensorType(_HALF)


def _half_constant(graph: ir.Graph, value: ir.Value) -> ir.Value:
    name = f"{value.name}.fp16"
    if name in graph.initializers:
        return graph.initializers[name]
    tensor = value.const_value
    assert tensor is not None
    return computed(
        graph, name, _HALF, dims(tensor), lambda: _to_half(str(value.name), tensor.numpy())
    )


def _to_half(name: str, array: Array) -> Array:
    if problem := beyond_half(name, array):
        raise BeyondHalfError(problem)
    return array.astype(np.float16)


def beyond_half(name: str, array: Array) -> str | None:
    """What to say of a weight that fp16 cannot hold; None when it can."""
    largest = float(np.abs(array).max(initial=0.0))
    return _beyond(name, largest) if _HALF_MAX < largest < np.inf else None


def _beyond(name: str, largest: float) -> str:
    return (
        f"weight {name} reaches {largest:.0f}, more than fp16 holds ({_HALF_MAX:.0f}); export "
        "with --precision fp32, int8 or int4"
    )


def _logits_in_full(graph: ir.Graph) -> None:
    """The runtime samples in fp32; one Cast at the end is cheaper than one in every caller."""
    index = next(i for i, value in enumerate(graph.outputs) if value.name == "logits")
    value = graph.outputs[index]
    cast = make_node("Cast", [value], like=value, to=int(_FULL))
    value.name, cast.outputs[0].name = "logits_fp16", "logits"
    cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(_FULL), value.shape
    graph.append(cast)
    graph.outputs[index] = cast.outputs[0]
