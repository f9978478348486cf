"""The weights of a graph that others rounded, found again in the base: torch can then compute with
the very numbers that the graph holds.

A graph's matrices have names of the exporter's. But a rounded matrix is still close to the one it
was made of and far from every other, so it is found by its numbers: some rows of a stored matrix
(exporters put several projections into one) are a module's weight, rounded. N rows (outputs), K
columns (inputs).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from edgeprefix.base.rounding import dequantise
from edgeprefix.runtime.contracts.manifest import GRAPH_FILE

Array = np.ndarray
_SKETCH = 64  # columns that tell matrices apart
_CLOSE = {4: 0.25, 8: 0.05, 16: 0.01}  # relative difference of a rounded matrix, by its bits
_OTHER_ROUNDING = {
    "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul",
    "MatMulBnb4", "QMoE", "QAttention", "QGemm", "QuantizeLinear", "DynamicQuantizeLinear",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Matrix:
    """One stored matrix: how to read it [N, K], and its first columns."""

    name: str
    read: Callable[[], Array]
    sketch: Array
    bits: int
    table: bool
    """Whether rows are looked up in it, as in an embedding."""

    @classmethod
    def of(cls, value: ir.Value, read: Callable[[], Array], *, bits: int, table: bool) -> _Matrix:
        whole = read()
        sketch = np.concatenate([whole[:, :_SKETCH], np.full((len(whole), 1), whole.shape[1])], 1)
        return cls(str(value.name), read, sketch.astype(np.float32), bits, table)


@dataclass(frozen=True, eq=False)
class _Place:
    """A module's weight as rows `start` … of a stored matrix."""

    matrix: _Matrix
    start: int


@dataclass(frozen=True, eq=False)
class Stored:
    """What was found again."""

    places: Mapping[nn.Module, _Place]
    """Where each module's weight lies in the graph."""
    strangers: tuple[str, ...]
    """Rounded matrices of the graph that are none of the base's, by name."""


def find_stored(bundle: str | Path, model: PreTrainedModel) -> Stored | None:
    """Places of the rounded matrices of a bundle's graph.

    None when the graph rounds in a way of which this module does not know the numbers, or when most
    of its matrices are none of the base's: some methods rescale what they round.
    """
    graph = ir.load(Path(bundle) / GRAPH_FILE).graph
    if any(_unknown(node) for node in graph.all_nodes()):
        return None
    left = {
        matrix: len(matrix.sketch)  # rows that no module was found for
        for node in graph.all_nodes()
        if (matrix := _matrix_of(node)) is not None
    }
    rows = sum(left.values())
    places: dict[nn.Module, _Place] = {}
    for module in model.modules():
        weight = _weight(module)
        if weight is None:
            continue
        if (place := _place_of(module, weight, list(left))) is not None:
            places[module] = place
            left[place.matrix] -= len(weight)
            if left[place.matrix] <= 0:
                del left[place.matrix]
    strange = {matrix: count for matrix, count in left.items() if matrix.bits < 16}
    if sum(strange.values()) > rows / 2:
        return None
    return Stored(places, tuple(matrix.name for matrix in strange))


def _unknown(node: ir.Node) -> bool:
    """Whether a node rounds in a way that is not read here."""
    if node.op_type == "MatMulNBits":
        return node.attributes["bits"].as_int() not in _CLOSE or (
            len(node.inputs) > 4 and bool(node.inputs[4])
        )
    return node.op_type in _OTHER_ROUNDING


def _place_of(module: nn.Module, weight: Array, matrices: list[_Matrix]) -> _Place | None:
    for matrix in matrices:
        if matrix.table == isinstance(module, nn.Embedding):
            start = _rows_in(matrix, weight)
            if start is not None:
                return _Place(matrix, start)
    return None


