"""Changes of the trainer that were tried and are not options of the product, so that `tries.py` can
measure them again.

Each replaces a constant or a function of edgeprefix.train for this process. What they gave stands
in docs/lab/training-tried.md.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeprefix.train import (
    batches,
    loop,
    objective,
    optimiser,
    parametrisation,
    trainer,
    units,
)
from edgeprefix.train.data import Example
from edgeprefix.train.model import FrozenModel
from edgeprefix.train.prompt_dropout import PromptDropout

_LIKE_LENGTHS = 16  # batches' worth of rows that are sorted together


def betas(first: float, second: float) -> None:
    """Memories of the optimiser's two moments."""
    optimiser._BETAS = (first, second)


def key_share(share: float) -> None:
    """Size of the first keys, in units."""
    parametrisation._KEY_SHARE = share


def flattest(share: float) -> None:
    """The least second moment of a query's direction, as a share of the largest."""
    units._FLATTEST = share


def key_power(power: float) -> None:
    """How far queries are whitened: 0 not at all, 0.5 as the product does it."""

    def partly(moment: Tensor) -> Tensor:
        sizes, directions = torch.linalg.eigh(moment)
        sizes = sizes.clamp_min(units._FLATTEST * sizes.amax(-1, keepdim=True))
        shrunk = (directions * sizes.pow(-power)[:, None, :]) @ directions.transpose(1, 2)
        # The same spread of scores as in plain units
        plain = moment.diagonal(dim1=1, dim2=2).sum(-1)
        now = torch.einsum("hij,hjk,hki->h", shrunk, moment, shrunk)
        return (shrunk * (plain / now).sqrt()[:, None, None]).float()

    units._whitening = partly


def value_share(share: float) -> None:
    """Size of the first values, in units."""
    start = trainer.start_prefix

    def smaller(*positional: Any, **named: Any) -> parametrisation.PrefixTensors:
        return [(key, value * share) for key, value in start(*positional, **named)]

    trainer.start_prefix = smaller


def low_mass(logit: float) -> None:
    """First keys get a share of the direction that all queries have in common, so that each scores
    `logit` more on average.
    """
    start = trainer.start_prefix

    def shifted(base: FrozenModel, *positional: Any, **named: Any) -> parametrisation.PrefixTensors:
        prefix = start(base, *positional, **named)
        moments, means = _query_statistics(base, prefix, named["examples"])
        moved = []
        for index, (key, value) in enumerate(prefix):
            common = torch.linalg.solve(moments[index], means[index][..., None])[..., 0]
            # Q · common is one on average
            common = common / (common * means[index]).sum(-1, keepdim=True)
            moved.append((key + logit * key.shape[-1] ** 0.5 * common[:, None, :].float(), value))
        return moved

    trainer.start_prefix = shifted


def like_lengths() -> None:
    """Rows of like length share a batch."""
    plan = batches.Batches._plan

    def sorted_plan(self: batches.Batches, epoch: int) -> tuple[tuple[int, ...], ...]:
        rows = [row for batch in plan(self, epoch) for row in batch]
        window = self._size * _LIKE_LENGTHS
        result: list[tuple[int, ...]] = []
        for at in range(0, len(rows), window):
            part = sorted(rows[at : at + window], key=lambda row: self._examples[row].length)
            result += [
                tuple(part[start : start + self._size]) for start in range(0, len(part), self._size)
            ]
        batches.random.Random(f"{self._seed}/{epoch}/order").shuffle(result)
        return tuple(result)

    batches.Batches._plan = sorted_plan  # type: ignore[method-assign]


def shuffled() -> None:
    """Labels come as chance has it, not spread evenly."""
    plain = batches._shuffled
    batches._shuffled = lambda targets, _, chance: plain(targets, 0, chance)


def drop(key: float, value: float, whole: float) -> None:
    """Dropout of keys and of values apart: of entries, or with `whole` 1 of positions."""

    def mask(like: Tensor, share: float, generator: torch.Generator) -> Tensor:
        shape = (*like.shape[:2], 1) if whole else like.shape
        return (torch.rand(shape, generator=generator) >= share) / (1 - share)

    def dropped(
        prefix: parametrisation.PrefixTensors, _: float, *, seed: tuple[int, int]
    ) -> parametrisation.PrefixTensors:
        generator = torch.Generator().manual_seed(hash(seed) % (1 << 63))
        return [(k * mask(k, key, generator), v * mask(v, value, generator)) for k, v in prefix]

    loop._dropped = dropped


