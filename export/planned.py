"""A weight of the graph whose parts were rounded by a plan, each for itself: put together in the
one form that a node reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from torch import nn

from edgeprefix.base.rounding import Array, Bytes, RoundedMatrix, StepForm, common_form
from edgeprefix.export.derived import PackedTensor, TurnedTensor
from edgeprefix.export.weights import dims

T = TypeVar("T")
Plan = Mapping[str, RoundedMatrix]
"""Rounded weights by the name of the base's parameter; what a module keeps as [K, N] (GPT-2's
Conv1D) stands there as [N, K].
"""

PARAMETERS = "edgeprefix.parameters"
"""The metadata of a weight that says which rows of which parameters it holds, in order: JSON
`[[name, [[start, end], …]], …]`.
"""

_WRAPPER = "model."  # the exporter's own module around the base


class Part(NamedTuple):
    """Rows of a parameter's matrix [N, K]."""

    parameter: str
    rows: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PlannedWeight:
    """A weight [N, K] made of rows of rounded matrices; put together when it is asked for."""

    parts: Sequence[Part]
    plan: Plan
    K: int
    """Input features."""

    @property
    def N(self) -> int:  # noqa: N802  (a dimension's name)
        """Output features."""
        return sum(len(part.rows) for part in self.parts)

    @cached_property
    def form(self) -> StepForm:
        """What all parts are brought into."""
        return common_form([self.plan[part.parameter] for part in self.parts])

    @property
    def bits(self) -> int:
        """4 or 8."""
        return self.form.bits

    @property
    def block(self) -> int:
        """Numbers that share a scale."""
        return self.form.block

    @property
    def blocks(self) -> int:
        """Blocks of one row."""
        return -(-self.K // self.block)

    @property
    def has_zeros(self) -> bool:
        """Whether there are zero points other than the middle step."""
        return self.form.zeros != "none"

    @property
    def has_rests(self) -> bool:
        """Whether zero points are no whole steps: `rests` are what is missing."""
        return self.form.zeros == "numbers"

    @property
    def packed_shape(self) -> tuple[int, int, int]:
        """[N, blocks, bytes of a block]."""
        return self.N, self.blocks, self.block * self.bits // 8

    @property
    def zeros_shape(self) -> tuple[int, int]:
        """[N, bytes of a row's zero points]."""
        return self.N, -(-self.blocks * self.bits // 8)

    def packed(self) -> Bytes:
        """The steps, [N, blocks, bytes of a block]. Scales and zero points are kept on the way."""
        matrices = self._matrices()
        self.__dict__["_small"] = _small(matrices)
        return np.concatenate([matrix.packed for matrix in matrices])

    def scales(self) -> Array:
        """[N, blocks]."""
        return self._small.scales

    def zeros(self) -> Bytes:
        """Packed zero points, [N, bytes of a row's]: the nearest steps."""
        return self._small.zeros

    def rests(self) -> Array:
        """What a block's numbers lack because its zero point is a step, [blocks, N]: to be added to
        each of them.
        """
        return np.ascontiguousarray(self._small.rests.T)

    @cached_property
    def _small(self) -> _Small:
        return _small(self._matrices())

    def metadata(self) -> dict[str, str]:
        """What the weight says of itself in the graph."""
        table = [[part.parameter, _runs(part.rows)] for part in self.parts]
        return {PARAMETERS: json.dumps(table, separators=(",", ":"))}

    def _matrices(self) -> list[RoundedMatrix]:
        return [
            self.plan[part.parameter].rows(part.rows).as_form(self.form, self.K)
            for part in self.parts
        ]


class _Small(NamedTuple):
    """What a weight has besides its steps."""

    scales: Array
    zeros: Bytes
    rests: Array


def _small(matrices: Sequence[RoundedMatrix]) -> _Small:
    return _Small(
        np.concatenate([matrix.scales for matrix in matrices]),
        np.concatenate([matrix.nearest_zeros() for matrix in matrices]),
        np.concatenate([matrix.rests() for matrix in matrices]),
    )


def planned_weight(
    tensor: ir.TensorProtocol, plan: Plan, *, transposed: bool
) -> PlannedWeight | None:
    """What the plan says of a weight [K, N] ([N, K] when `transposed`); None unless it says all of
    it.
    """
    parts = _parts(tensor, plan, transposed=transposed)
    return None if parts is None else PlannedWeight(parts, plan, _features(tensor, transposed))


def with_tied_names(named: Mapping[str, T], model: nn.Module) -> Mapping[str, T]:
    """The same by the names of a model's parameters, tied ones under all of theirs."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    own = {name: name for name in named}
    for aliases in names.values():
        if known := next((name for name in aliases if name in own), None):
            own |= {alias: known for alias in aliases if alias not in own}
    return _Renamed(named, own)


class _Renamed(Mapping[str, T]):
    """Values under other names; each is asked for when it is needed."""

    def __init__(self, values: Mapping[str, T], names: Mapping[str, str]) -> None:
        self._values, self._names = values, names

    def __getitem__(self, name: str) -> T:
        return self._values[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def parts_in(metadata: Mapping[str, str]) -> list[Part]:
    """The parts that a weight of a graph says it is made of; none when it says nothing."""
    table: list[Any] = json.loads(metadata.get(PARAMETERS, "[]"))
    return [
        Part(name, np.concatenate([np.arange(start, end) for start, end in runs]))
        for name, runs in table
    ]


def _parts(tensor: ir.TensorProtocol, plan: Plan, *, transposed: bool) -> list[Part] | None:
    if isinstance(tensor, TurnedTensor):
        return _parts(tensor.source, plan, transposed=not transposed)
    if isinstance(tensor, PackedTensor):
        parts: list[Part] = []
        for source, chosen in tensor.parts:
            found = _parts(source, plan, transposed=transposed)
            if found is None:
                return None
            parts += found if chosen is None else _chosen(found, chosen)
        return parts
    name = str(tensor.name).removeprefix(_WRAPPER)
    if name not in plan:
        return None
    rows = dims(tensor)[0 if transposed else 1]
    if rows != plan[name].N:
        raise ValueError(f"{name} has {rows} rows, its rounded matrix {plan[name].N}")
    return [Part(name, np.arange(rows))]


def _features(tensor: ir.TensorProtocol, transposed: bool) -> int:
    return dims(tensor)[1 if transposed else 0]


def _chosen(parts: Sequence[Part], columns: npt.NDArray[np.int64]) -> list[Part]:
    """Some columns of a weight, in an order of their own."""
    owners = np.repeat(np.arange(len(parts)), [len(part.rows) for part in parts])[columns]
    rows = np.concatenate([part.rows for part in parts])[columns]
    borders = np.flatnonzero(np.diff(owners)) + 1
    return [
        Part(parts[int(owner[0])].parameter, own)
        for owner, own in zip(np.split(owners, borders), np.split(rows, borders), strict=True)
    ]


def _runs(rows: npt.NDArray[np.int64]) -> list[list[int]]:
    """Rows as stretches [start, end) of one after the other."""
    borders = np.flatnonzero(np.diff(rows) != 1) + 1
    return [[int(run[0]), int(run[-1]) + 1] for run in np.split(rows, borders)]
