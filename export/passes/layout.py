"""Where does a number come from? Layout nodes (reshape, transpose, slice, split) move numbers and
never change them.

A chain of them is understood by running it once on labels: each element carries its own index, and
the labels that come out tell which column of the source every output column is. So one rule covers
all the ways in which architectures cut up their projections, and nothing is guessed from shapes. B
batch, S tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeprefix.export.passes.graph import attribute, last_dim, rank

Labels = npt.NDArray[np.int64]

LAYOUT_OPS = ("Reshape", "Transpose", "Slice", "Split", "Squeeze", "Unsqueeze", "Identity")


class _Sizes(NamedTuple):
    """The dimensions that vary, by the names that they have in the graph's inputs."""

    batch: int
    tokens: int
    rows: int = 7
    capacity: int = 11


_SIZES = (_Sizes(2, 3), _Sizes(3, 5))  # a chain that only fits one of them is no layout of rows


class _UnknownError(Exception):
    """A value that cannot be computed here."""


def source_of(value: ir.Value | None) -> ir.Value | None:
    """The value at the start of the layout chain that ends in `value` (itself, when there is no
    chain).
    """
    while value is not None:
        node = value.producer()
        if node is None or node.op_type not in LAYOUT_OPS:
            break
        value = node.inputs[0]
    return value


def columns(value: ir.Value, source: ir.Value) -> Labels | None:
    """For each column of `value` [B,S,M] the column of `source` [B,S,N] that it holds.

    None when `value` is no such rearrangement: of another rank, or with numbers of other rows.
    """
    width = last_dim(source)
    if width is None:
        return None
    found: Labels | None = None
    for sizes in _SIZES:
        B, S = sizes.batch, sizes.tokens
        labels = np.arange(B * S * width, dtype=np.int64).reshape(B, S, width)
        moved = _run(value, {source: labels}, sizes)
        if moved is None or moved.ndim != 3 or moved.shape[:2] != (B, S):
            return None
        chosen = moved % width
        if (
            not (moved // width == np.arange(B * S).reshape(B, S, 1)).all()
            or not (chosen == chosen[:1, :1]).all()
        ):
            return None
        if found is not None and not np.array_equal(found, chosen[0, 0]):
            return None
        found = chosen[0, 0]
    return found


def is_unchanged(value: ir.Value, source: ir.Value) -> bool:
    """Whether `value` is `source` again, element by element and in the same shape."""
    for sizes in _SIZES:
        shape = _shape(source, sizes)
        if shape is None:
            return False
        labels = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
        moved = _run(value, {source: labels}, sizes)
        if moved is None or moved.shape != labels.shape or not np.array_equal(moved, labels):
            return False
    return True


def _shape(value: ir.Value, sizes: _Sizes) -> tuple[int, ...] | None:
    """A value's shape for these sizes: graph inputs by their names, others when they are [B, S,
    number].
    """
    if value.is_graph_input():
        return _input_shape(value, sizes)
    width = last_dim(value)
    return (sizes.batch, sizes.tokens, width) if rank(value) == 3 and width is not None else None


def _input_shape(value: ir.Value, sizes: _Sizes) -> tuple[int, ...]:
    assert value.shape is not None  # inputs are declared with shapes
    return tuple(
        size if isinstance(size, int) else getattr(sizes, str(size.value)) for size in value.shape
    )


def _run(value: ir.Value, known: Mapping[ir.Value, Any], sizes: _Sizes) -> Labels | None:
    try:
        return np.asarray(_evaluate(value, known, sizes))
    except (_UnknownError, ValueError, IndexError):
        return None


def _evaluate(value: ir.Value | None, known: Mapping[ir.Value, Any], sizes: _Sizes) -> Any:
    """Computes a value from known ones, constants and the shapes of graph inputs."""
    if value is None:
        return None
    if value in known:
        return known[value]
    if value.const_value is not None:
        if value.const_value.size > 64:
            raise _UnknownError  # a weight, no shape
        return value.const_value.numpy()
    node = value.producer()
    if node is None or node.op_type not in _OPERATIONS:
        raise _UnknownError
    if node.op_type == "Shape":
        return _shape_of(node, known, sizes)
    inputs = [_evaluate(item, known, sizes) for item in node.inputs]
    return _OPERATIONS[node.op_type](node, value, inputs)


def _shape_of(node: ir.Node, known: Mapping[ir.Value, Any], sizes: _Sizes) -> Any:
    source = node.inputs[0]
    assert source is not None
    shape = known[source].shape if source in known else _shape(source, sizes)
    if shape is None:
        raise _UnknownError
    return np.array(shape[attribute(node, "start", 0) : attribute(node, "end")], np.int64)


def _reshape(node: ir.Node, value: ir.Value, inputs: list[Any]) -> Any:
    data, shape = inputs
    keep_zero = attribute(node, "allowzero", 0)
    return data.reshape(
        [
            data.shape[i] if size == 0 and not keep_zero else int(size)
            for i, size in enumerate(shape)
        ]
    )


def _slice(node: ir.Node, value: ir.Value, inputs: list[Any]) -> Any:
    data, starts, ends, *rest = inputs
    axes = rest[0] if rest and rest[0] is not None else range(len(starts))
    steps = rest[1] if len(rest) > 1 and rest[1] is not None else [1] * len(starts)
    cut = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        cut[int(axis)] = slice(int(start), int(end), int(step))
    return data[tuple(cut)]


def _split(node: ir.Node, value: ir.Value, inputs: list[Any]) -> Any:
    data, axis = inputs[0], attribute(node, "axis", 0)
    if len(inputs) > 1 and inputs[1] is not None:
        parts = np.split(data, np.cumsum(inputs[1])[:-1], axis)
    else:
        parts = np.array_split(data, len(node.outputs), axis)
    return parts[list(node.outputs).index(value)]


def _squeeze(node: ir.Node, value: ir.Value, inputs: list[Any]) -> Any:
    axes = inputs[1] if len(inputs) > 1 else None
    return np.squeeze(inputs[0], tuple(int(axis) for axis in axes) if axes is not None else None)


def _gather(node: ir.Node, value: ir.Value, inputs: list[Any]) -> Any:
    return np.take(inputs[0], inputs[1], axis=attribute(node, "axis", 0))


def _divide(node: ir.Node, value: ir.Value, inputs: list[Any]) -> Any:
    return inputs[0] // inputs[1]


_OPERATIONS: dict[str, Callable[[ir.Node, ir.Value, list[Any]], Any]] = {
    "Shape": lambda node, value, inputs: None,  # looked at before its input is evaluated
    "Identity": lambda node, value, inputs: inputs[0],
    "Reshape": _reshape,
    "Transpose": lambda node, value, inputs: np.transpose(inputs[0], attribute(node, "perm")),
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Unsqueeze": lambda node, value, inputs: np.expand_dims(
        inputs[0], tuple(int(axis) for axis in inputs[1])
    ),
    "Concat": lambda node, value, inputs: np.concatenate(inputs, attribute(node, "axis")),
    "Gather": _gather,
    "Add": lambda node, value, inputs: inputs[0] + inputs[1],
    "Sub": lambda node, value, inputs: inputs[0] - inputs[1],
    "Mul": lambda node, value, inputs: inputs[0] * inputs[1],
    "Div": _divide,
    "Cast": lambda node, value, inputs: inputs[0],
}
