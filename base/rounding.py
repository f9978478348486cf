"""How a bundle rounds weights: the exporter writes these formats, and the trainer may train against
them. Which weights are rounded is for rounded_weights.py to say.

A weight [K, N] is cut along K into blocks; each block of each column has a scale and, unless the
format is symmetric, a zero point: number = (step − zero point) · scale. Packed, it is [N, blocks,
bytes of a block], low bits first: the numbers that ONNX Runtime's MatMulNBits and
GatherBlockQuantized read. benchmarks/precision.py measured the formats.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True, eq=False, kw_only=True)
class RoundedMatrix:
    """A matrix [N, K] as steps in blocks along K: number = (step − zero point) · scale.

    What a plan of rounding gives for one weight: the steps were chosen for more than the weight
    itself (its inputs), or came with the base.
    """

    bits: int
    """4 or 8."""
    block: int
    """Numbers that share a scale: 16, 32, 64, 128 or 256."""
    packed: Bytes
    """[N, blocks, bytes of a block], low bits first."""
    scales: Array
    """[N, blocks]."""
    zeros: Bytes | Array | None = None
    """Packed steps [N, bytes of a row's]; or fp32 [N, blocks], where they are no whole steps; None:
    the middle step.
    """

    @property
    def N(self) -> int:  # noqa: N802  (a dimension's name)
        """Output features."""
        return len(self.packed)

    @property
    def blocks(self) -> int:
        """Blocks of one row."""
        return int(self.packed.shape[1])

    @property
    def exact_zeros(self) -> bool:
        """Whether zero points are no whole steps."""
        return self.zeros is not None and self.zeros.dtype != np.uint8

    def numbers(self) -> Array:
        """The numbers themselves, [N, blocks · block]."""
        steps = self.steps().astype(np.float32)
        numbers: Array = (steps - self.offsets()[..., None]) * self.scales[..., None]
        return numbers.reshape(self.N, -1)

    def steps(self) -> Bytes:
        """[N, blocks, block]."""
        return _unpacked(self.packed, self.bits).reshape(self.N, self.blocks, self.block)

    def offsets(self) -> Array:
        """Zero points as numbers, [N, blocks]."""
        if self.zeros is None:
            return np.full(self.scales.shape, 2.0 ** (self.bits - 1), np.float32)
        if self.exact_zeros:
            return self.zeros.astype(np.float32)
        return _unpacked(self.zeros.astype(np.uint8), self.bits)[:, : self.blocks].astype(
            np.float32
        )

    def nearest_zeros(self) -> Bytes:
        """Zero points to the nearest step, packed, [N, bytes of a row's]."""
        return packed_steps(self._nearest().astype(np.uint8), self.bits)

    def rests(self) -> Array:
        """What each number of a block lacks with the nearest zero points, [N, blocks]."""
        return (self._nearest() - self.offsets()) * self.scales

    def _nearest(self) -> Array:
        return np.clip(np.rint(self.offsets()), 0, 2**self.bits - 1)

    def rows(self, chosen: npt.NDArray[np.int64] | slice) -> RoundedMatrix:
        """Some of its rows."""
        zeros = None if self.zeros is None else self.zeros[chosen]
        return dataclasses.replace(
            self, packed=self.packed[chosen], scales=self.scales[chosen], zeros=zeros
        )

    def as_form(self, form: StepForm, features: int) -> RoundedMatrix:
        """The same numbers in a form that holds them, K = `features`."""
        if form == form_of(self):
            return self
        parts, blocks = self.block // form.block, -(-features // form.block)
        steps = self.steps()
        if self.zeros is None:
            steps = steps + np.uint8(2 ** (form.bits - 1) - 2 ** (self.bits - 1))
        steps = steps.reshape(self.N, -1, form.block)[:, :blocks]
        offsets = np.repeat(self.offsets(), parts, axis=1)[:, :blocks]
        if self.zeros is None:
            offsets += 2.0 ** (form.bits - 1) - 2.0 ** (self.bits - 1)
        zeros: Bytes | Array | None = None
        if form.zeros == "steps":
            zeros = packed_steps(offsets.astype(np.uint8), form.bits)
        elif form.zeros == "numbers":
            zeros = offsets
        return RoundedMatrix(
            bits=form.bits,
            block=form.block,
            packed=packed_steps(steps, form.bits),
            scales=np.repeat(self.scales, parts, axis=1)[:, :blocks],
            zeros=zeros,
        )


@dataclass(frozen=True, kw_only=True)
class StepForm:
    """How steps are laid out. `zeros` is one of ZEROS, each of which holds those before it."""

    bits: int
    block: int
    zeros: str


ZEROS = ("none", "steps", "numbers")
"""Zero points of a form: the middle step, whole steps, numbers."""


def form_of(matrix: RoundedMatrix) -> StepForm:
    """The form of a matrix."""
    zeros = "none" if matrix.zeros is None else "numbers" if matrix.exact_zeros else "steps"
    return StepForm(bits=matrix.bits, block=matrix.block, zeros=zeros)


def common_form(matrices: Sequence[RoundedMatrix]) -> StepForm:
    """The smallest form that holds the numbers of all."""
    forms = [form_of(matrix) for matrix in matrices]
    return StepForm(
        bits=max(form.bits for form in forms),
        block=min(form.block for form in forms),
        zeros=max((form.zeros for form in forms), key=ZEROS.index),
    )


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


def packed_steps(steps: Bytes, bits: int) -> Bytes:
    """Steps along the last axis, two a byte with 4 bits; an odd one out stands with a zero."""
    if bits == 8:
        return steps
    odd = steps.shape[-1] % 2
    even = np.pad(steps, [(0, 0)] * (steps.ndim - 1) + [(0, odd)])
    packed: Bytes = even[..., ::2] | even[..., 1::2] << np.uint8(4)
    return packed


def _unpacked(packed: Bytes, bits: int) -> Bytes:
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)
