"""Steps as a bundle stores them (base/rounding.py)."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from edgeprefix.base.rounding import RoundedMatrix, WeightFormat, packed_steps
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
    whole, zeros = (tensor.to(torch.uint8).numpy() for tensor in (steps, grid.zeros))
    return RoundedMatrix(
        bits=bits,
        block=block,
        packed=packed_steps(whole, bits).reshape(len(steps), blocks, block * bits // 8),
        scales=grid.scales.numpy().astype(np.float32),
        zeros=None if symmetric else packed_steps(zeros, bits),
    )


def stored_bytes(form: WeightFormat, N: int, K: int) -> int:  # noqa: N803  (names of dimensions)
    """Bytes of a matrix [N, K] in a format: steps, scales and zero points."""
    block = form.block_for(K)
    blocks = -(-K // block)
    zeros = 0 if form.symmetric else -(-blocks * form.bits // 8)
    return N * (blocks * (block * form.bits // 8 + _SCALE_BYTES) + zeros)
