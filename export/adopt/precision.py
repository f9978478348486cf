"""How the weights of a foreign graph are stored, read from its nodes: it decides how far from torch
it may be.
"""

from __future__ import annotations

import onnx

from edgeprefix.export.adopt.source import Source, graphs_of, tensors_of

_FOUR_BIT_OPS = {"MatMulBnb4"}
_EIGHT_BIT_OPS = {
    "MatMulInteger",
    "DynamicQuantizeMatMul",
    "DynamicQuantizeLinear",
    "QLinearMatMul",
    "MatMulIntegerToFloat",
}
_FOUR_BIT_TYPES = {onnx.TensorProto.INT4, onnx.TensorProto.UINT4}


def precision_of(source: Source) -> str:
    """fp32, fp16, int8 or int4: the coarsest that is found."""
    found = {"fp32"}
    for graph in graphs_of(source.model.graph):
        for node in graph.node:
            found.add(_of_node(node))
    for tensor in tensors_of(source.model):
        if tensor.data_type in _FOUR_BIT_TYPES:
            found.add("int4")
        elif tensor.data_type == onnx.TensorProto.FLOAT16 and len(tensor.dims) > 1:
            found.add("fp16")
    return next(name for name in ("int4", "int8", "fp16", "fp32") if name in found)


def _of_node(node: onnx.NodeProto) -> str:
    if node.op_type in ("MatMulNBits", "GatherBlockQuantized"):
        bits = next((attribute.i for attribute in node.attribute if attribute.name == "bits"), 4)
        return "int8" if bits == 8 else "int4"
    if node.op_type in _FOUR_BIT_OPS:
        return "int4"
    return "int8" if node.op_type in _EIGHT_BIT_OPS else "fp32"
