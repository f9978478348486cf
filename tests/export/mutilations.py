"""What may be wrong with a graph that loads and runs: one change each, as an exporter's mistake
would make it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from wrong_graphs import Fault, attentions, leave_out

_SINKS = 11  # place of head_sink among the inputs of GroupQueryAttention
_COS, _SIN = 7, 8  # of the rotary tables


def _window_of(place: int, change: int | None) -> Fault:
    """Another window, or none, in one attention node."""

    def fault(graph: ir.Graph) -> None:
        attributes = attentions(graph)[place].attributes
        window = attributes.pop("local_window_size").as_int()
        if change is not None:
            attributes["local_window_size"] = ir.AttrInt64("local_window_size", window + change)

    return fault


def _windows_swapped(graph: ir.Graph) -> None:
    first, second = (node.attributes for node in attentions(graph)[:2])
    windows = [attributes.pop("local_window_size", None) for attributes in (first, second)]
    assert windows[0] != windows[1]
    for attributes, window in zip((second, first), windows, strict=True):
        if window is not None:
            attributes["local_window_size"] = window


def _without_sinks(graph: ir.Graph) -> None:
    node = attentions(graph)[1]
    assert node.inputs[_SINKS] is not None
    node.replace_input_with(_SINKS, None)


def _without_softcap(graph: ir.Graph) -> None:
    del attentions(graph)[1].attributes["softcap"]


def _another_scale(graph: ir.Graph) -> None:
    attributes = attentions(graph)[1].attributes
    attributes["scale"] = ir.AttrFloat32("scale", 1.1 * attributes.pop("scale").as_float())


def _another_rotary_base(graph: ir.Graph) -> None:
    """Other turns of each pair of numbers, in one layer: [D / 2] a position."""
    node = attentions(graph)[1]
    cos, sin = (graph.initializers[node.inputs[place].name] for place in (_COS, _SIN))
    turned = np.arctan2(sin.const_value.numpy()[1], cos.const_value.numpy()[1])
    rows, pairs = cos.const_value.numpy().shape
    turned *= 10.0 ** (np.arange(pairs) / pairs)
    angles = np.arange(rows)[:, None] * turned
    for place, function in ((_COS, np.cos), (_SIN, np.sin)):
        table = ir.Tensor(function(angles).astype(np.float32), name=f"other_{place}")
        value = ir.Value(
            name=table.name, const_value=table, shape=table.shape, type=ir.TensorType(table.dtype)
        )
        graph.register_initializer(value)
        node.replace_input_with(place, value)


def _without_norm(part: int) -> Fault:
    """Queries (0) or keys (1) of the last layer as they come from the projection."""

    def fault(graph: ir.Graph) -> None:
        node = attentions(graph)[-1].inputs[part].producer()  # the reshape behind the norm
        while "LayerNormalization" not in node.op_type:
            node = node.inputs[0].producer()
        ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])

    return fault


def _without_expert(graph: ir.Graph) -> None:
    """One of the last layer's experts adds nothing."""
    names = [name for name in graph.initializers if "experts" in name and "down_proj" in name]
    for name in [name for name in names if ".1." in name]:
        value = graph.initializers[name]
        numbers = value.const_value.numpy().copy()
        numbers[2] = 0
        value.const_value = ir.Tensor(numbers, name=name)


Mutilations = Mapping[str, Fault]

WINDOWS: Mutilations = {
    "window removed": _window_of(0, None),
    "window one longer": _window_of(0, 1),
    "window one shorter": _window_of(0, -1),
    "windows on the wrong layers": _windows_swapped,
}
"""Of a base whose first layer has a window and whose second has none."""
NORMS: Mutilations = {
    "query norm dropped": _without_norm(0),
    "key norm dropped": _without_norm(1),
    "rotary base changed": _another_rotary_base,
    "scale changed": _another_scale,
    "first layer left out": lambda graph: leave_out(graph, 0),
    "last layer left out": lambda graph: leave_out(graph, 1),
}
"""Of a base that rotates and norms queries and keys."""
SINKS: Mutilations = {"sinks removed": _without_sinks, "expert dropped": _without_expert}
SOFTCAP: Mutilations = {"softcap removed": _without_softcap}
