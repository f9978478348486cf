"""How the weights of a foreign graph are stored, read from its nodes: it decides how far from torch
it may be.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import onnx

from edgeprefix.export.adopt.source import Source
from edgeprefix.export.protos import nodes_of, tensors_of

_BITS: dict[int, int] = {
    onnx.TensorProto.INT4: 4,
    onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.INT8: 8,
    onnx.TensorProto.UINT8: 8,
    onnx.TensorProto.FLOAT16: 16,
    onnx.TensorProto.FLOAT: 32,
}
_NAMES = {4: "int4", 8: "int8", 16: "fp16", 32: "fp32"}
_SHARE = 0.1  # of the numbers of all matrices: less is no reason for the bounds of a whole graph


def precision_of(source: Source) -> str:
    """fp32, fp16, int8 or int4: the coarsest that a tenth of the numbers is stored in or below."""
    counts: Counter[int] = Counter()
    packed: set[str] = set()
    for node in nodes_of(source.model):
        for name, bits, numbers in _packed(node, source.model):
            if name not in packed:
                counts[bits] += numbers
                packed.add(name)
    for tensor in tensors_of(source.model):
        if tensor.name not in packed and len(tensor.dims) > 1 and tensor.data_type in _BITS:
            counts[_BITS[tensor.data_type]] += math.prod(tensor.dims)
    coarser = 0
    for bits, name in _NAMES.items():
        coarser += counts[bits]
        if coarser > _SHARE * counts.total():
            return name
    return "fp32"


def _packed(node: onnx.NodeProto, model: onnx.ModelProto) -> Iterator[tuple[str, int, int]]:
    """Weights that are bytes of several numbers, or of others than their type says: name, bits,
    numbers.
    """
    facts = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "MatMulNBits":
        bits = 8 if facts.get("bits", 4) == 8 else 4
        yield node.input[1], bits, facts["K"] * facts["N"]
    elif node.op_type == "MatMulBnb4":
        yield node.input[1], 4, facts["K"] * facts["N"]
    elif node.op_type == "GatherBlockQuantized":
        dims = next((t.dims for t in tensors_of(model) if t.name == node.input[0]), (0,))
        bits = 8 if facts.get("bits", 4) == 8 else 4
        yield node.input[0], bits, math.prod(dims) * (1 if bits == 8 else 2)
