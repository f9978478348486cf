"""Which rows are in which step, and how: a pure function of (seed, step), so that a resumed run
sees what it would have seen.

A batch is a random choice of rows: batches of like lengths would save padding, but each step would
then see one kind of text, and the prefix ends worse (docs/lab/training-tried.md).
`groups_of_like_length` saves the padding inside a step instead. Labels alone are not left to
chance: what their numbers differ by from batch to batch is noise in the faint signal that tells
them apart.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from edgeprefix.train.data import Example
from edgeprefix.train.prompt_dropout import PromptDropout


class Batch(NamedTuple):
    """Right-padded ids [B, S], the N positions (in B·S) before a target token, those target tokens,
    each one's row, and the rows' lengths.
    """

    ids: Tensor
    rows: Tensor
    targets: Tensor
    owner: Tensor
    lengths: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens that the base reads, padding included."""
        return self.ids.numel()

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        ids, rows, targets, owner = (part.to(device) for part in self[:4])
        return Batch(ids, rows, targets, owner, self.lengths)


def collate(examples: Sequence[Example]) -> Batch:
    """Pads examples on the right; the last target token is predicted but never read, so it is left
    out of the ids.
    """
    S = max(example.length for example in examples) - 1
    ids = torch.zeros(len(examples), S, dtype=torch.long)
    rows, targets, owner = [], [], []
    for index, example in enumerate(examples):
        text = (example.prompt + example.target)[:-1]
        ids[index, : len(text)] = torch.tensor(text)
        rows.append(torch.arange(len(example.prompt) - 1, example.length - 1) + index * S)
        targets.append(torch.tensor(example.target))
        owner.append(torch.full((len(example.target),), index))
    lengths = tuple(example.length - 1 for example in examples)
    return Batch(ids, torch.cat(rows), torch.cat(targets), torch.cat(owner), lengths)


class Batches:
    """The training batches for step 0, 1, 2, … without end."""

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        batch_size: int,
        seed: int,
        prompt_dropout: float = 0.0,
    ) -> None:
        self._examples = examples
        self._dropout = PromptDropout.over(examples, prompt_dropout) if prompt_dropout else None
        self._size = min(batch_size, len(examples))
        self._seed = seed
        self._epoch = lru_cache(maxsize=2)(self._plan)

    @property
    def per_epoch(self) -> int:
        """Batches in one pass over the data; the last, smaller one is filled up from the epoch's
        beginning.
        """
        return -(-len(self._examples) // self._size)

    def indices(self, step: int) -> tuple[int, ...]:
        """Rows of a step, by their place in the data."""
        epoch, place = divmod(step, self.per_epoch)
        return self._epoch(epoch)[place]

    def examples(self, step: int) -> list[Example]:
        """Rows of a step, as it reads them."""
        rows = [self._examples[index] for index in self.indices(step)]
        if self._dropout is None:
            return rows
        chance = random.Random(f"{self._seed}/{step}/prompts")
        return [self._dropout.shortened(row, chance) for row in rows]

    def _plan(self, epoch: int) -> tuple[tuple[int, ...], ...]:
        targets = [example.target for example in self._examples]
        order = _shuffled(targets, self._size, random.Random(f"{self._seed}/{epoch}"))
        missing = self.per_epoch * self._size - len(order)
        order += order[:missing]
        return tuple(tuple(order[at : at + self._size]) for at in range(0, len(order), self._size))


def _shuffled(targets: Sequence[tuple[int, ...]], size: int, chance: random.Random) -> list[int]:
    """A random order of rows; where a batch has room for every target, as with a few labels, each
    one's rows are spread evenly.

    (Stratified sampling. With more targets than a batch holds, the same ones would meet in it again
    and again.)
    """
    order = list(range(len(targets)))
    chance.shuffle(order)
    by_target: dict[tuple[int, ...], list[int]] = {}
    for row in order:
        by_target.setdefault(targets[row], []).append(row)
    if len(by_target) > size:
        return order
    places = []
    for rows in by_target.values():
        first = chance.random()
        places += [((rank + first) / len(rows), row) for rank, row in enumerate(rows)]
    return [row for _, row in sorted(places)]


def groups_of_like_length(examples: Sequence[Example], tokens: int) -> list[list[Example]]:
    """A batch in groups of like length, of about `tokens` tokens each: the same gradient with less
    padding.
    """
    count = max(1, sum(example.length for example in examples) // tokens)
    return in_length_order(examples, max(1, -(-len(examples) // count)))


def in_length_order(examples: Sequence[Example], batch_size: int) -> list[list[Example]]:
    """All examples once, like lengths together."""
    ordered = sorted(examples, key=lambda example: example.length)
    return [ordered[at : at + batch_size] for at in range(0, len(ordered), batch_size)]


def sample(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """A seeded sample in the data's order; all when there are no more than `count`."""
    if len(examples) <= count:
        return list(examples)
    chosen = sorted(random.Random(f"{seed}/sample").sample(range(len(examples)), count))
    return [examples[index] for index in chosen]


def rows_of_tokens(examples: Sequence[Example], tokens: int, seed: str) -> list[list[int]]:
    """Rows with their targets as ids, drawn by a seed until they have so many tokens together."""
    order = random.Random(seed)
    rows: list[list[int]] = []
    count = 0
    while count < tokens:
        example = order.choice(examples)
        rows.append(list(example.prompt + example.target))
        count += example.length
    return rows


def text_of_rows(examples: Sequence[Example], length: int, seed: str) -> list[int]:
    """`length` ids of rows with their targets, one after another."""
    return [token for row in rows_of_tokens(examples, length, seed) for token in row][:length]
