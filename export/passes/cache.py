"""An int8 cache: the attention nodes round new keys and values with constant scales, one for each
channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgeprefix.export.weights import constant
from edgeprefix.runtime.contracts.cache_scales import LayerScales

_SCALES = 12  # place of k_scale among the inputs of GroupQueryAttention; v_scale follows


class QuantiseCachePass(ir.passes.InPlacePass):
    """Requires: attention nodes over an fp32 cache. Ensures: past and present of every layer are
    int8.
    """

    def __init__(self, scales: Sequence[LayerScales]) -> None:
        self._scales = scales

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites in place."""
        graph = model.graph
        stored = {
            f"{index}.{kind}": constant(
                graph, f"past_key_values.{index}.{kind}.scale", array[None].astype(np.float32)
            )
            for index, layer in enumerate(self._scales)
            for kind, array in layer._asdict().items()
        }
        for value in (*graph.inputs, *graph.outputs):
            if str(value.name).startswith(("past_key_values.", "present.")):
                value.type = ir.TensorType(ir.DataType.INT8)
        for node in graph:
            if node.op_type == "GroupQueryAttention":
                _quantise(
                    node,
                    [
                        stored[str(past.name).partition(".")[2]]
                        for past in node.inputs[3:5]
                        if past is not None
                    ],
                )
        return ir.passes.PassResult(model, True)

    def ensures(self, model: ir.Model) -> None:
        """Past and present of every layer are int8."""
        wrong = [
            value.name
            for value in (*model.graph.inputs, *model.graph.outputs)
            if str(value.name).startswith(("past_key_values.", "present."))
            and value.dtype != ir.DataType.INT8
        ]
        if wrong:
            raise ir.passes.PostconditionError(f"not int8: {wrong[:3]}")


def _quantise(node: ir.Node, scales: Sequence[ir.Value]) -> None:
    node.resize_inputs(_SCALES + 2)
    for place, scale in enumerate(scales, start=_SCALES):
        node.replace_input_with(place, scale)
    for name in ("k_quant_type", "v_quant_type"):
        node.attributes[name] = ir.AttrString(name, "PER_CHANNEL")
    node.attributes["kv_cache_bit_width"] = ir.AttrInt64("kv_cache_bit_width", 8)
    for output in node.outputs[1:3]:
        output.type = ir.TensorType(ir.DataType.INT8)
