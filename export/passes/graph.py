"""Small words for looking at and editing a graph, shared by the passes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import onnx_ir as ir

MICROSOFT = "com.microsoft"


def is_op(node: ir.Node | None, *types: str) -> bool:
    """Whether `node` is of one of these types, in whatever domain."""
    return node is not None and node.op_type in types


def producer(value: ir.Value | None, *types: str) -> ir.Node | None:
    """The node that makes `value`, when it is of one of these types (of any, when none is
    given).
    """
    node = value.producer() if value is not None else None
    return node if node is not None and (not types or node.op_type in types) else None


def users(value: ir.Value) -> list[ir.Node]:
    """The nodes that read `value`; one that reads it twice is listed twice."""
    return [node for node, _ in value.uses()]


def sole_user(value: ir.Value, *types: str) -> ir.Node | None:
    """The only node that reads `value`, when there is exactly one use, of one of these types, and
    it is no output.
    """
    nodes = users(value)
    if len(nodes) != 1 or value.is_graph_output() or (types and nodes[0].op_type not in types):
        return None
    return nodes[0]


def other_input(node: ir.Node, value: ir.Value | None) -> ir.Value | None:
    """The other operand of a node with two."""
    first, second = node.inputs[:2]
    return second if first is value else first


def scalar(value: ir.Value | None) -> float | None:
    """The number in a constant of one element, None for anything else."""
    tensor = value.const_value if value is not None else None
    if tensor is None or tensor.size != 1:
        return None
    return float(tensor.numpy().reshape(()))


def is_scalar(value: ir.Value | None, expected: float) -> bool:
    """Whether `value` is a constant of one element that equals `expected` to fp32's precision."""
    found = scalar(value)
    return found is not None and abs(found - expected) <= 1e-6 * max(1.0, abs(expected))


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """An attribute's value, or the default."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def last_dim(value: ir.Value | None) -> int | None:
    """The size of the last dimension, None when unknown."""
    if value is None or value.shape is None or not len(value.shape):
        return None
    size = value.shape[-1]
    return size if isinstance(size, int) else None


def rank(value: ir.Value | None) -> int | None:
    """Number of dimensions, None when unknown."""
    return None if value is None or value.shape is None else len(value.shape)


def make_node(
    op_type: str,
    inputs: Sequence[ir.Value | None],
    *,
    like: ir.Value,
    domain: str = "",
    outputs: int = 1,
    **attributes: Any,
) -> ir.Node:
    """A node whose first output has the type, the shape and (with a suffix) the name of `like`."""
    name = f"{like.name}_{op_type}"
    node = ir.Node(
        domain,
        op_type,
        inputs,
        ir.convenience.convert_attributes(attributes),
        num_outputs=outputs,
        name=name,
    )
    for index, output in enumerate(node.outputs):
        output.name = name if index == 0 else f"{name}_{index}"
    node.outputs[0].type, node.outputs[0].shape = like.type, like.shape
    return node


def replace(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Lets every user of `old`, graph outputs too, read `new`."""
    if old.is_graph_output():
        index = list(graph.outputs).index(old)
        old.name, new.name = f"{old.name}_replaced", old.name
        new.shape, new.type = old.shape, old.type
        graph.outputs[index] = new
    old.replace_all_uses_with(new)


def remove(graph: ir.Graph, nodes: Iterable[ir.Node]) -> None:
    """Takes nodes out of the graph whose outputs nobody reads any more."""
    for node in nodes:
        if node.graph is not None and not any(
            output.uses() or output.is_graph_output() for output in node.outputs
        ):
            graph.remove(node, safe=True)


def count(model: ir.Model, *types: str) -> int:
    """Number of nodes of these types."""
    return sum(node.op_type in types for node in model.graph)
