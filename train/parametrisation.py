"""What the optimiser moves, and how keys and values follow from it.

Direct: the way from the start, one number per key and value entry, in the units of
edgeprefix.train.units. Reparametrised: an MLP maps one embedding per position to the way of all
layers' keys and values. Prompt tuning: embeddings before the first layer. `fold` gives plain keys
and values in every case: nothing else runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprefix.train.model import FrozenModel, LayerShape
from edgeprefix.train.units import Unit

PrefixTensors = list[tuple[Tensor, Tensor]]
"""Per layer: keys [H, P, Dk] and values [H, P, Dv], fp32."""

_KEY_SHARE = 0.5


class Parametrisation(Protocol):
    """Named parameters and the prefix that they stand for."""

    def parameters(self) -> dict[str, Tensor]:
        """The trained tensors by name; names that start with "value" take the values' learning
        rate.
        """

    def prefix(self) -> PrefixTensors:
        """Keys and values, differentiable in the parameters."""


class Direct:
    """start + change · units, entry by entry; the changes begin at zero."""

    def __init__(self, start: PrefixTensors, units: Sequence[Unit], *, sink: bool) -> None:
        self._start = [(key.clone(), value.clone()) for key, value in start]
        self._units = tuple(units)
        self._first = 1 if sink else 0
        self._parameters: dict[str, Tensor] = {}
        for index, (key, value) in enumerate(start):
            self._parameters[f"key.{index}"] = torch.zeros_like(
                key[:, self._first :]
            ).requires_grad_()
            self._parameters[f"value.{index}"] = torch.zeros_like(
                value[:, self._first :]
            ).requires_grad_()

    def parameters(self) -> dict[str, Tensor]:
        return self._parameters

    def prefix(self) -> PrefixTensors:
        changes = [
            tuple(
                F.pad(self._parameters[f"{kind}.{index}"], (0, 0, self._first, 0))
                for kind in ("key", "value")
            )
            for index in range(len(self._units))
        ]
        return _moved(self._start, changes, self._units)


class Reparametrised:
    """start + MLP(one embedding per position) · units. The MLP's last layer starts small, so
    training begins near `start`.
    """

    def __init__(
        self,
        start: PrefixTensors,
        units: Sequence[Unit],
        *,
        width: int,
        sink: bool,
        generator: torch.Generator,
    ) -> None:
        self._start = [(key.clone(), value.clone()) for key, value in start]
        self._units = tuple(units)
        self._sink = sink
        P = start[0][0].shape[1]
        sizes = sum(key.shape[0] * (key.shape[2] + value.shape[2]) for key, value in start)
        device = start[0][0].device
        drawn = torch.Generator().manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        self._net = nn.Sequential(
            _linear(width, width, drawn), nn.Tanh(), _linear(width, sizes, drawn)
        ).to(device)
        self._embedding = torch.randn(P, width, generator=generator).to(device).requires_grad_()

    def parameters(self) -> dict[str, Tensor]:
        return {
            "embedding": self._embedding,
            **{f"mlp.{name}": tensor for name, tensor in self._net.named_parameters()},
        }

    def prefix(self) -> PrefixTensors:
        flat = self._net(self._embedding)  # [P, all layers' keys and values]
        if self._sink:
            flat = torch.cat([torch.zeros_like(flat[:1]), flat[1:]])
        shapes = [tensor.shape for pair in self._start for tensor in pair]
        parts = flat.split([H * D for H, _, D in shapes], dim=1)
        changes = [
            part.view(P, H, D).transpose(0, 1)
            for part, (H, P, D) in zip(parts, shapes, strict=True)
        ]
        return _moved(self._start, list(zip(changes[::2], changes[1::2], strict=True)), self._units)


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A layer with torch's own initial weights, drawn from a generator of its own: torch's global
    one is shared by all threads.
    """
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    bound = 1 / math.sqrt(inputs)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer


def _moved(
    start: PrefixTensors, changes: Sequence[tuple[Tensor, ...]], units: Sequence[Unit]
) -> PrefixTensors:
    """Keys and values after changes [H, P, D] that are measured in units."""
    return [
        (key + key_change @ unit.key, value + value_change * unit.value)
        for (key, value), (key_change, value_change), unit in zip(
            start, changes, units, strict=True
        )
    ]


class PromptTuned:
    """Prompt tuning: input embeddings are trained, and the base itself turns them into keys and
    values.
    """

    def __init__(self, base: FrozenModel, start: Tensor) -> None:
        """`start` [P, width]: the embeddings to begin with; they are trained in units of their own
        spread.
        """
        self._base = base
        self._unit = max(float(start.std()), 1e-6)
        self._embedding = (start / self._unit).clone().requires_grad_()

    def parameters(self) -> dict[str, Tensor]:
        return {"embedding": self._embedding}

    def prefix(self) -> PrefixTensors:
        return self._base.key_values_of(self._embedding * self._unit)


def load_parameters(parametrisation: Parametrisation, tensors: Mapping[str, Tensor]) -> None:
    """Copies saved parameters in, in place."""
    with torch.no_grad():
        for name, tensor in parametrisation.parameters().items():
            tensor.copy_(tensors[name])


def fold(parametrisation: Parametrisation) -> PrefixTensors:
    """Plain keys and values [H, P, D], detached."""
    with torch.no_grad():
        return [
            (key.detach().clone(), value.detach().clone())
            for key, value in parametrisation.prefix()
        ]


def random_prefix(
    shapes: Sequence[LayerShape], length: int, units: Sequence[Unit], generator: torch.Generator
) -> PrefixTensors:
    """Gaussian noise: values of one unit, keys of half a unit (with more, few queries meet each
    key: measured).
    """
    return [
        (
            _KEY_SHARE
            * torch.randn(shape.kv_heads, length, shape.key_size, generator=generator).to(unit.key)
            @ unit.key,
            unit.value
            * torch.randn(shape.kv_heads, length, shape.value_size, generator=generator).to(
                unit.key
            ),
        )
        for shape, unit in zip(shapes, units, strict=True)
    ]