@contextlib.contextmanager
def stored_weights(stored: Stored) -> Iterator[None]:
    """Within the block every module that has a place computes with what is stored there."""
    handles: list[Any] = []
    for module, place in stored.places.items():
        swap = _Swap(place)
        handles.append(module.register_forward_pre_hook(swap.before))
        handles.append(module.register_forward_hook(swap.after, prepend=True, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Swap:
    """Puts the stored numbers into a module before it runs, and its own back afterwards: a tied
    weight is stored once for each of its modules.
    """

    def __init__(self, place: _Place) -> None:
        self._place = place
        self._kept: torch.Tensor | None = None

    def before(self, module: nn.Module, *_: Any) -> None:
        """As a forward pre-hook."""
        weight: Any = module.weight
        self._kept = weight.data
        rows = weight.shape[1] if isinstance(module, Conv1D) else weight.shape[0]
        numbers = self._place.matrix.read()[self._place.start : self._place.start + rows]
        fresh = torch.from_numpy(np.ascontiguousarray(numbers, np.float32))
        weight.data = fresh.T if isinstance(module, Conv1D) else fresh

    def after(self, module: nn.Module, *_: Any) -> None:
        """As a forward hook."""
        if self._kept is not None:
            weight: Any = module.weight
            weight.data, self._kept = self._kept, None


def _weight(module: nn.Module) -> Array | None:
    """A module's matrix [N, K], None when it has none."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.dim() != 2:
        return None
    numbers = (weight.T if isinstance(module, Conv1D) else weight).detach()
    return numbers.float().numpy()


def _rows_in(matrix: _Matrix, weight: Array) -> int | None:
    """The row of the matrix from which on it is this weight, rounded; None when it is not."""
    sketch, N, K = matrix.sketch, *weight.shape
    width = min(_SKETCH, K)
    if len(sketch) < N or sketch[0, -1] != K:
        return None
    columns = sketch[:, :width]
    start = int(np.argmin(((columns - weight[0, :width]) ** 2).sum(axis=1)))
    block = columns[start : start + N]
    if len(block) < N:
        return None
    wanted = weight[:, :width]
    difference = float(np.linalg.norm(block - wanted))
    return start if difference < _CLOSE[matrix.bits] * float(np.linalg.norm(wanted)) else None


def _matrix_of(node: ir.Node) -> _Matrix | None:
    """The rounded matrix that a node multiplies by, or looks up in; None when it has none."""
    if node.op_type == "MatMulNBits":
        return _of_product(node)
    if node.op_type == "GatherBlockQuantized":
        return _of_table(node)
    if node.op_type == "DequantizeLinear":
        return _of_dequantised(node)
    if node.op_type in ("MatMul", "Gemm", "Gather"):
        return _of_half(node)
    return None


def _of_product(node: ir.Node) -> _Matrix:
    K, N, bits, size = (node.attributes[name].as_int() for name in ("K", "N", "bits", "block_size"))

    def read() -> Array:
        blocks = -(-K // size)
        packed = _number(node, 1).reshape(N, blocks, -1).view(np.uint8)
        scales = _number(node, 2).astype(np.float32).reshape(N, blocks)
        zeros = _number(node, 3) if _has(node, 3) else None
        if zeros is not None and zeros.dtype != np.uint8:  # kept as numbers, not packed
            steps = dequantise(packed, np.ones_like(scales), None, bits).reshape(N, blocks, -1)
            steps += 2.0 ** (bits - 1) - zeros.astype(np.float32).reshape(N, blocks, 1)
            return (steps * scales[..., None]).reshape(N, -1)[:, :K]
        packed_zeros = None if zeros is None else zeros.reshape(N, -1)
        return dequantise(packed, scales, packed_zeros, bits)[:, :K]

    return _Matrix.of(_input(node, 1), read, bits=bits, table=False)


def _of_table(node: ir.Node) -> _Matrix:
    bits = node.attributes["bits"].as_int() if "bits" in node.attributes else 4
    size = node.attributes["block_size"].as_int()

    def read() -> Array:
        stored = _number(node, 0)
        packed = stored.dtype == np.uint8 and bits == 4
        steps = _unpacked(stored) if packed else stored
        scales = _number(node, 2).astype(np.float32)
        zeros = _number(node, 3) if _has(node, 3) else None
        if zeros is None:
            middle = 2 ** (bits - 1) if stored.dtype == np.uint8 else 0
            offset = np.full(scales.shape, middle, np.float32)
        else:
            offset = (_unpacked(zeros) if packed else zeros).astype(np.float32)
            offset = offset[:, : scales.shape[1]]
        wide = steps.shape[1]
        return (steps.astype(np.float32) - np.repeat(offset, size, 1)[:, :wide]) * np.repeat(
            scales, size, 1
        )[:, :wide]

    return _Matrix.of(_input(node, 0), read, bits=bits, table=True)


def _of_dequantised(node: ir.Node) -> _Matrix | None:
    """Weights stored with their scales (QDQ); those of activations are no constants."""
    if not _has(node, 0) or _number(node, 0).ndim != 2:
        return None
    users = [use.node for use in node.outputs[0].uses()]
    table = any(user.op_type == "Gather" for user in users)
    turned = not table and not any(
        user.op_type == "Transpose" or bool(_flag(user, "transB")) for user in users
    )
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    size = node.attributes["block_size"].as_int() if "block_size" in node.attributes else 0

    def read() -> Array:
        steps = _number(node, 0).astype(np.float32)
        scales = _spread(_number(node, 1).astype(np.float32), steps.shape, axis, size)
        zeros = _number(node, 2).astype(np.float32) if _has(node, 2) else np.zeros(())
        numbers: Array = (steps - _spread(zeros, steps.shape, axis, size)) * scales
        return numbers.T if turned else numbers

    bits = 4 if _input(node, 0).dtype in (ir.DataType.INT4, ir.DataType.UINT4) else 8
    return _Matrix.of(_input(node, 0), read, bits=bits, table=table)


def _of_half(node: ir.Node) -> _Matrix | None:
    place = 0 if node.op_type == "Gather" else 1
    if not _has(node, place) or _input(node, place).dtype != ir.DataType.FLOAT16:
        return None
    if _number(node, place).ndim != 2:
        return None
    turned = node.op_type == "MatMul" or (node.op_type == "Gemm" and not _flag(node, "transB"))

    def read() -> Array:
        numbers = _number(node, place).astype(np.float32)
        return numbers.T if turned else numbers

    return _Matrix.of(_input(node, place), read, bits=16, table=node.op_type == "Gather")


def _spread(numbers: Array, shape: tuple[int, ...], axis: int, size: int) -> Array:
    """Scales or zero points of blocks, of a channel or of all, as far as they reach."""
    if size and numbers.ndim == 2:
        return np.repeat(numbers, size, axis)[tuple(slice(n) for n in shape)]
    if numbers.ndim == 1:
        return numbers.reshape([-1 if place == axis % 2 else 1 for place in range(2)])
    return numbers


def _unpacked(packed: Array) -> Array:
    """Two steps a byte, low bits first."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)


def _input(node: ir.Node, place: int) -> ir.Value:
    value = node.inputs[place]
    assert value is not None  # `_has` said so
    return value


def _flag(node: ir.Node, name: str) -> int:
    return node.attributes[name].as_int() if name in node.attributes else 0


def _has(node: ir.Node, place: int) -> bool:
    value = node.inputs[place] if len(node.inputs) > place else None
    return value is not None and value.const_value is not None


def _number(node: ir.Node, place: int) -> Array:
    stored = _input(node, place).const_value
    assert stored is not None
    return stored.numpy()
