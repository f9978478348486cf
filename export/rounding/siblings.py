"""The matrices of a layer, those of one input together.

They share the Hessian, and the exporter makes one product of them (queries, keys and values; gate
and up), so that they share a format as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from edgeprefix.base.rounded_weights import Role, rounded_weights
from edgeprefix.base.rounding import FORMATS
from edgeprefix.export.rounding.gptq import Steps
from edgeprefix.export.rounding.walk import Walk


@dataclass(frozen=True, eq=False, kw_only=True)
class Siblings:
    """Matrices [N, K] that multiply the same input."""

    layer: int
    names: tuple[str, ...]
    """Of the parameters."""
    modules: tuple[nn.Module, ...]

    @property
    def label(self) -> str:
        """The modules' own names: "q_proj k_proj v_proj"."""
        return " ".join(name.split(".")[-2] for name in self.names)

    @property
    def rows(self) -> list[int]:
        """N of each matrix."""
        return [len(rows_of(module)) for module in self.modules]

    @property
    def shape(self) -> tuple[int, int]:
        """N of all together, K."""
        return sum(self.rows), rows_of(self.modules[0]).shape[1]

    def weight(self) -> Tensor:
        """All of them as one matrix, fp32 [N, K]."""
        return torch.cat([rows_of(module).float() for module in self.modules])

    def split(self, matrix: Tensor) -> dict[str, Tensor]:
        """Rows of one matrix [N, …] → those of each parameter."""
        return dict(zip(self.names, torch.split(matrix, self.rows), strict=True))

    def split_steps(self, found: Steps) -> dict[str, Steps]:
        """The same of rounded rows."""
        grid = found.grid
        parts = zip(
            *(torch.split(part, self.rows) for part in (found.steps, grid.scales, grid.zeros)),
            strict=True,
        )
        return {
            name: Steps(grid=replace(grid, scales=scales, zeros=zeros), steps=steps)
            for name, (steps, scales, zeros) in zip(self.names, parts, strict=True)
        }

    @contextlib.contextmanager
    def holding(self, numbers: Tensor) -> Iterator[None]:
        """Within the block the modules compute with `numbers` [N, K]."""
        modules: Any = self.modules
        kept = [module.weight.data for module in modules]
        for module, part in zip(modules, torch.split(numbers, self.rows), strict=True):
            module.weight.data = part.T if isinstance(module, Conv1D) else part
        try:
            yield
        finally:
            for module, weight in zip(modules, kept, strict=True):
                module.weight.data = weight


def find_siblings(model: Any, walk: Walk, *, layer: int) -> list[Siblings]:
    """The matrices of the walk's next layer that int4 rounds, grouped by what goes into them."""
    within = set(walk.layer.modules())
    paths = {module: path for path, module in model.named_modules() if module in within}
    matrices = {
        f"{paths[weight.module]}.{weight.name}": weight.module
        for weight in rounded_weights(model, FORMATS["int4"])
        if weight.role is Role.PROJECTION and weight.module in within
    }
    inputs = walk.run(0, matrices)
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, given in inputs.items():
        groups.setdefault((given.data_ptr(), given.shape, given.stride()), []).append(name)
    return [
        Siblings(layer=layer, names=tuple(names), modules=tuple(matrices[name] for name in names))
        for names in groups.values()
    ]


def rows_of(module: Any) -> Tensor:
    """A module's matrix as [N, K], in its own dtype."""
    weight: Tensor = module.weight.data
    return weight.T if isinstance(module, Conv1D) else weight
