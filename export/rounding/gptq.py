"""One matrix rounded by what it does to its inputs (GPTQ: Frantar et al. 2023, "Accurate
Post-Training Quantization for Generative Pre-trained Transformers").

Rounded is not each number but the matrix: columns are rounded one after the other, and what a
column errs by is made up for by the columns that are still to come, as far as their inputs go
together. How inputs go together is the Hessian of the squared error of the outputs, X Xᵀ [K, K].
Rows do not know of each other, so the matrices of one input are rounded as one.

Beyond the paper: columns of the greatest input first with the blocks' scales fixed before (its
authors' later "act-order" with static groups); then the columns are rounded again against the
errors of all others (coordinate descent), and scales are fitted to the steps by least squares, in
turn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from edgeprefix.export.rounding.grid import Grid, search_grid

_DAMPING = 0.2
"""Of the mean diagonal, added to it. The paper's 0.01 fits some thousand tokens too well: on other
text a matrix of 2,048 inputs is then no better than one rounded to nearest.
"""
_AT_ONCE = 128  # columns whose errors are handed on together


@dataclass(frozen=True, eq=False, kw_only=True)
class Steps:
    """A rounded matrix [N, K] before it is packed."""

    grid: Grid
    steps: Tensor
    """[N, K], whole numbers in fp32."""

    def numbers(self) -> Tensor:
        """What is computed with, fp32 [N, K]."""
        return self.raw() * _wide(self.grid, self.grid.scales, self.steps)

    def raw(self) -> Tensor:
        """Steps from the zero points on, [N, K]."""
        return self.steps - _wide(self.grid, self.grid.zeros, self.steps)


@torch.no_grad()
def round_matrix(
    weight: Tensor,
    hessian: Tensor,
    *,
    bits: int,
    block: int,
    symmetric: bool = False,
    sweeps: int = 2,
) -> Steps:
    """Rounds `weight` [N, K] so that its outputs over inputs of `hessian` [K, K] change least."""
    damped = _damped(hessian)
    grid = search_grid(weight, damped.diagonal(), bits=bits, block=block, symmetric=symmetric)
    found = _one_after_the_other(weight, damped, grid)
    for _ in range(sweeps):
        found = _fit_scales(weight, damped, found)
        found = _again(weight, damped, found)
    return found


def nearest(
    weight: Tensor, importance: Tensor, *, bits: int, block: int, symmetric: bool = False
) -> Steps:
    """Each number by itself on the same grid."""
    grid = search_grid(weight, importance, bits=bits, block=block, symmetric=symmetric)
    scale, zero = (_wide(grid, numbers, weight) for numbers in (grid.scales, grid.zeros))
    return Steps(grid=grid, steps=((weight / scale).round() + zero).clamp(0, grid.largest))


def output_error(weight: Tensor, numbers: Tensor, hessian: Tensor) -> float:
    """Squared error of the outputs, summed over the inputs that made `hessian`."""
    error = weight - numbers
    return float(((error @ hessian) * error).sum())


def _damped(hessian: Tensor) -> Tensor:
    """With a floor under its eigenvalues: what calibration never moved is rounded to nearest."""
    mean = float(hessian.diagonal().mean())
    damped = hessian / mean if mean > 0 else torch.zeros_like(hessian)
    damped.diagonal().add_(_DAMPING if mean > 0 else 1.0)
    return damped


def _one_after_the_other(weight: Tensor, hessian: Tensor, grid: Grid) -> Steps:
    """The paper's algorithm. Columns lie as rows here, [K, N]: each is contiguous."""
    K = weight.shape[1]
    order = hessian.diagonal().argsort(descending=True)
    shares = _shares(hessian[order][:, order])
    left = weight.T[order]
    scale, zero = grid.columns(grid.scales, order), grid.columns(grid.zeros, order)
    steps = torch.empty_like(left)
    for start in range(0, K, _AT_ONCE):
        stop = min(start + _AT_ONCE, K)
        errors = torch.empty_like(left[start:stop])
        for column in range(start, stop):
            step = (left[column] / scale[column]).round_().add_(zero[column])
            steps[column] = step.clamp_(0, grid.largest)
            number = (step - zero[column]) * scale[column]
            error = (left[column] - number) / shares[column, column]
            errors[column - start] = error
            left[column + 1 : stop].addr_(shares[column, column + 1 : stop], error, alpha=-1)
        left[stop:].addmm_(shares[start:stop, stop:].T, errors, alpha=-1)
    restored = torch.empty_like(steps)
    restored[order] = steps
    return Steps(grid=grid, steps=restored.T)


def _shares(hessian: Tensor) -> Tensor:
    """Upper Cholesky factor of the inverse: row k says how the columns after k make up for its
    error.
    """
    lower = torch.linalg.cholesky(hessian.double())
    upper: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
    return upper.float()


def _fit_scales(weight: Tensor, hessian: Tensor, found: Steps) -> Steps:
    """Scales that fit the steps best, all blocks of a row together: least squares."""
    grid, K = found.grid, weight.shape[1]
    block, missing = grid.block, -K % grid.block
    raw = found.raw()

    def by_block(products: Tensor) -> Tensor:
        padded = functional.pad(products, (0, missing))
        return torch.unflatten(padded, 1, (-1, block)).sum(-1)

    wanted = by_block(raw * (weight @ hessian))  # [N, blocks]
    system = torch.stack(
        [
            by_block(raw * (raw[:, start : start + block] @ hessian[start : start + block]))
            for start in range(0, K, block)
        ],
        dim=1,
    )  # [N, blocks, blocks]
    # near the scales that were found: a block whose steps are all zero keeps its own
    ridge = 1e-4 * system.diagonal(dim1=1, dim2=2).mean(-1, keepdim=True) + 1e-12
    system.diagonal(dim1=1, dim2=2).add_(ridge)
    scales = torch.linalg.solve(system, wanted + ridge * grid.scales)
    kept = scales * grid.scales > 0  # never through zero
    return replace(found, grid=replace(grid, scales=scales.where(kept, grid.scales)))


def _again(weight: Tensor, hessian: Tensor, found: Steps) -> Steps:
    """Every column rounded once more against what all others err by; as rows, [K, N]."""
    grid, K = found.grid, weight.shape[1]
    order = torch.arange(K)
    scale, zero = grid.columns(grid.scales, order), grid.columns(grid.zeros, order)
    steps = found.steps.T.clone(memory_format=torch.contiguous_format)
    pull = hessian @ (weight.T - (steps - zero) * scale)  # [K, N]
    for start in range(0, K, _AT_ONCE):
        stop = min(start + _AT_ONCE, K)
        moves = torch.empty_like(pull[start:stop])
        for column in range(start, stop):
            wish = pull[column] / (scale[column] * hessian[column, column])
            step = (steps[column] + wish).round_().clamp_(0, grid.largest)
            move = (step - steps[column]) * scale[column]
            steps[column], moves[column - start] = step, move
            pull[start:stop].addr_(hessian[start:stop, column], move, alpha=-1)
        pull[:start].addmm_(hessian[:start, start:stop], moves, alpha=-1)
        pull[stop:].addmm_(hessian[stop:, start:stop], moves, alpha=-1)
    return replace(found, steps=steps.T)


def _wide(grid: Grid, numbers: Tensor, like: Tensor) -> Tensor:
    """[N, blocks] → [N, K]."""
    return numbers.repeat_interleave(grid.block, dim=1)[:, : like.shape[1]]
