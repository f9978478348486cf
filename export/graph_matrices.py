"""The matrices of a graph whose numbers are known, read back: what is multiplied by, looked up or
turned into plain numbers, in 4, 8 or 16 bits. N rows (outputs), K columns (inputs).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeprefix.base.rounding import dequantise

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class GraphMatrix:
    """One matrix of a graph."""

    name: str
    read: Callable[[], Array]
    """Gives the numbers, [N, K]; the last block of a table may be padded."""
    bits: int
    table: bool
    """Whether rows are looked up in it, as in an embedding."""
    metadata: Mapping[str, str]
    """What the graph says of it."""

    @classmethod
    def of(
        cls, value: ir.Value, read: Callable[[], Array], *, bits: int, table: bool
    ) -> GraphMatrix:
        """The matrix of an initializer."""
        metadata = {} if value.const_value is None else dict(value.const_value.metadata_props)
        return cls(str(value.name), read, bits, table, metadata)


def matrix_of(node: ir.Node) -> GraphMatrix | None:
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


def _of_product(node: ir.Node) -> GraphMatrix:
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

    return GraphMatrix.of(_input(node, 1), read, bits=bits, table=False)


def _of_table(node: ir.Node) -> GraphMatrix:
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

    return GraphMatrix.of(_input(node, 0), read, bits=bits, table=True)


def _of_dequantised(node: ir.Node) -> GraphMatrix | None:
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
    return GraphMatrix.of(_input(node, 0), read, bits=bits, table=table)


def _of_half(node: ir.Node) -> GraphMatrix | None:
    place = 0 if node.op_type == "Gather" else 1
    if not _has(node, place) or _input(node, place).dtype != ir.DataType.FLOAT16:
        return None
    if _number(node, place).ndim != 2:
        return None
    turned = node.op_type == "MatMul" or (node.op_type == "Gemm" and not _flag(node, "transB"))

    def read() -> Array:
        numbers = _number(node, place).astype(np.float32)
        return numbers.T if turned else numbers

    return GraphMatrix.of(_input(node, place), read, bits=16, table=node.op_type == "Gather")


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
