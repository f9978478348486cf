"""Weights that are computed when they are written, and written one at a time.

A pass that transposes, concatenates or reorders a weight describes the result; the numbers are made
when the file is written, one tensor after the other. So the exporter holds the checkpoint and one
tensor more, never a second copy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]

_EMBED_BYTES = 1024  # smaller tensors stay in the graph file: shapes, scalars, axes
_ALIGNMENT = 4096  # a page, so that the runtime can map the file


def constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """Adds an initializer with these numbers."""
    return initializer(graph, name, ir.Tensor(array, name=name))


def computed(
    graph: ir.Graph,
    name: str,
    dtype: ir.DataType,
    shape: tuple[int, ...],
    compute: Callable[[], Array],
    *,
    metadata: Mapping[str, str] | None = None,
) -> ir.Value:
    """Adds an initializer whose numbers `compute` gives when they are needed. `metadata` goes with
    it into the file.
    """

    def evaluate() -> ir.Tensor[Array]:
        array = np.ascontiguousarray(compute())
        if array.shape != shape:
            raise ValueError(f"{name} came out as {array.shape}, expected {shape}")
        return ir.Tensor(array, dtype=dtype, name=name)

    lazy = ir.LazyTensor(
        evaluate,
        dtype=dtype,
        shape=ir.Shape(shape),
        name=name,
        metadata_props=dict(metadata or {}),
    )
    return initializer(graph, name, lazy)


def weight_of(value: ir.Value | None, *, rank: int | None = None) -> ir.TensorProtocol | None:
    """The tensor of an initializer (of that rank, if given), None for any other value."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    if rank is not None and len(value.const_value.shape) != rank:
        return None
    return value.const_value


def dims(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """A tensor's shape as plain numbers."""
    return tuple(tensor.shape.numpy())


def unique_name(graph: ir.Graph, name: str) -> str:
    """`name`, or `name_2`, `name_3`, … when an initializer has it already."""
    candidate, count = name, 1
    while candidate in graph.initializers:
        count += 1
        candidate = f"{name}_{count}"
    return candidate


def write_model(model: ir.Model, path: Path, *, advance: Callable[[int], None]) -> None:
    """Writes the graph to `path` and its weights to `path` + `.data`, one tensor at a time.

    Initializers that hold the same tensor object (views of one weight) share one place in the file.
    `advance` is told the bytes of each tensor written.
    """
    data_path = path.with_name(path.name + ".data")
    places: dict[int, tuple[int, int]] = {}
    with open(data_path, "wb") as file:
        for value in _largest_last(model.graph):
            tensor = value.const_value
            assert tensor is not None  # initializers of a finished graph have numbers
            source = shared_source(tensor)
            if id(source) not in places:
                file.seek(-(-file.tell() // _ALIGNMENT) * _ALIGNMENT)
                start = file.tell()
                file.write(
                    np.ascontiguousarray(source.numpy()).tobytes()
                    if source.dtype.bitwidth >= 8
                    else source.tobytes()
                )
                places[id(source)] = (start, file.tell() - start)
                advance(tensor.nbytes)
            offset, length = places[id(source)]
            value.const_value = ir.ExternalTensor(
                data_path.name,
                offset,
                length,
                tensor.dtype,
                shape=ir.Shape(dims(tensor)),
                name=value.name or "",
                metadata_props=dict(tensor.metadata_props),
                base_dir=data_path.parent,
            )
    if not places:
        os.unlink(data_path)
    for value in model.graph.initializers.values():  # the small ones, which the graph itself holds
        if isinstance(value.const_value, ir.LazyTensor):
            value.const_value.numpy()  # what cannot be computed says so here, not inside of `save`
    ir.save(model, path)


def weight_bytes(model: ir.Model) -> int:
    """Bytes that `write_model` will write beside the graph."""
    return sum(source.nbytes for source in _sources(model))


def page_aligned_bytes(model: ir.Model) -> int:
    """The most that the file of weights may come to: each begins at a page of its own."""
    return sum(source.nbytes + _ALIGNMENT for source in _sources(model))


def _sources(model: ir.Model) -> list[ir.TensorProtocol]:
    """The tensors that go to the data file, each once."""
    sources = {
        id(s): s
        for value in _largest_last(model.graph)
        if value.const_value is not None
        for s in [shared_source(value.const_value)]
    }
    return list(sources.values())


class SharedTensor(ir.LazyTensor):
    """A second shape of another tensor's bytes: stored once, read as two initializers."""

    def __init__(self, source: ir.TensorProtocol, shape: tuple[int, ...], *, name: str) -> None:
        self.source = source
        super().__init__(
            self._reshaped,
            dtype=source.dtype,
            shape=ir.Shape(shape),
            name=name,
            metadata_props=dict(source.metadata_props),
        )

    def _reshaped(self) -> ir.Tensor[Array]:
        return ir.Tensor(
            self.source.numpy().reshape(dims(self)), dtype=self.source.dtype, name=self.name
        )


def shared(graph: ir.Graph, name: str, source: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    """Adds an initializer over the same bytes as `source`, in another shape."""
    tensor = source.const_value
    assert tensor is not None
    return initializer(graph, name, SharedTensor(tensor, shape, name=name))


def shared_source(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The tensor whose bytes are stored: the tensor itself, or what it is a view of."""
    return tensor.source if isinstance(tensor, SharedTensor) else tensor


def _largest_last(graph: ir.Graph) -> list[ir.Value]:
    """Initializers that go to the data file, in the graph's own order."""
    return [
        v
        for v in graph.initializers.values()
        if v.const_value is not None and v.const_value.nbytes >= _EMBED_BYTES
    ]


def initializer(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """Adds an initializer that holds this tensor."""
    value = ir.Value(
        name=name,
        const_value=tensor,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(dims(tensor)),
    )
    graph.register_initializer(value)
    return value
