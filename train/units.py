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

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from edgeprefix.train.attention import queries_watched
from edgeprefix.train.batches import rows_of_tokens, text_of_rows
from edgeprefix.train.data import Example
from edgeprefix.train.model import FrozenModel

_TOKENS = 2048  # of training rows, read to measure
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
    spreads = _spreads(base, rows)
    front = base.key_values(text_of_rows(examples, length, f"{seed}/front"))
    moments = _query_moments(base, front, rows)
    units = []
    for index, (shape, (key, value)) in enumerate(zip(base.layers, spreads, strict=True)):
        plain = torch.eye(shape.key_size, device=base.device).repeat(shape.kv_heads, 1, 1)
        directions = _whitening(moments[index]) if index in moments else plain
        units.append(Unit(key * directions, value))
    return units


def _spreads(base: FrozenModel, rows: Sequence[Sequence[int]]) -> list[tuple[float, float]]:
    """Root mean squares of each layer's keys and values over texts."""
    squares = [[0.0, 0.0, 0.0, 0.0] for _ in base.layers]  # sums and counts of keys, of values
    for row in rows:
        for total, (key, value) in zip(squares, base.key_values(row), strict=True):
            total[0] += float(key.square().sum())
            total[1] += key.numel()
            total[2] += float(value.square().sum())
            total[3] += value.numel()
    return [
        (max(_SMALLEST, (ks / kn) ** 0.5), max(_SMALLEST, (vs / vn) ** 0.5))
        for ks, kn, vs, vn in squares
    ]


@torch.no_grad()
def _query_moments(
    base: FrozenModel, prefix: Sequence[tuple[Tensor, Tensor]], rows: Sequence[Sequence[int]]
) -> dict[int, Tensor]:
    """Sums over tokens and grouped heads of q qᵀ, [H, D, D] by layer; queries as they meet the
    prefix's keys.
    """
    sums: dict[int, Tensor] = {}

    def add(layer: int, query: Tensor) -> None:
        if layer >= len(base.layers):
            return  # a layer that shares another one's keys has no prefix of its own
        grouped = query[0].double().reshape(base.layers[layer].kv_heads, -1, query.shape[-1])
        sums[layer] = sums.get(layer, 0.0) + grouped.transpose(1, 2) @ grouped

    if base.shares_prefix:
        with queries_watched(add):
            for row in rows:
                ids = torch.tensor([row], device=base.device)
                base.logits(prefix, ids, rows=torch.zeros_like(ids[0, :1]))
    return sums


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
