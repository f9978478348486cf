"""The weights of a graph that others rounded, found again in the base: torch can then compute with
the very numbers that the graph holds.

A graph's matrices have names of the exporter's. But a rounded matrix is still close to the one it
was made of and far from every other, so it is found by its numbers: some rows of a stored matrix
(exporters put several projections into one) are a module's weight, rounded. N rows (outputs), K
columns (inputs).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from torch import nn
from transformers import PreTrainedModel

from edgeprefix.export.graph_matrices import GraphMatrix, matrix_of
from edgeprefix.export.own_numbers import CLOSE, OwnNumbers, RowReader, State, module_matrices
from edgeprefix.runtime.contracts.manifest import GRAPH_FILE

Array = np.ndarray
_SKETCH = 64  # columns that tell matrices apart
_OTHER_ROUNDING = {
    "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul",
    "MatMulBnb4", "QMoE", "QAttention", "QGemm", "QuantizeLinear", "DynamicQuantizeLinear",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Sketch:
    """A matrix of the graph and its first columns, which tell it apart."""

    matrix: GraphMatrix
    columns: Array
    """[N, _SKETCH]."""
    width: int
    """K."""

    @classmethod
    def of(cls, matrix: GraphMatrix) -> _Sketch:
        whole = matrix.read()
        return cls(matrix, whole[:, :_SKETCH].astype(np.float32), whole.shape[1])


def find_stored(
    bundle: str | Path, model: PreTrainedModel, state: State | None = None
) -> OwnNumbers | None:
    """Where the rounded matrices of a bundle's graph lie in the model.

    None when the graph rounds in a way of which this module does not know the numbers, or when most
    of its matrices are none of the base's: some methods rescale what they round.
    """
    graph = ir.load(Path(bundle) / GRAPH_FILE).graph
    if any(_unknown(node) for node in graph.all_nodes()):
        return None
    left = {  # rows that no module was found for
        (sketch := _Sketch.of(matrix)): len(sketch.columns)
        for node in graph.all_nodes()
        if (matrix := matrix_of(node)) is not None
    }
    rows = sum(left.values())
    readers: dict[nn.Module, Callable[[], Array]] = {}
    for _, module, weight in module_matrices(model, state):
        if (place := _place_of(module, weight, list(left))) is not None:
            sketch, start = place
            chosen = np.arange(start, start + len(weight))
            readers[module] = RowReader(sketch.matrix, chosen, weight.shape[1])
            left[sketch] -= len(weight)
            if left[sketch] <= 0:
                del left[sketch]
    strange = {sketch: count for sketch, count in left.items() if sketch.matrix.bits < 16}
    if sum(strange.values()) > rows / 2:
        return None
    return OwnNumbers(readers, tuple(sketch.matrix.name for sketch in strange))


def _unknown(node: ir.Node) -> bool:
    """Whether a node rounds in a way that is not read here."""
    if node.op_type == "MatMulNBits":
        return node.attributes["bits"].as_int() not in CLOSE or (
            len(node.inputs) > 4 and bool(node.inputs[4])
        )
    return node.op_type in _OTHER_ROUNDING


def _place_of(
    module: nn.Module, weight: Array, sketches: list[_Sketch]
) -> tuple[_Sketch, int] | None:
    """The matrix that holds a module's weight, and its first row there."""
    for sketch in sketches:
        if sketch.matrix.table == isinstance(module, nn.Embedding):
            start = _rows_in(sketch, weight)
            if start is not None:
                return sketch, start
    return None


def _rows_in(sketch: _Sketch, weight: Array) -> int | None:
    """The row of the matrix from which on it is this weight, rounded; None when it is not."""
    N, K = weight.shape
    width = min(_SKETCH, K)
    if len(sketch.columns) < N or sketch.width != K:
        return None
    columns = sketch.columns[:, :width]
    start = int(np.argmin(((columns - weight[0, :width]) ** 2).sum(axis=1)))
    block = columns[start : start + N]
    if len(block) < N:
        return None
    wanted = weight[:, :width]
    near = CLOSE[sketch.matrix.bits] * float(np.linalg.norm(wanted))
    return start if float(np.linalg.norm(block - wanted)) < near else None
