"""NAdamW with a learning rate of its own for keys and for values, linear warm-up and linear decay.

Written out (forty lines) so that its state is plain named tensors: a checkpoint needs no pickle and
resumes bit-exactly.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# Shorter memories than the usual (0.9, 0.999): the first gradients of a prefix are far larger than
# those of the plateau that follows, and a long memory of them keeps the steps small to the end
# (docs/lab/training-tried.md).
_BETAS = (0.8, 0.9)
_EPSILON = 1e-10  # gradients of a prefix are often below the usual 1e-8


def schedule(step: int, *, steps: int, warmup: float) -> float:
    """Share of the peak learning rate at a step: up linearly over the warm-up, then down linearly
    to zero.
    """
    rising = max(1, round(steps * warmup))
    if step < rising:
        return (step + 1) / rising
    return max(0.0, (steps - step) / max(1, steps - rising))


def lr_of(name: str, lr: float, value_lr_ratio: float) -> float:
    """A parameter's learning rate: values have one of their own."""
    return lr * (value_lr_ratio if name.startswith("value") else 1.0)


class NAdamW:
    """Adam with Nesterov's look ahead and decoupled weight decay, over named parameters.

    Those whose name starts with "value" learn at `lr * value_lr_ratio`. Dozat 2016, "Incorporating
    Nesterov momentum into Adam"; the mean's bias is taken away before the look ahead, so that the
    first step is no longer than `lr`. Weight decay: Loshchilov & Hutter 2019.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        lr: float,
        value_lr_ratio: float,
        weight_decay: float,
        clip: float,
    ) -> None:
        self._parameters = dict(parameters)
        self._lr = {name: lr_of(name, lr, value_lr_ratio) for name in parameters}
        self._weight_decay = weight_decay
        self._clip = clip
        self._moments = {
            f"{kind}.{name}": torch.zeros_like(tensor)
            for name, tensor in parameters.items()
            for kind in ("mean", "square")
        }

    def state(self) -> dict[str, Tensor]:
        """Named moments, for the checkpoint."""
        return self._moments

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Copies saved moments in."""
        for name, tensor in self._moments.items():
            tensor.copy_(tensors[name])

    def forget(self) -> None:
        """Moments as before the first step."""
        for tensor in self._moments.values():
            tensor.zero_()

    def zero_gradients(self) -> None:
        """Forgets the gradients."""
        for tensor in self._parameters.values():
            tensor.grad = None

    def gradients(self) -> list[Tensor]:
        """All gradients; zeros are put where there was none yet."""
        for tensor in self._parameters.values():
            if tensor.grad is None:
                tensor.grad = torch.zeros_like(tensor)
        return [tensor.grad for tensor in self._parameters.values() if tensor.grad is not None]

    def gradient_norm(self) -> float:
        """Norm over all gradients; infinite or NaN when one of them is."""
        squares = [
            tensor.grad.square().sum()
            for tensor in self._parameters.values()
            if tensor.grad is not None
        ]
        return float(torch.stack(squares).sum().sqrt()) if squares else 0.0

    @torch.no_grad()
    def step(self, number: int, factor: float) -> None:
        """One update; `number` counts from 1, `factor` is the schedule's share of the peak learning
        rate.
        """
        shrink = 1.0
        if self._clip:
            shrink = min(1.0, self._clip / (self.gradient_norm() + 1e-12))
        first, second = _BETAS
        for name, tensor in self._parameters.items():
            if tensor.grad is None:
                continue
            gradient = tensor.grad * shrink
            mean, square = self._moments[f"mean.{name}"], self._moments[f"square.{name}"]
            mean.lerp_(gradient, 1 - first)
            square.lerp_(gradient.square(), 1 - second)
            size = (square / (1 - second**number)).sqrt_().add_(_EPSILON)
            ahead = (mean / (1 - first**number)).lerp_(gradient, 1 - first)
            rate = self._lr[name] * factor
            tensor.mul_(1 - rate * self._weight_decay)
            tensor.addcdiv_(ahead, size, value=-rate)
