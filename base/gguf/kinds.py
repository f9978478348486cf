"""The kinds of numbers in a GGUF file, and what their blocks hold.

A kind packs some numbers into a block of bytes: number = scale · step − minimum. Where the steps
are integers that 4 or 8 bits can hold, MatMulNBits computes with the very same numbers
(`rounded_matrix`). docs/gguf.md has the table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edgeprefix.base.gguf.extra import gguf_package, gguf_version
from edgeprefix.base.rounding import Array, Bytes, RoundedMatrix, packed_steps
from edgeprefix.runtime.errors import CheckpointError

_1, _3, _4, _15 = (np.uint8(number) for number in (1, 3, 4, 15))  # shifts and masks of bytes
_AT_ONCE = 1 << 19  # numbers that are unpacked at a time: as many as caches hold


class Kind(NamedTuple):
    """How numbers are stored: `numbers` of them in `bytes`."""

    id: int
    name: str
    numbers: int
    bytes: int

    @property
    def plain(self) -> bool:
        """Whether numbers stand for themselves, each by itself."""
        return self.numbers == 1

    @property
    def bits(self) -> float:
        """Bits of one number in the file, scales included."""
        return 8 * self.bytes / self.numbers

    @property
    def steps(self) -> StepForm | None:
        """How its blocks become integer steps, None when they do not."""
        return _STEPS.get(self.name)


def kind_of(number: int, *, where: str) -> Kind:
    """The kind of that number in a file. Raises CheckpointError for one that nobody knows."""
    gguf = gguf_package()
    try:
        found = gguf.GGMLQuantizationType(number)
    except ValueError:
        raise CheckpointError(
            f"{where} is of kind {number}, which gguf {gguf_version()} does not know; install a "
            "newer one (pip install --upgrade gguf), or download the file again"
        ) from None
    count, size = gguf.GGML_QUANT_SIZES[found]
    return Kind(number, found.name, int(count), int(size))


class Steps(NamedTuple):
    """Blocks as number = scale · step − minimum, or, without minima, scale · (step − middle)."""

    steps: Bytes
    """[blocks of the file, blocks within, numbers]."""
    scales: Array
    """[blocks of the file, blocks within]."""
    minima: Array | None


class StepForm(NamedTuple):
    """A kind's steps in a bundle: their bits, how many share a scale, and how they are unpacked
    from blocks [·, bytes].
    """

    bits: int
    block: int
    unpack: Callable[[Bytes], Steps]


def numbers(kind: Kind, data: Bytes) -> Array:
    """The numbers of rows [rows, bytes of a row], fp32: bit for bit those that llama.cpp computes
    with. Raises CheckpointError for a kind that nobody can unpack here.
    """
    out = np.empty((len(data), data.shape[1] // kind.bytes * kind.numbers), np.float32)
    for part in _pieces(data, out.shape[1]):
        out[part] = _numbers(kind, data[part])
    return out


def _numbers(kind: Kind, data: Bytes) -> Array:
    if kind.name == "F32":
        return data.view("<f4")
    if kind.name == "F16":
        return data.view("<f2").astype(np.float32)
    if kind.name == "BF16":
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if kind.steps is None:
        return _foreign_numbers(kind, data)
    steps, scales, minima = kind.steps.unpack(data.reshape(-1, kind.bytes))
    if minima is None:
        middle = np.float32(2 ** (kind.steps.bits - 1))
        found: Array = (steps.astype(np.float32) - middle) * scales[..., None]
    else:
        found = steps.astype(np.float32) * scales[..., None] - minima[..., None]
    return found.reshape(len(data), -1)


def _foreign_numbers(kind: Kind, data: Bytes) -> Array:
    gguf = gguf_package()
    try:
        found: Array = gguf.dequantize(data, gguf.GGMLQuantizationType(kind.id))
    except NotImplementedError as error:
        raise CheckpointError(
            f"numbers of kind {kind.name} cannot be unpacked by gguf {gguf_version()}; take a file "
            "of another kind, Q4_K_M or Q8_0 say"
        ) from error
    return found.astype(np.float32)


def rounded_matrix(kind: Kind, data: Bytes) -> RoundedMatrix | None:
    """Rows [rows, bytes of a row] as the steps and scales that MatMulNBits reads; None for a kind
    whose numbers are no integer steps of 4 or 8 bits.

    Without minima the numbers are the file's, bit for bit. With them the zero point is minimum ÷
    scale in fp32, so that a number may differ by 2⁻²¹ of the larger of scale · step and minimum:
    three roundings more than llama.cpp's.
    """
    if kind.steps is None:
        return None
    bits, block, unpack = kind.steps
    N, blocks = len(data), data.shape[1] // kind.bytes * kind.numbers // block
    packed = np.empty((N, blocks, block * bits // 8), np.uint8)
    scales = np.empty((N, blocks), np.float32)
    zeros: Array | None = None
    for part in _pieces(data, blocks * block):
        found = unpack(data[part].reshape(-1, kind.bytes))
        steps, scale = found.steps, found.scales
        if found.minima is not None:
            zeros = np.empty((N, blocks), np.float32) if zeros is None else zeros
            steps, scale, zero = _with_zero_points(steps, scale, found.minima)
            zeros[part] = zero.reshape(-1, blocks)
        scales[part] = scale.reshape(-1, blocks)
        packed[part] = packed_steps(steps, bits).reshape(-1, blocks, block * bits // 8)
    return RoundedMatrix(bits=bits, block=block, packed=packed, scales=scales, zeros=zeros)


def _with_zero_points(steps: Bytes, scales: Array, minima: Array) -> tuple[Bytes, Array, Array]:
    """Minima as zero points. A block without a scale holds one number, −minimum: as step 0 under a
    zero point of 1.
    """
    flat = scales == 0
    scale = np.where(flat, minima, scales)
    zero = np.where(flat, np.float32(1), minima / np.where(flat, np.float32(1), scales))
    return np.where(flat[..., None], np.uint8(0), steps), scale, zero


def _pieces(data: Bytes, row: int) -> list[slice]:
    """Rows, a few at a time."""
    count = max(1, _AT_ONCE // max(row, 1))
    return [slice(start, start + count) for start in range(0, len(data), count)]


def _half(blocks: Bytes, start: int) -> Array:
    """A number in fp16 of each block, [blocks, 1]."""
    return np.ascontiguousarray(blocks[:, start : start + 2]).view("<f2").astype(np.float32)


def _nibbles(qs: Bytes) -> Bytes:
    """Two steps of each byte: those in the low bits first, then those in the high bits, [·, 1,
    2 · bytes].
    """
    return np.concatenate([qs & _15, qs >> _4], axis=-1)[:, None, :]


def _fifth_bits(qh: Bytes) -> Bytes:
    """32 bits of four bytes, each as 0 or 16, [·, 1, 32]."""
    return np.unpackbits(qh, axis=-1, bitorder="little")[:, None, :] << _4


def _q4_0(blocks: Bytes) -> Steps:
    return Steps(_nibbles(blocks[:, 2:]), _half(blocks, 0), None)  # q − 8


def _q4_1(blocks: Bytes) -> Steps:
    return Steps(_nibbles(blocks[:, 4:]), _half(blocks, 0), -_half(blocks, 2))


def _q5_0(blocks: Bytes) -> Steps:
    steps = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6])
    return Steps(steps + np.uint8(112), _half(blocks, 0), None)  # q − 16, from the middle of 8 bits


def _q5_1(blocks: Bytes) -> Steps:
    steps = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])
    return Steps(steps, _half(blocks, 0), -_half(blocks, 2))


def _q8_0(blocks: Bytes) -> Steps:
    return Steps(blocks[:, None, 2:] ^ np.uint8(128), _half(blocks, 0), None)  # int8 + 128


def _k_scales(blocks: Bytes) -> tuple[Array, Array]:
    """Scales and minima of the eight blocks of 32 in a block of Q4_K or Q5_K: fp16 · 6 bits."""
    low, high, mixed = (blocks[:, start : start + 4] for start in (4, 8, 12))
    scales = np.concatenate([low & 63, mixed & 15 | low >> 2 & 48], axis=-1)
    minima = np.concatenate([high & 63, mixed >> 4 | high >> 2 & 48], axis=-1)
    return _half(blocks, 0) * scales, _half(blocks, 2) * minima


def _k_nibbles(qs: Bytes) -> Bytes:
    """128 bytes as eight blocks of 32: of each 32 bytes the low bits, then the high bits."""
    rows = qs.reshape(-1, 4, 1, 32)
    return np.concatenate([rows & _15, rows >> _4], axis=2).reshape(-1, 8, 32)


def _q4_k(blocks: Bytes) -> Steps:
    return Steps(_k_nibbles(blocks[:, 16:]), *_k_scales(blocks))


def _q5_k(blocks: Bytes) -> Steps:
    shifts = np.arange(8, dtype=np.uint8)[None, :, None]
    fifth = (blocks[:, None, 16:48] >> shifts & _1) << _4
    return Steps(_k_nibbles(blocks[:, 48:]) | fifth, *_k_scales(blocks))


def _q6_k(blocks: Bytes) -> Steps:
    nibbles, pairs = blocks[:, :128].reshape(-1, 2, 1, 64), blocks[:, 128:192].reshape(-1, 2, 1, 32)
    low = np.concatenate([nibbles & _15, nibbles >> _4], axis=2).reshape(-1, 2, 4, 32)
    high = pairs >> np.array([0, 2, 4, 6], np.uint8)[None, None, :, None] & _3
    steps = (low | high << _4).reshape(-1, 16, 16) + np.uint8(96)  # q − 32
    return Steps(steps, _half(blocks, 208) * blocks[:, 192:208].view(np.int8), None)


def _q2_k(blocks: Bytes) -> Steps:
    shifts = np.array([0, 2, 4, 6], np.uint8)[None, None, :, None]
    steps = blocks[:, 16:80].reshape(-1, 2, 1, 32) >> shifts & _3
    scales = blocks[:, :16]
    return Steps(
        steps.reshape(-1, 16, 16),
        _half(blocks, 80) * (scales & 15),
        _half(blocks, 82) * (scales >> 4),
    )


def _q3_k(blocks: Bytes) -> Steps:
    shifts = np.array([0, 2, 4, 6], np.uint8)
    low = blocks[:, 32:96].reshape(-1, 2, 1, 32) >> shifts[None, None, :, None] & _3
    bits = blocks[:, None, :32] >> np.arange(8, dtype=np.uint8)[None, :, None] & _1
    steps = (low.reshape(-1, 8, 32) | bits << np.uint8(2)) + _4  # q − 4
    packed = blocks[:, 96:108]
    scales = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=-1)
    upper = (packed[:, None, 8:] >> shifts[None, :, None] & 3).reshape(-1, 16)
    signed = (scales | upper << 4).astype(np.int8) - np.int8(32)
    return Steps(steps.reshape(-1, 16, 16), _half(blocks, 108) * signed, None)


_STEPS: dict[str, StepForm] = {
    "Q4_0": StepForm(4, 32, _q4_0),
    "Q4_1": StepForm(4, 32, _q4_1),
    "Q5_0": StepForm(8, 32, _q5_0),
    "Q5_1": StepForm(8, 32, _q5_1),
    "Q8_0": StepForm(8, 32, _q8_0),
    "Q2_K": StepForm(4, 16, _q2_k),
    "Q3_K": StepForm(4, 16, _q3_k),
    "Q4_K": StepForm(4, 32, _q4_k),
    "Q5_K": StepForm(8, 32, _q5_k),
    "Q6_K": StepForm(8, 16, _q6_k),
}
