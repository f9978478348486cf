"""The weights of experts, [E, N, K], are stored in 4 or 8 bits and become plain numbers when a
token has chosen theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx_ir as ir

from edgeprefix.base.rounded_weights import Role, format_of
from edgeprefix.base.rounding import QuantisedFormat, WeightFormat
from edgeprefix.export.blockwise import BlockwiseWeight
from edgeprefix.export.passes.graph import MICROSOFT, make_node, remove, replace
from edgeprefix.export.weights import (
    Array,
    SharedTensor,
    computed,
    constant,
    dims,
    unique_name,
    weight_of,
)


class QuantiseExpertsPass(ir.passes.InPlacePass):
    """GatherND of a constant [E, N, K] becomes GatherBlockQuantized, where a block divides K.

    Requires: nothing. Ensures: nothing; matrices that no block divides stay in floating point.
    """

    def __init__(self, form: QuantisedFormat) -> None:
        self._form = form

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites in place."""
        changed = False
        for node in list(model.graph):
            tensor = weight_of(node.inputs[0], rank=3) if node.op_type == "GatherND" else None
            if tensor is None:
                continue
            form = format_of(Role.EXPERTS, dims(tensor), self._form)
            if form is not None:
                _quantise(model.graph, node, tensor, form)
                changed = True
        return ir.passes.PassResult(model, changed)


def _quantise(
    graph: ir.Graph, node: ir.Node, tensor: ir.TensorProtocol, form: WeightFormat
) -> None:
    E, N, K = dims(tensor)
    rows = SharedTensor(tensor, (E * N, K), name=str(node.inputs[0].name))  # type: ignore[union-attr]
    weight = BlockwiseWeight(rows, form, transposed=True)
    name = unique_name(graph, f"{rows.name}.int{form.bits}")

    def stored(suffix: str, dtype: ir.DataType, width: int, make: Callable[[], Array]) -> ir.Value:
        shape = (E, N, width)
        return computed(graph, name + suffix, dtype, shape, partial(_reshaped, make, shape))

    parts = [
        stored("", ir.DataType.UINT8, K * form.bits // 8, weight.packed),
        _expert_ids(graph, node),
        stored(".scale", ir.DataType.FLOAT, weight.blocks, weight.scales),
    ]
    if not form.symmetric:
        parts.append(stored(".zero", ir.DataType.UINT8, weight.zeros_shape[1], weight.zeros))
    new = make_node(
        "GatherBlockQuantized",
        parts,
        like=node.outputs[0],
        domain=MICROSOFT,
        bits=form.bits,
        block_size=weight.block,
        gather_axis=0,
        quantize_axis=2,
    )
    graph.insert_before(node, new)
    replace(graph, node.outputs[0], new.outputs[0])
    remove(graph, [node])


def _reshaped(make: Callable[[], Array], shape: tuple[int, ...]) -> Array:
    return make().reshape(shape)


def _expert_ids(graph: ir.Graph, node: ir.Node) -> ir.Value:
    """The chosen experts [tokens · k]; GatherND has them as [tokens · k, 1]."""
    ids = node.inputs[1]
    assert ids is not None
    shape = constant(graph, unique_name(graph, f"{ids.name}.flat"), np.array([-1], np.int64))
    flat = make_node("Reshape", [ids, shape], like=ids)
    flat.outputs[0].shape = None
    graph.insert_before(node, flat)
    return flat.outputs[0]
