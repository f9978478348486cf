"""Which rows are in which step: a pure function of (seed, step), so that a resumed run sees what it would have seen.

Rows of like length share a batch (little padding), while order and grouping are shuffled anew in every epoch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from edgeprefix.train.data import Example

_WINDOW = 16  # batches' worth of rows that are sorted by length together


class Batch(NamedTuple):
    """Right-padded ids [B, S], the N positions (in B·S) before a target token, those target tokens, and each one's row."""

    ids: Tensor
    rows: Tensor
    targets: Tensor
    owner: Tensor

    @property
    def tokens(self) -> int:
        """Tokens that the base reads, padding included."""
        return self.ids.numel()

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(part.to(device) for part in self))


def collate(examples: Sequence[Example]) -> Batch:
    """Pads examples on the right; the last target token is predicted but never read, so it is left out of the ids."""
    S = max(example.length for example in examples) - 1
    ids = torch.zeros(len(examples), S, dtype=torch.long)
    rows, targets, owner = [], [], []
    for index, example in enumerate(examples):
        text = (example.prompt + example.target)[:-1]
        ids[index, : len(text)] = torch.tensor(text)
        rows.append(torch.arange(len(example.prompt) - 1, example.length - 1) + index * S)
        targets.append(torch.tensor(example.target))
        owner.append(torch.full((len(example.target),), index))
    return Batch(ids, torch.cat(rows), torch.cat(targets), torch.cat(owner))


class Batches:
    """The training batches: `batches[step]` for step 0, 1, 2, … without end."""

    def __init__(self, examples: Sequence[Example], *, batch_size: int, seed: int) -> None:
        self._examples = examples
        self._size = min(batch_size, len(examples))
        self._seed = seed
        self._epoch = lru_cache(maxsize=2)(self._plan)

    @property
    def per_epoch(self) -> int:
        """Batches in one pass over the data; the last, smaller one is filled up from the epoch's beginning."""
        return -(-len(self._examples) // self._size)

    def indices(self, step: int) -> tuple[int, ...]:
        """Rows of a step, by their place in the data."""
        epoch, place = divmod(step, self.per_epoch)
        return self._epoch(epoch)[place]

    def __getitem__(self, step: int) -> Batch:
        return collate([self._examples[index] for index in self.indices(step)])

    def _plan(self, epoch: int) -> tuple[tuple[int, ...], ...]:
        shuffle = random.Random(f"{self._seed}/{epoch}")
        order = list(range(len(self._examples)))
        shuffle.shuffle(order)
        missing = self.per_epoch * self._size - len(order)
        order += order[:missing]
        window = self._size * _WINDOW
        plan: list[tuple[int, ...]] = []
        for start in range(0, len(order), window):
            rows = sorted(order[start : start + window], key=lambda index: self._examples[index].length)
            plan += [tuple(rows[at : at + self._size]) for at in range(0, len(rows), self._size)]
        shuffle.shuffle(plan)
        return tuple(plan)


def in_length_order(examples: Sequence[Example], batch_size: int) -> list[list[Example]]:
    """All examples once, for evaluation: like lengths together."""
    ordered = sorted(examples, key=lambda example: example.length)
    return [ordered[at : at + batch_size] for at in range(0, len(ordered), batch_size)]


def sample(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """A seeded sample in the data's order; all when there are no more than `count`."""
    if len(examples) <= count:
        return list(examples)
    chosen = sorted(random.Random(f"{seed}/sample").sample(range(len(examples)), count))
    return [examples[index] for index in chosen]
