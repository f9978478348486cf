"""torch computes with the very numbers that a bundle's graph holds, module by module."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from edgeprefix.base.rounding import Array
from edgeprefix.export.graph_matrices import GraphMatrix, matrix_of
from edgeprefix.export.planned import parts_in, with_tied_names
from edgeprefix.runtime.contracts.manifest import GRAPH_FILE

State = Mapping[str, torch.Tensor]
"""A base's numbers by the names of its parameters."""

CLOSE = {4: 0.25, 8: 0.05, 16: 0.01}
"""Relative difference of a rounded matrix to its own, by its bits; any other is further away."""


@dataclass(frozen=True, eq=False)
class OwnNumbers:
    """What a graph holds of a model."""

    readers: Mapping[nn.Module, Callable[[], Array]]
    """Give the weight [N, K] of a module as the graph holds it."""
    strangers: tuple[str, ...] = ()
    """Rounded matrices of the graph that are none of the base's, by name."""


def planned_numbers(
    bundle: str | Path, model: PreTrainedModel, state: State | None = None
) -> OwnNumbers:
    """Weights that were rounded by a plan: the graph names them itself, and a weight far from the
    base's own is a stranger. Empty for a bundle without a plan.
    """
    tables = with_tied_names(_named_tables(bundle), model)
    readers: dict[nn.Module, Callable[[], Array]] = {}
    strangers: list[str] = []
    for path, module, weight in module_matrices(model, state, only=tables):
        matrix, rows = tables[f"{path}.weight"]
        readers[module] = reader = RowReader(matrix, rows, weight.shape[1])
        # In a wider form than its own, perhaps: it was merged with others
        if not _close(reader(), weight, CLOSE[min(CLOSE)]):
            strangers.append(f"{path}.weight")
    return OwnNumbers(readers, tuple(strangers))


@dataclass(frozen=True, eq=False)
class RowReader:
    """Reads some rows of a graph's matrix, [N, K] without padding."""

    matrix: GraphMatrix
    rows: npt.NDArray[np.int64]
    features: int
    """K."""

    def __call__(self) -> Array:
        """The numbers, fp32."""
        found: Array = self.matrix.read()[self.rows, : self.features]
        return found


def module_matrices(
    model: nn.Module, state: State | None, *, only: Container[str] | None = None
) -> Iterator[tuple[str, nn.Module, Array]]:
    """(path, module, [N, K]) of every module with a matrix, or of those whose parameter `only`
    names. The numbers are those of `state` (of a big base, whose modules may hold none) when given.
    """
    for path, module in model.named_modules():
        name, weight = f"{path}.weight", getattr(module, "weight", None)
        if not isinstance(weight, torch.Tensor) or weight.dim() != 2:
            continue
        if only is None or name in only:
            weight = weight if state is None else state[name]
            weight = weight.T if isinstance(module, Conv1D) else weight
            yield path, module, weight.detach().float().numpy()


def _named_tables(bundle: str | Path) -> dict[str, tuple[GraphMatrix, npt.NDArray[np.int64]]]:
    """Matrix and rows of it, by the parameter that the graph says they are."""
    found: dict[str, tuple[GraphMatrix, npt.NDArray[np.int64]]] = {}
    for node in ir.load(Path(bundle) / GRAPH_FILE).graph.all_nodes():
        matrix = matrix_of(node)
        if matrix is None:
            continue
        order: dict[str, list[tuple[npt.NDArray[np.int64], int]]] = {}
        start = 0
        for part in parts_in(matrix.metadata):
            order.setdefault(part.parameter, []).append((part.rows, start))
            start += len(part.rows)
        for parameter, runs in order.items():
            own = np.concatenate([rows for rows, _ in runs])
            place = np.concatenate([np.arange(first, first + len(rows)) for rows, first in runs])
            found[parameter] = (matrix, place[np.argsort(own)])
    return found


def _close(numbers: Array, weight: Array, share: float) -> bool:
    return float(np.linalg.norm(numbers - weight)) < share * float(np.linalg.norm(weight))


@contextlib.contextmanager
def computing_with(own: OwnNumbers) -> Iterator[None]:
    """Within the block every module that has a reader computes with what it gives."""
    handles: list[Any] = []
    for module, read in own.readers.items():
        swap = _Swap(read)
        handles.append(module.register_forward_pre_hook(swap.before))
        handles.append(module.register_forward_hook(swap.after, prepend=True, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Swap:
    """Puts the graph's numbers into a module before it runs, and its own back afterwards: a tied
    weight is stored once for each of its modules.
    """

    def __init__(self, read: Callable[[], Array]) -> None:
        self._read = read
        self._kept: torch.Tensor | None = None

    def before(self, module: nn.Module, *_: Any) -> None:
        """As a forward pre-hook."""
        weight: Any = module.weight
        self._kept = weight.data
        fresh = torch.from_numpy(np.ascontiguousarray(self._read(), np.float32))
        weight.data = fresh.T if isinstance(module, Conv1D) else fresh

    def after(self, module: nn.Module, *_: Any) -> None:
        """As a forward hook."""
        if self._kept is not None:
            weight: Any = module.weight
            weight.data, self._kept = self._kept, None
