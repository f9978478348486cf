"""A weight that is quantised block by block when it is written (base/rounding.py has
the arithmetic).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from edgeprefix.base.rounding import Array, Bytes, WeightFormat, quantise
from edgeprefix.export.weights import dims

_AT_ONCE = 1 << 24  # numbers


@dataclass(frozen=True, eq=False)
class BlockwiseWeight:
    """A weight and its format. The numbers are made when asked for; only the small ones (scales,
    zero points) are kept.
    """

    source: ir.TensorProtocol
    """[K, N] in fp32, or [N, K] when `transposed`."""
    format: WeightFormat
    transposed: bool = False

    @property
    def K(self) -> int:  # noqa: N802  (a dimension's name)
        """Input features."""
        return dims(self.source)[1 if self.transposed else 0]

    @property
    def N(self) -> int:  # noqa: N802
        """Output features."""
        return dims(self.source)[0 if self.transposed else 1]

    @property
    def bits(self) -> int:
        """4 or 8."""
        return self.format.bits

    @property
    def block(self) -> int:
        """Numbers that share a scale."""
        return self.format.block_for(self.K)

    @property
    def blocks(self) -> int:
        """Blocks of one column."""
        return -(-self.K // self.block)

    @property
    def has_zeros(self) -> bool:
        """Whether there are zero points other than the middle step."""
        return not self.format.symmetric

    @property
    def packed_shape(self) -> tuple[int, int, int]:
        """[N, blocks, bytes of a block]."""
        return self.N, self.blocks, self.block * self.bits // 8

    @property
    def zeros_shape(self) -> tuple[int, int]:
        """[N, bytes of a column's zero points]."""
        return self.N, -(-self.blocks * self.bits // 8)

    def packed(self) -> Bytes:
        """The steps, [N, blocks, bytes of a block]. Scales and zero points are kept on the way."""
        packed, scales, zeros = self._quantised()
        self.__dict__["_small"] = (scales, zeros)
        return packed

    def metadata(self) -> dict[str, str]:
        """Nothing: whoever knows the format computes the numbers again."""
        return {}

    def scales(self) -> Array:
        """[N, blocks]."""
        return self._small[0]

    def zeros(self) -> Bytes:
        """Packed zero points, [N, bytes of a column's]."""
        return self._small[1]

    @cached_property
    def _small(self) -> tuple[Array, Bytes]:
        return self._quantised()[1:]

    def _quantised(self) -> tuple[Bytes, Array, Bytes]:
        """Some columns after the other: rounding takes several times the memory of what it
        rounds.
        """
        weight = self.source.numpy()
        packed, zeros = np.empty(self.packed_shape, np.uint8), np.empty(self.zeros_shape, np.uint8)
        scales = np.empty((self.N, self.blocks), np.float32)
        count = max(1, _AT_ONCE // self.K)
        for start in range(0, self.N, count):
            part = slice(start, start + count)
            columns = weight[part].T if self.transposed else weight[:, part]
            packed[part], scales[part], zeros[part] = quantise(
                np.ascontiguousarray(columns, np.float32),
                self.format.bits,
                self.block,
                symmetric=self.format.symmetric,
            )
        return packed, scales, zeros
