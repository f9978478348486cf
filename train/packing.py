"""Rows of different lengths laid end to end, so that the model reads no padding; attention takes
them apart again.

All rows together are one row of N tokens for the model, each row's positions counted from the
prefix's end. Letters as in `attention.py`; R rows of a chunk, S its longest row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from torch import Tensor

_TOKENS_TOGETHER = 512  # of a chunk: more waste scores on padding, fewer make many small operations


@dataclass(frozen=True, eq=False)
class Chunk:
    """Neighbouring rows of a packing, padded to the longest of them."""

    rows: int
    """R."""
    longest: int
    """S."""
    begin: int
    end: int
    """Its tokens in the packing."""
    slots: Tensor | None
    """[end - begin], each token's slot among the R·S; None where the rows are of one length."""

    def padded(self, packed: Tensor) -> Tensor:
        """[heads, N, D] → [heads, R, S, D]; zeros behind the shorter rows. Differentiable."""
        heads, _, size = packed.shape
        mine = packed[:, self.begin : self.end]
        if self.slots is not None:
            mine = packed.new_zeros(heads, self.rows * self.longest, size).index_copy(
                1, self.slots, mine
            )
        return mine.reshape(heads, self.rows, self.longest, size)

    def packed(self, padded: Tensor) -> Tensor:
        """The way back: [heads, R, S, D] → [heads, end - begin, D]. Differentiable."""
        flat = padded.reshape(padded.shape[0], self.rows * self.longest, padded.shape[-1])
        return flat if self.slots is None else flat.index_select(1, self.slots)


class Packing:
    """Rows of these lengths, in this order; best when like lengths stand together."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.lengths = tuple(lengths)
        self.tokens = sum(self.lengths)
        """N."""
        self.longest = max(self.lengths)
        self._starts = (0, *accumulate(self.lengths))
        self._device = device

    @cached_property
    def places(self) -> Tensor:
        """[N], each token's place in its row, from 0."""
        return torch.cat([torch.arange(length) for length in self.lengths]).to(self._device)

    @cached_property
    def chunks(self) -> list[Chunk]:
        """A few rows each, in order. On a GPU, which waits for every small operation to be sent,
        all rows are one chunk.
        """
        count = len(self.lengths)
        size = (
            max(1, _TOKENS_TOGETHER * count // self.tokens) if self._device.type == "cpu" else count
        )
        ends = [*range(0, count, size), count]
        return [self._chunk(first, last) for first, last in pairwise(ends)]

    @cached_property
    def whole(self) -> Chunk:
        """All rows as one chunk."""
        return self._chunk(0, len(self.lengths))

    def select(self, padded: Tensor) -> Tensor:
        """The tokens of padded rows [B, S'] end to end, [1, N]."""
        return torch.cat([row[:length] for row, length in zip(padded, self.lengths, strict=True)])[
            None
        ]

    def indices(self, flat: Tensor, width: int) -> Tensor:
        """Indices into the flattened B·width of padded rows as indices into the N tokens."""
        starts = torch.tensor(self._starts[:-1], device=flat.device)
        return starts[flat // width] + flat % width

    def _chunk(self, first: int, last: int) -> Chunk:
        lengths = self.lengths[first:last]
        longest = max(lengths)
        slots = None
        if min(lengths) < longest:
            rows = [torch.arange(length) + index * longest for index, length in enumerate(lengths)]
            slots = torch.cat(rows).to(self._device)
        return Chunk(len(lengths), longest, self._starts[first], self._starts[last], slots)
