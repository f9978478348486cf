"""Block-wise quantisation of one weight: the numbers that ONNX Runtime's MatMulNBits and GatherBlockQuantized read.

A weight [K, N] is cut along K into blocks; each block of each column has a scale and, unless the format is symmetric, a
zero point: number = (step − zero point) · scale. Packed, it is [N, blocks, bytes of a block], low bits first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnxruntime.capi import _pybind_state as kernels

from edgeprefix.export.weights import dims

Array = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_SMALLEST_BLOCK = 16  # of MatMulNBits


@dataclass(frozen=True, kw_only=True)
class WeightFormat:
    """How weights are quantised. `block` is the largest block; a K that it does not divide gets a smaller one."""

    bits: int
    block: int
    symmetric: bool = True

    def block_for(self, features: int) -> int:
        """The largest block up to `block` that divides K = `features`; 32 when none does, and the last block is padded."""
        size = self.block
        while size > _SMALLEST_BLOCK and features % size:
            size //= 2
        return size if features % size == 0 else min(32, self.block)


@dataclass(frozen=True, eq=False)
class BlockwiseWeight:
    """A weight and its format. The numbers are made when asked for; only the small ones (scales, zero points) are kept."""

    source: ir.TensorProtocol
    """[K, N] in fp32, or [N, K] when `transposed`."""
    format: WeightFormat
    transposed: bool = False

    @property
    def K(self) -> int:  # noqa: N802  (a dimension's name)
        """Input features."""
        return dims(self.source)[1 if self.transposed else 0]

    @property
    def N(self) -> int:  # noqa: N802
        """Output features."""
        return dims(self.source)[0 if self.transposed else 1]

    @property
    def block(self) -> int:
        """Numbers that share a scale."""
        return self.format.block_for(self.K)

    @property
    def blocks(self) -> int:
        """Blocks of one column."""
        return -(-self.K // self.block)

    @property
    def packed_shape(self) -> tuple[int, int, int]:
        """[N, blocks, bytes of a block]."""
        return self.N, self.blocks, self.block * self.format.bits // 8

    @property
    def zeros_shape(self) -> tuple[int, int]:
        """[N, bytes of a column's zero points]."""
        return self.N, -(-self.blocks * self.format.bits // 8)

    def packed(self) -> Bytes:
        """The steps, [N, blocks, bytes of a block]. Scales and zero points are kept on the way."""
        packed, scales, zeros = quantise(self._weight(), self.format.bits, self.block, symmetric=self.format.symmetric)
        self.__dict__["_small"] = (scales, zeros)
        return packed

    def scales(self) -> Array:
        """[N, blocks]."""
        return self._small[0]

    def zeros(self) -> Bytes:
        """Packed zero points, [N, bytes of a column's]."""
        return self._small[1]

    @cached_property
    def _small(self) -> tuple[Array, Bytes]:
        return quantise(self._weight(), self.format.bits, self.block, symmetric=self.format.symmetric)[1:]

    def _weight(self) -> Array:
        array = self.source.numpy()
        return np.ascontiguousarray(array.T if self.transposed else array, np.float32)


def quantise(weight: Array, bits: int, block: int, *, symmetric: bool) -> tuple[Bytes, Array, Bytes]:
    """Rounds to nearest with ONNX Runtime's own kernels: weight [K, N] → packed, scales, zero points."""
    K, N = weight.shape
    blocks = -(-K // block)
    padded = np.pad(weight, ((0, blocks * block - K), (0, 0)))
    packed = np.zeros((N, blocks, block * bits // 8), np.uint8)
    scales = np.zeros((N, blocks), np.float32)
    zeros = np.zeros((N, -(-blocks * bits // 8)), np.uint8)
    kernel = {4: kernels.quantize_matmul_4bits, 8: kernels.quantize_matmul_8bits}[bits]
    kernel(packed, padded, scales, zeros, block, N, K, symmetric)
    return packed, scales, zeros


def dequantise(packed: Bytes, scales: Array, zeros: Bytes | None, bits: int) -> Array:
    """The numbers that the kernels compute with, [N, blocks · block]."""
    N, blocks, _ = packed.shape
    steps = _unpacked(packed, bits).reshape(N, blocks, -1).astype(np.float32)
    offset: Array = np.full((N, blocks), 2.0 ** (bits - 1), np.float32)
    if zeros is not None:
        offset = _unpacked(zeros, bits)[:, :blocks].astype(np.float32)
    numbers: Array = ((steps - offset[..., None]) * scales[..., None]).reshape(N, -1)
    return numbers


def _unpacked(packed: Bytes, bits: int) -> Bytes:
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)
