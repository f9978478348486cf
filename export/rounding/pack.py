"""Steps as a bundle stores them (base/rounding.py)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgeprefix.base.rounding import Bytes, RoundedMatrix, WeightFormat
from edgeprefix.export.rounding.gptq import Steps

_SCALE_BYTES = 4


def packed(found: Steps, *, symmetric: bool) -> RoundedMatrix:
    """A rounded matrix; what fills up the last block is zero."""
    grid = found.grid
    bits, block = grid.bits, grid.block
    blocks = grid.scales.shape[1]
    missing = blocks * block - found.steps.shape[1]
    steps = functional.pad(found.steps, (0, missing))
    if missing:
        steps[:, -missing:] = grid.zeros[:, -1:]
    return RoundedMatrix(
        bits=bits,
        block=block,
        packed=_packed(steps, bits).reshape(len(steps), blocks, block * bits // 8),
        scales=grid.scales.numpy().astype(np.float32),
        zeros=None if symmetric else _packed(grid.zeros, bits),
    )


def stored_bytes(form: WeightFormat, N: int, K: int) -> int:  # noqa: N803  (names of dimensions)
    """Bytes of a matrix [N, K] in a format: steps, scales and zero points."""
    block = form.block_for(K)
    blocks = -(-K // block)
    zeros = 0 if form.symmetric else -(-blocks * form.bits // 8)
    return N * (blocks * (block * form.bits // 8 + _SCALE_BYTES) + zeros)


def _packed(steps: Tensor, bits: int) -> Bytes:
    """[N, n] → [N, bytes], low bits first."""
    whole: Bytes = steps.to(torch.uint8).numpy()
    if bits == 8:
        return whole
    even: Bytes = np.pad(whole, ((0, 0), (0, whole.shape[1] % 2)))
    result: Bytes = even[:, ::2] | (even[:, 1::2] << np.uint8(4))
    return result
