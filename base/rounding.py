"""How a bundle rounds weights: the exporter writes these formats, and the trainer may train against
them. Which weights are rounded is for rounded_weights.py to say.

A weight [K, N] is cut along K into blocks; each block of each column has a scale and, unless the
format is symmetric, a zero point: number = (step − zero point) · scale. Packed, it is [N, blocks,
bytes of a block], low bits first: the numbers that ONNX Runtime's MatMulNBits and
GatherBlockQuantized read. benchmarks/precision.py measured the formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_SMALLEST_BLOCK = 16  # of MatMulNBits


@dataclass(frozen=True, kw_only=True)
class WeightFormat:
    """How weights are quantised. `block` is the largest block; a K that it fits badly gets a
    smaller one.
    """

    bits: int
    block: int
    symmetric: bool = True
    padding: float = 0.0
    """Share of K that the last block may be filled up by, for the sake of a larger block."""

    def block_for(self, features: int) -> int:
        """The largest block up to `block` for K = `features`; the last one is padded."""
        size = self.block
        while size > _SMALLEST_BLOCK and -features % size > self.padding * features:
            size //= 2
        return size


@dataclass(frozen=True, kw_only=True)
class QuantisedFormat:
    """Formats of the projections (`body`) and of the vocabulary projection and embedding
    (`head`).
    """

    body: WeightFormat
    head: WeightFormat


# With 4 bits a larger block makes up for an eighth of padding in the kernels; with 8 bits one row
# waits for memory, and the bytes cost more than the larger block saves (benchmarks/kernels.py).
FORMATS: Mapping[str, QuantisedFormat] = {
    "int8": QuantisedFormat(
        body=WeightFormat(bits=8, block=256), head=WeightFormat(bits=8, block=256)
    ),
    "int4": QuantisedFormat(
        body=WeightFormat(bits=4, block=128, symmetric=False, padding=1 / 8),
        head=WeightFormat(bits=8, block=256),
    ),
}


def quantise(
    weight: Array, bits: int, block: int, *, symmetric: bool
) -> tuple[Bytes, Array, Bytes]:
    """Rounds to nearest with ONNX Runtime's own kernels: weight [K, N] → packed, scales, zero
    points.
    """
    K, N = weight.shape
    blocks = -(-K // block)
    padded = np.pad(weight, ((0, blocks * block - K), (0, 0)))
    packed = np.zeros((N, blocks, block * bits // 8), np.uint8)
    scales = np.zeros((N, blocks), np.float32)
    zeros = np.zeros((N, -(-blocks * bits // 8)), np.uint8)
    # Not at the top: reading a prefix needs no kernels
    from onnxruntime.capi import _pybind_state as kernels

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


def rounded(weight: Array, form: WeightFormat) -> Array:
    """A weight [K, N] as the kernels compute with it."""
    K = len(weight)
    packed, scales, zeros = quantise(weight, form.bits, form.block_for(K), symmetric=form.symmetric)
    numbers = dequantise(packed, scales, None if form.symmetric else zeros, form.bits)
    return np.ascontiguousarray(numbers[:, :K].T)


def _unpacked(packed: Bytes, bits: int) -> Bytes:
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)
