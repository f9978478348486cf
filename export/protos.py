"""Walking an ONNX file as it is stored, its weights unread."""

from __future__ import annotations

from collections.abc import Iterator

import onnx


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from graphs_of(inner)


def tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor: initialisers and constants."""
    for graph in graphs_of(model.graph):
        yield from graph.initializer
        for node in graph.node:
            yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))


def nodes_of(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node, those inside of nodes too."""
    for graph in graphs_of(model.graph):
        yield from graph.node
