"""Weights that are made of others: transposed, or columns of several side by side.

They say what they are made of, so that a weight that was rounded for itself is found again in the
one that the graph multiplies by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgeprefix.export.weights import Array, dims


class TurnedTensor(ir.LazyTensor):
    """Another matrix [N, K] as [K, N]."""

    def __init__(self, source: ir.TensorProtocol, *, name: str) -> None:
        self.source = source
        N, K = dims(source)
        super().__init__(self._turned, dtype=source.dtype, shape=ir.Shape((K, N)), name=name)

    def _turned(self) -> ir.Tensor[Array]:
        turned = np.ascontiguousarray(self.source.numpy().T)
        return ir.Tensor(turned, dtype=self.dtype, name=self.name)


class Columns(NamedTuple):
    """Some columns of a matrix [K, N] in an order of their own, None for all as they stand."""

    source: ir.TensorProtocol
    chosen: npt.NDArray[np.int64] | None

    @property
    def width(self) -> int:
        """How many there are."""
        return dims(self.source)[1] if self.chosen is None else len(self.chosen)


class PackedTensor(ir.LazyTensor):
    """Columns of several matrices [K, N] side by side."""

    def __init__(self, parts: Sequence[Columns], *, name: str) -> None:
        self.parts = tuple(parts)
        first = parts[0].source
        shape = ir.Shape((dims(first)[0], sum(part.width for part in parts)))
        super().__init__(self._side_by_side, dtype=first.dtype, shape=shape, name=name)

    def _side_by_side(self) -> ir.Tensor[Array]:
        arrays = [
            source.numpy() if chosen is None else source.numpy()[:, chosen]
            for source, chosen in self.parts
        ]
        return ir.Tensor(np.concatenate(arrays, axis=1), dtype=self.dtype, name=self.name)