def average(memory: float) -> None:
    """The prefix that is kept is a moving average over the steps."""
    step, fold = loop._step, loop.fold
    kept: dict[str, Tensor] = {}

    def averaged_step(job: loop.Job, rows: batches.Batches) -> float:
        loss = step(job, rows)
        for name, tensor in job.parametrisation.parameters().items():
            kept.setdefault(name, tensor.detach().clone()).lerp_(tensor.detach(), 1 - memory)
        return loss

    def averaged(trained: parametrisation.Parametrisation) -> parametrisation.PrefixTensors:
        now = {name: tensor.detach().clone() for name, tensor in trained.parameters().items()}
        parametrisation.load_parameters(trained, kept)
        prefix = [(key.clone(), value.clone()) for key, value in fold(trained)]
        parametrisation.load_parameters(trained, now)
        return prefix

    loop._step, loop.fold = averaged_step, averaged


def lm(weight: float) -> None:
    """Prompt tokens are predicted too, at this weight."""
    plain = objective.Objective.loss

    def loss(self: objective.Objective, prefix: Any, examples: Sequence[Example]) -> Tensor:
        if not torch.is_grad_enabled():
            return plain(self, prefix, examples)
        texts = [
            Example(prompt=row.prompt[:1], target=row.prompt[1:] + row.target, text=row.text)
            for row in examples
        ]
        batch = batches.collate(texts)
        losses = F.cross_entropy(
            self.base.logits(prefix, batch.ids, batch.rows, batch.lengths),
            batch.targets,
            reduction="none",
        )
        of_target = torch.cat(
            [torch.arange(row.length - 1) >= len(row.prompt) - 1 for row in examples]
        )
        return losses[of_target].mean() + weight * losses[~of_target].mean()

    objective.Objective.loss = loss  # type: ignore[method-assign]


def shortening(kind: float) -> None:
    """Prompt dropout of other kinds: 1 a share drawn for each row, 2 every second row whole, 3
    neighbours swapped as well.
    """
    plain = PromptDropout.shortened

    def shortened(self: PromptDropout, example: Example, chance: random.Random) -> Example:
        if kind == 1:
            self = dataclasses.replace(self, share=chance.random() * 2 * self.share)
        if kind == 2 and chance.random() < 0.5:
            return example
        row = plain(self, example, chance)
        prompt = list(row.prompt)
        for at in range(self.head, len(prompt) - self.tail - 1 if kind == 3 else 0):
            if chance.random() < 0.2:
                prompt[at], prompt[at + 1] = prompt[at + 1], prompt[at]
        return dataclasses.replace(row, prompt=tuple(prompt))

    PromptDropout.shortened = shortened  # type: ignore[method-assign]


VARIANTS: dict[str, Callable[..., None]] = {
    "betas": betas,
    "key_share": key_share,
    "key_power": key_power,
    "flattest": flattest,
    "value_share": value_share,
    "low_mass": low_mass,
    "like_lengths": like_lengths,
    "shuffled": shuffled,
    "drop": drop,
    "average": average,
    "lm": lm,
    "shortening": shortening,
}


@torch.no_grad()
def _query_statistics(
    base: FrozenModel, prefix: parametrisation.PrefixTensors, examples: Sequence[Example]
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Second moments [H, D, D] and means [H, D] of the queries by layer."""
    seen: dict[int, list[Tensor]] = {}

    def note(layer: int, query: Tensor, _: Tensor, __: Tensor) -> None:
        grouped = query[0].double().reshape(base.layers[layer].kv_heads, -1, query.shape[-1])
        seen.setdefault(layer, []).append(grouped)

    with units.attention_watched(note):
        for example in examples[:64]:
            ids = torch.tensor([example.prompt + example.target], device=base.device)
            base.logits(prefix, ids, rows=torch.zeros_like(ids[0, :1]))
    queries = {layer: torch.cat(parts, dim=1) for layer, parts in seen.items()}
    return (
        {layer: all_.transpose(1, 2) @ all_ / all_.shape[1] for layer, all_ in queries.items()},
        {layer: all_.mean(1) for layer, all_ in queries.items()},
    )
