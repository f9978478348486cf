"""The optimiser against its recurrence, written out once more in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeprefix.train.optimiser import NAdamW, schedule

LR, RATIO, DECAY, STEPS = 0.05, 3.0, 0.01, 12


def optimiser(tensor: torch.Tensor, name: str, *, clip: float = 0.0, decay: float = 0.0) -> NAdamW:
    return NAdamW({name: tensor}, lr=LR, value_lr_ratio=RATIO, weight_decay=decay, clip=clip)


@pytest.mark.parametrize(("name", "lr"), [("key", LR), ("value", LR * RATIO)])
def test_steps_follow_the_recurrence(name: str, lr: float) -> None:
    generator = np.random.default_rng(0)
    gradients = generator.normal(size=(STEPS, 5))
    expected = generator.normal(size=5)
    tensor = torch.tensor(expected, requires_grad=True)
    ours = optimiser(tensor, name, decay=DECAY)
    mean, square = np.zeros(5), np.zeros(5)
    for number, gradient in enumerate(gradients, start=1):
        tensor.grad = torch.tensor(gradient)
        ours.step(number, 0.5)
        mean = 0.8 * mean + 0.2 * gradient
        square = 0.9 * square + 0.1 * gradient**2
        ahead = 0.8 * mean / (1 - 0.8**number) + 0.2 * gradient
        expected = expected * (1 - 0.5 * lr * DECAY)
        expected -= 0.5 * lr * ahead / (np.sqrt(square / (1 - 0.9**number)) + 1e-10)
        np.testing.assert_allclose(tensor.detach().numpy(), expected, rtol=1e-9)


def test_a_constant_gradient_moves_by_the_rate_in_every_step() -> None:
    tensor = torch.zeros(3, requires_grad=True)
    ours = optimiser(tensor, "key")
    for number in range(1, STEPS + 1):
        tensor.grad = torch.tensor([1e-6, -2.0, 300.0])
        ours.step(number, 1.0)
        moved = tensor.detach() / number
        torch.testing.assert_close(moved, torch.tensor([-LR, LR, -LR]), rtol=1e-3, atol=0)


def test_clipping_scales_the_gradient_before_the_moments() -> None:
    tensor = torch.zeros(2, requires_grad=True)
    ours = optimiser(tensor, "key", clip=1.0)
    tensor.grad = torch.tensor([3.0, 4.0])
    ours.step(1, 1.0)
    torch.testing.assert_close(ours.state()["mean.key"], torch.tensor([0.6, 0.8]) * 0.2)


def test_the_schedule_rises_to_the_peak_and_falls_to_zero() -> None:
    shares = [schedule(step, steps=100, warmup=0.1) for step in range(101)]
    assert shares[0] == pytest.approx(0.1)
    assert max(shares) == shares[9] == 1.0
    assert shares[100] == 0.0
    assert shares[:10] == sorted(shares[:10])
    assert shares[10:] == sorted(shares[10:], reverse=True)
