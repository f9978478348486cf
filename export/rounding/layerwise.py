"""All layers of a base rounded, one after the other, each for what the rounded ones before it give
it.

The texts go through the model as it has been rounded so far; held-out texts go through it twice,
with the base's own weights as well, so that at the end both sides' logits can be compared. Only one
layer's matrices are held in fp32 at a time, and nothing of the model is changed when it is done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from edgeprefix.base.rounding import RoundedMatrix, WeightFormat
from edgeprefix.base.streaming import in_full
from edgeprefix.export.rounding.gptq import Steps, round_matrix
from edgeprefix.export.rounding.pack import packed
from edgeprefix.export.rounding.siblings import Siblings, find_siblings
from edgeprefix.export.rounding.walk import Walk

_LOGITS_AT_ONCE = 1 << 24  # numbers

FormatOf = Callable[[Siblings], WeightFormat]
"""The format of a group; its block is the largest that it may have."""


@dataclass(frozen=True, eq=False)
class Texts:
    """Batches of token ids [B, S]: what rounding is fitted to, and what it is judged by."""

    fitted: Sequence[Tensor]
    held_out: Sequence[Tensor]


class Layerwise:
    """Rounds a model's layers, then says how far the rounded model is from the base."""

    def __init__(self, model: Any, texts: Texts) -> None:
        self._model = model
        self._fitted, self._held_out = len(texts.fitted), len(texts.held_out)
        self._exact = Walk(model, texts.held_out)
        self._rounded = Walk(model, [*texts.fitted, *texts.held_out])

    def layers(self, format_of: FormatOf) -> Iterator[dict[str, RoundedMatrix]]:
        """For each layer, the matrices by the names of their parameters."""
        for index in range(len(self._exact.layers)):
            yield self._layer(index, format_of)

    def divergence(self) -> float:
        """Mean KL of the next token on the held-out texts, in nats, once all layers are rounded."""
        total, tokens = 0.0, 0
        with torch.no_grad(), in_full(self._model.get_output_embeddings()):
            for batch in range(self._held_out):
                for expected, found in self._logits(batch):
                    total += float(
                        functional.kl_div(found, expected, reduction="sum", log_target=True)
                    )
                    tokens += expected[..., 0].numel()
        return total / tokens

    def _logits(self, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """log p [B, n, V] of the base and of the rounded model, piece by piece."""
        sides = ((self._exact, batch), (self._rounded, self._fitted + batch))
        B, S, _ = self._exact.outputs(batch).shape
        rows = int(self._model.get_output_embeddings().weight.shape[0])
        for positions in torch.split(torch.arange(S), max(1, _LOGITS_AT_ONCE // (B * rows))):
            expected, found = (
                walk.logits(index, positions, walk.outputs(index)).float().log_softmax(-1)
                for walk, index in sides
            )
            yield expected, found

    def _layer(self, index: int, format_of: FormatOf) -> dict[str, RoundedMatrix]:
        groups = find_siblings(self._model, self._rounded, layer=index)
        hessians = self._hessians(groups)
        for batch in range(self._held_out):
            self._exact.run(batch)
        matrices: dict[str, RoundedMatrix] = {}
        with contextlib.ExitStack() as held:
            for group in groups:
                form = format_of(group)
                found = _rounded(group, hessians.pop(group), form)
                held.enter_context(group.holding(found.numbers()))
                for name, rows in group.split_steps(found).items():
                    matrices[name] = packed(rows, symmetric=form.symmetric)
            for batch in range(self._rounded.batches):
                self._rounded.run(batch)
        self._exact.advance()
        self._rounded.advance()
        return matrices

    def _hessians(self, groups: Sequence[Siblings]) -> dict[Siblings, Tensor]:
        """Of each group, the products of its inputs' channels, summed over tokens, [K, K]."""
        first = {group.names[0]: group.modules[0] for group in groups}
        found = {group: torch.zeros(group.shape[1], group.shape[1]) for group in groups}
        for batch in range(self._fitted):
            inputs = self._rounded.run(batch, first)
            for group, hessian in found.items():
                given = inputs[group.names[0]].flatten(0, -2)
                hessian.addmm_(given.T, given)
        return found


def _rounded(group: Siblings, hessian: Tensor, form: WeightFormat) -> Steps:
    weight = group.weight()
    return round_matrix(
        weight,
        hessian,
        bits=form.bits,
        block=form.block_for(weight.shape[1]),
        symmetric=form.symmetric,
    )
