"""Rounding one matrix by what it does to its inputs: never worse than rounding each number by
itself, whatever shapes, blocks and inputs.
"""

# ruff: noqa: N803  (names of dimensions)
from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgeprefix.base.rounding import WeightFormat, dequantise, quantise
from edgeprefix.export.rounding.gptq import nearest, output_error, round_matrix
from edgeprefix.export.rounding.grid import search_grid
from edgeprefix.export.rounding.pack import packed, stored_bytes

BLOCKS = (16, 32, 64, 128)


def problem(N: int, K: int, *, tokens: int, seed: int) -> tuple[Tensor, Tensor]:
    """A weight [N, K] with some large numbers, and the Hessian of inputs that go together."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    weight = normal(N, K) * (1 + normal(N, K).square())
    few = max(2, K // 8)  # directions in which most of the inputs lie
    inputs = normal(tokens, few) @ normal(few, K) + 0.3 * normal(tokens, K)
    inputs *= 0.1 + torch.rand(K, generator=generator) ** 2
    return weight, inputs.T @ inputs


@settings(deadline=None, max_examples=25)
@given(
    N=st.integers(1, 40),
    K=st.integers(20, 300),
    bits=st.sampled_from((4, 8)),
    block=st.sampled_from(BLOCKS),
    symmetric=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_hessian_pays(
    N: int, K: int, bits: int, block: int, symmetric: bool, seed: int
) -> None:
    weight, hessian = problem(N, K, tokens=4 * K, seed=seed)
    form = {"bits": bits, "block": block, "symmetric": symmetric}
    by_itself = nearest(weight, hessian.diagonal(), **form).numbers()  # type: ignore[arg-type]
    fitted = round_matrix(weight, hessian, **form).numbers()  # type: ignore[arg-type]
    errors = [output_error(weight, numbers, hessian) for numbers in (fitted, by_itself)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_by_much_at_the_size_of_real_matrices(block: int, symmetric: bool) -> None:
    weight, hessian = problem(64, 256, tokens=1024, seed=0)
    form = {"bits": 4, "block": block, "symmetric": symmetric}
    ours = round_matrix(weight, hessian, **form).numbers()  # type: ignore[arg-type]
    steps, scales, zeros = quantise(
        np.ascontiguousarray(weight.T.numpy()), 4, block, symmetric=symmetric
    )
    onnxruntimes = dequantise(steps, scales, None if symmetric else zeros, 4)
    theirs = torch.from_numpy(onnxruntimes)[:, :256]
    errors = [output_error(weight, numbers, hessian) for numbers in (ours, theirs)]
    assert errors[0] < 0.5 * errors[1]


def test_sweeps_pay_too() -> None:
    weight, hessian = problem(32, 192, tokens=800, seed=3)
    errors = [
        output_error(
            weight, round_matrix(weight, hessian, bits=4, block=64, sweeps=count).numbers(), hessian
        )
        for count in (0, 1, 3)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_a_searched_grid_weighs_what_inputs_carry() -> None:
    """A large number of a column that carries little is cut off, of one that carries much it is
    kept.
    """
    weight = torch.linspace(-1, 1, 32)[None].clone()
    weight[0, 5] = 8.0
    little, much = torch.ones(32), torch.ones(32)
    little[5], much[5] = 1e-6, 1e6
    scales = [
        float(search_grid(weight, importance, bits=4, block=32, symmetric=False).scales)
        for importance in (little, much)
    ]
    assert scales[0] < 0.8 * scales[1]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("K", [32, 100, 129])
def test_steps_are_packed_as_the_kernels_read_them(bits: int, K: int) -> None:
    for symmetric in (True, False):
        weight, hessian = problem(5, K, tokens=300, seed=1)
        form = WeightFormat(bits=bits, block=32, symmetric=symmetric, padding=1)
        steps = round_matrix(weight, hessian, bits=bits, block=32, symmetric=symmetric)
        matrix = packed(steps, symmetric=symmetric)
        numbers = matrix.numbers()
        np.testing.assert_allclose(numbers[:, :K], steps.numbers().numpy(), rtol=1e-6)
        assert not numbers[:, K:].any()
        stored = [matrix.packed, matrix.scales, *([] if symmetric else [matrix.zeros])]
        assert sum(array.nbytes for array in stored) == stored_bytes(form, 5, K)  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["dead columns", "few tokens", "no inputs", "a block of zeros"])
def test_what_inputs_do_not_say_is_rounded_to_nearest(kind: str) -> None:
    """Inputs that never come, fewer tokens than channels, none at all: still a matrix, and one that
    is near.
    """
    weight, hessian = problem(8, 96, tokens=10 if kind == "few tokens" else 400, seed=2)
    if kind == "dead columns":
        hessian[10:40] = hessian[:, 10:40] = 0
    elif kind == "no inputs":
        hessian.zero_()
    elif kind == "a block of zeros":
        weight[:, 32:64] = 0
    numbers = round_matrix(weight, hessian, bits=8, block=32).numbers()
    assert torch.isfinite(numbers).all()
    assert float((numbers - weight).norm() / weight.norm()) < 0.02


def test_rows_do_not_know_of_each_other() -> None:
    """So siblings are rounded as one matrix."""
    weight, hessian = problem(12, 64, tokens=256, seed=4)
    whole = round_matrix(weight, hessian, bits=4, block=32).numbers()
    parts = [round_matrix(rows, hessian, bits=4, block=32).numbers() for rows in weight.split(5)]
    torch.testing.assert_close(torch.cat(parts), whole)
