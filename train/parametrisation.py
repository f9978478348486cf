"""What the optimiser moves, and how keys and values follow from it.

Direct: one number per key and value entry, measured in units of the base's own spread in that layer. Layers differ widely
(the values of a first layer can be twenty times smaller than the last one's), so that in plain units one learning rate would
be too large here and too small there. Reparametrised: an MLP maps one embedding per position to all layers' keys and values.
Prompt tuning: embeddings before the first layer. `fold` gives plain keys and values in every case: nothing else runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from edgeprefix.train.base import Base, LayerShape

PrefixTensors = list[tuple[Tensor, Tensor]]
"""Per layer: keys [H, P, Dk] and values [H, P, Dv], fp32."""

_KEY_SHARE = 0.5


class Unit(NamedTuple):
    """The unit in which a layer's entries are trained: the base's own spread there."""

    key: float
    value: float


class Parametrisation(Protocol):
    """Named parameters and the prefix that they stand for."""

    def parameters(self) -> dict[str, Tensor]:
        """The trained tensors by name; names that start with "value" take the values' learning rate."""

    def prefix(self) -> PrefixTensors:
        """Keys and values, differentiable in the parameters."""


class Direct:
    """Keys and values themselves, in units of the base's spread."""

    def __init__(self, start: PrefixTensors, units: Sequence[Unit], *, sink: bool) -> None:
        self._units = tuple(units)
        self._sink = [(key[:, :1].clone(), value[:, :1].clone()) for key, value in start] if sink else None
        first = 1 if sink else 0
        self._parameters: dict[str, Tensor] = {}
        for index, ((key, value), unit) in enumerate(zip(start, units, strict=True)):
            self._parameters[f"key.{index}"] = (key[:, first:] / unit.key).clone().requires_grad_()
            self._parameters[f"value.{index}"] = (value[:, first:] / unit.value).clone().requires_grad_()

    def parameters(self) -> dict[str, Tensor]:
        return self._parameters

    def prefix(self) -> PrefixTensors:
        layers = []
        for index, unit in enumerate(self._units):
            key = self._parameters[f"key.{index}"] * unit.key
            value = self._parameters[f"value.{index}"] * unit.value
            if self._sink is not None:
                key = torch.cat([self._sink[index][0], key], dim=1)
                value = torch.cat([self._sink[index][1], value], dim=1)
            layers.append((key, value))
        return layers


class Reparametrised:
    """start + units · MLP(one embedding per position). The MLP's last layer starts small, so training begins near `start`."""

    def __init__(
        self, start: PrefixTensors, units: Sequence[Unit], *, width: int, sink: bool, generator: torch.Generator
    ) -> None:
        self._start = [(key.clone(), value.clone()) for key, value in start]
        self._units = tuple(units)
        self._sink = sink
        P = start[0][0].shape[1]
        sizes = sum(key.shape[0] * (key.shape[2] + value.shape[2]) for key, value in start)
        device = start[0][0].device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
            self._net = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, sizes)).to(device)
        self._embedding = torch.randn(P, width, generator=generator).to(device).requires_grad_()

    def parameters(self) -> dict[str, Tensor]:
        return {
            "embedding": self._embedding,
            **{f"mlp.{name}": tensor for name, tensor in self._net.named_parameters()},
        }

    def prefix(self) -> PrefixTensors:
        flat = self._net(self._embedding)  # [P, all layers' keys and values]
        layers, at = [], 0
        for (key, value), unit in zip(self._start, self._units, strict=True):
            moved = []
            for start, scale in ((key, unit.key), (value, unit.value)):
                H, P, D = start.shape
                change = flat[:, at : at + H * D].view(P, H, D).transpose(0, 1) * scale
                at += H * D
                if self._sink:
                    change = torch.cat([torch.zeros_like(change[:, :1]), change[:, 1:]], dim=1)
                moved.append(start + change)
            layers.append((moved[0], moved[1]))
        return layers


class PromptTuned:
    """Prompt tuning: input embeddings are trained, and the base itself turns them into keys and values."""

    def __init__(self, base: Base, start: Tensor) -> None:
        """`start` [P, width]: the embeddings to begin with; they are trained in units of their own spread."""
        self._base = base
        self._unit = max(float(start.std()), 1e-6)
        self._embedding = (start / self._unit).clone().requires_grad_()

    def parameters(self) -> dict[str, Tensor]:
        return {"embedding": self._embedding}

    def prefix(self) -> PrefixTensors:
        return self._base.key_values_of(self._embedding * self._unit)


def load_parameters(parametrisation: Parametrisation, tensors: dict[str, Tensor]) -> None:
    """Copies saved parameters in, in place."""
    with torch.no_grad():
        for name, tensor in parametrisation.parameters().items():
            tensor.copy_(tensors[name])


def fold(parametrisation: Parametrisation) -> PrefixTensors:
    """Plain keys and values [H, P, D], detached."""
    with torch.no_grad():
        return [(key.detach().clone(), value.detach().clone()) for key, value in parametrisation.prefix()]


def random_prefix(
    shapes: Sequence[LayerShape], length: int, units: Sequence[Unit], generator: torch.Generator
) -> PrefixTensors:
    """Gaussian noise: values of the base's own spread, keys of half of it (with more, few queries meet each key: measured)."""
    return [
        (
            torch.randn(shape.kv_heads, length, shape.key_size, generator=generator) * (_KEY_SHARE * unit.key),
            torch.randn(shape.kv_heads, length, shape.value_size, generator=generator) * unit.value,
        )
        for shape, unit in zip(shapes, units, strict=True)
    ]
