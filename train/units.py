"""The units in which a prefix is trained: what a step of one does to the base, alike in every layer
and direction.

Values are measured in the base's own spread of the layer. Keys act through the scores that the
base's queries give them, and queries favour a few directions: in plain coordinates one learning
rate is too large there and too small everywhere else. So a head's keys are trained in coordinates
where its queries' second moment is the same in every direction. It is measured once, before the
first step, on training rows behind a prefix (whitening, as preconditioners of second order do for
every layer's inputs: Martens & Grosse 2015, K-FAC; here the base is frozen, so that once is
enough).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from edgeprefix.train.attention import attention_watched
from edgeprefix.train.batches import rows_of_tokens, text_of_rows
from edgeprefix.train.data import Example
from edgeprefix.train.model import FrozenModel

_TOKENS = 2048  # of training rows, read to measure
_TOGETHER = 1024  # tokens in one forward pass
_SMALLEST = 1e-4  # a spread below it counts as this
_FLATTEST = 1e-3  # a direction's second moment counts as this share of the largest at least


class Unit(NamedTuple):
    """One layer's units: a matrix [H, D, D] for keys, whose rows are the directions of coordinates,
    and a factor for values.
    """

    key: Tensor
    value: float


def measure_units(
    base: FrozenModel, examples: Sequence[Example], *, length: int, seed: int
) -> list[Unit]:
    """Every layer's units, from a seeded sample of training rows behind a prefix of `length`
    positions.

    Where the base does not show its queries (route "cache"), keys are measured in their own spread,
    as values are.
    """
    rows = rows_of_tokens(examples, _TOKENS, f"{seed}/units")
    moments = [_Moments() for _ in base.layers]
    if base.shares_prefix:
        front = base.key_values(text_of_rows(examples, length, f"{seed}/front"))
        _read_behind(base, front, rows, moments)
    else:
        for row in rows:
            for layer, (key, value) in zip(moments, base.key_values(row), strict=True):
                layer.add_spread(key, value)
    units = []
    for shape, seen in zip(base.layers, moments, strict=True):
        plain = torch.eye(shape.key_size, device=base.device).repeat(shape.kv_heads, 1, 1)
        directions = plain if seen.queries is None else _whitening(seen.queries)
        units.append(Unit(seen.key_spread * directions, seen.value_spread))
    return units


class _Moments:
    """Second moments of one layer, summed up."""

    def __init__(self) -> None:
        self.queries: Tensor | None = None
        """Sum over tokens and grouped heads of q qᵀ, [H, D, D]."""
        self._squares = [0.0, 0.0, 0.0, 0.0]  # sum and count of keys, of values

    def add_queries(self, query: Tensor) -> None:
        """Of queries [H, N, D] that look at the same keys."""
        query = query.double()
        product = query.transpose(1, 2) @ query
        self.queries = product if self.queries is None else self.queries + product

    def add_spread(self, key: Tensor, value: Tensor) -> None:
        """Of keys and values of any shape."""
        for at, part in ((0, key), (2, value)):
            self._squares[at] += float(part.double().square().sum())
            self._squares[at + 1] += part.numel()

    @property
    def key_spread(self) -> float:
        """Root mean square of the keys."""
        return max(_SMALLEST, math.sqrt(self._squares[0] / self._squares[1]))

    @property
    def value_spread(self) -> float:
        """Root mean square of the values."""
        return max(_SMALLEST, math.sqrt(self._squares[2] / self._squares[3]))


@torch.no_grad()
def _read_behind(
    base: FrozenModel,
    prefix: Sequence[tuple[Tensor, Tensor]],
    rows: Sequence[Sequence[int]],
    moments: Sequence[_Moments],
) -> None:
    """Adds what meets in each layer's attention while the base reads rows behind a prefix."""
    for group in _groups(rows):
        lengths = tuple(len(row) for row in group)
        ids = torch.zeros(len(group), max(lengths), dtype=torch.long)
        for place, row in enumerate(group):
            ids[place, : len(row)] = torch.tensor(row)

        def add(
            layer: int,
            query: Tensor,
            key: Tensor,
            value: Tensor,
            lengths: tuple[int, ...] = lengths,
        ) -> None:
            if layer >= len(base.layers):
                return  # a layer that shares another one's keys has no prefix of its own
            query, key, value = (_without_padding(part, lengths) for part in (query, key, value))
            H = base.layers[layer].kv_heads
            moments[layer].add_queries(query.reshape(H, -1, query.shape[-1]))
            moments[layer].add_spread(key, value)

        with attention_watched(add):
            base.logits(prefix, ids.to(base.device), torch.zeros(1, dtype=torch.long), lengths)


def _groups(rows: Sequence[Sequence[int]]) -> list[list[Sequence[int]]]:
    """Rows in groups of like length, of about _TOGETHER tokens each."""
    groups: list[list[Sequence[int]]] = [[]]
    for row in sorted(rows, key=len):
        if groups[-1] and (len(groups[-1]) + 1) * len(row) > _TOGETHER:
            groups.append([])
        groups[-1].append(row)
    return groups


def _without_padding(part: Tensor, lengths: Sequence[int]) -> Tensor:
    """[B, heads, S, D] → [heads, N, D], the tokens of all rows; packed rows have no padding."""
    if part.shape[0] == 1:
        return part[0]
    rows = [row[:, :length] for row, length in zip(part, lengths, strict=True)]
    return torch.cat(rows, dim=1)


def _whitening(moment: Tensor) -> Tensor:
    """W [H, D, D] with W M W the same in every direction, scaled so that W = 1 for queries that
    have no favourite direction.
    """
    sizes, directions = torch.linalg.eigh(moment)
    sizes = sizes.clamp_min(_FLATTEST * sizes.amax(-1, keepdim=True)).clamp_min(
        torch.finfo(sizes.dtype).tiny
    )
    shrink = (sizes / sizes.mean(-1, keepdim=True)).rsqrt()
    whitening: Tensor = (directions * shrink[:, None, :]) @ directions.transpose(1, 2)
    return whitening.float()
