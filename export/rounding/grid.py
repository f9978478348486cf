"""The grid of a matrix: a scale and a zero point for each block of each row, chosen by the error
that they leave, each column weighed by how much its input carries.

number = (step − zero) · scale, with steps and zero points in 0 … 2^bits − 1. Scales are not those
of the largest number: cutting off a few large ones makes the steps of all others finer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_SHRINKS = torch.linspace(1.0, 0.5, 21)  # of a block's range that are tried
_AT_ONCE = 1 << 18  # numbers: what is made of them stays in the processor's cache
_SMALLEST = 1e-12  # of a scale: a block of zeros


@dataclass(frozen=True, eq=False, kw_only=True)
class Grid:
    """Scales and zero points of a matrix [N, K], both fp32 [N, blocks]; zero points are whole
    numbers.
    """

    bits: int
    block: int
    scales: Tensor
    zeros: Tensor

    @property
    def largest(self) -> int:
        """The largest step."""
        return int(2**self.bits - 1)

    def columns(self, numbers: Tensor, order: Tensor) -> Tensor:
        """[N, blocks] → [K, N]: that of each column, in this order."""
        return numbers.T[order // self.block]


def search_grid(
    weight: Tensor, importance: Tensor, *, bits: int, block: int, symmetric: bool
) -> Grid:
    """The grid of `weight` [N, K] with the least squared errors, weighed by `importance` [K], among
    a number of ranges for each block. The last block may be short.
    """
    count = max(1, _AT_ONCE // weight.shape[1])
    found = [
        _searched(rows, importance, bits=bits, block=block, symmetric=symmetric)
        for rows in torch.split(weight, count)
    ]
    scales, zeros = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Grid(bits=bits, block=block, scales=scales, zeros=zeros)


def _searched(
    weight: Tensor, importance: Tensor, *, bits: int, block: int, symmetric: bool
) -> tuple[Tensor, Tensor]:
    """Scales and zero points of some rows."""
    missing = -weight.shape[1] % block
    parts = torch.unflatten(
        functional.pad(weight, (0, missing)), 1, (-1, block)
    )  # [N, blocks, block]
    # what is not there weighs nothing
    weighed = torch.unflatten(functional.pad(importance, (0, missing)), 0, (-1, block))
    low, high = parts.amin(-1).clamp(max=0), parts.amax(-1).clamp(min=0)
    best, scales, zeros = None, torch.empty(()), torch.empty(())
    for shrink in _SHRINKS.tolist():
        scale, zero = _of_range(low * shrink, high * shrink, bits=bits, symmetric=symmetric)
        scale, error = _fitted(parts, weighed, scale, zero, bits=bits)
        if best is None:
            best, scales, zeros = error, scale, zero
            continue
        better = error < best
        best = torch.where(better, error, best)
        scales, zeros = torch.where(better, scale, scales), torch.where(better, zero, zeros)
    return scales, zeros


def _of_range(low: Tensor, high: Tensor, *, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Scale and zero point that reach from `low` to `high`."""
    if symmetric:
        zero = torch.full_like(low, 2.0 ** (bits - 1))
        # one step more below the middle than above it: the sign that reaches further gets it
        reach = torch.maximum(-low, high)
        sign = torch.where(-low >= high, 1.0, -1.0)
        return (sign * reach / zero).where(reach > 0, torch.tensor(_SMALLEST)), zero
    scale = ((high - low) / (2**bits - 1)).clamp(min=_SMALLEST)
    return scale, (-low / scale).round().clamp(0, 2**bits - 1)


def _fitted(
    parts: Tensor, weighed: Tensor, scale: Tensor, zero: Tensor, *, bits: int
) -> tuple[Tensor, Tensor]:
    """The best scale for the steps that `scale` and `zero` give, and the error that it leaves."""
    steps = parts / scale[..., None]
    steps = steps.round_().add_(zero[..., None]).clamp_(0, 2**bits - 1).sub_(zero[..., None])
    heavy = steps * weighed
    square, product = (heavy * steps).sum(-1), (heavy * parts).sum(-1)
    fitted = torch.where((square > 0) & (product * scale > 0), product / square, scale)
    error = (weighed * parts.square()).sum(-1) - 2 * fitted * product + fitted.square() * square
    return fitted, error
