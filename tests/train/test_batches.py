"""Batches are random choices of rows; groups of like length inside a step change its padding and
nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import given
from hypothesis import strategies as st
from rows import record_rows
from torch import Tensor

from edgeprefix.train import FrozenModel
from edgeprefix.train.batches import Batches, collate, groups_of_like_length
from edgeprefix.train.data import Example, load_data
from edgeprefix.train.objective import Objective


def example(length: int) -> Example:
    return Example(prompt=(3,) * length, target=(4, 0), text="")


rows_of_any_length = st.lists(st.integers(1, 300).map(example), max_size=40)


@given(rows_of_any_length, st.integers(1, 2000))
def test_groups_hold_every_row_once_in_order_of_length(rows: list[Example], tokens: int) -> None:
    groups = groups_of_like_length(rows, tokens)
    lengths = [row.length for group in groups for row in group]
    assert lengths == sorted(row.length for row in rows)
    assert all(groups)
    assert len(groups) <= max(1, sum(lengths) // tokens)


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 5))
def test_an_epoch_meets_every_row_in_an_order_of_its_own(count: int, size: int, seed: int) -> None:
    batches = Batches([example(1 + index) for index in range(count)], batch_size=size, seed=seed)
    epoch = [row for step in range(batches.per_epoch) for row in batches.indices(step)]
    assert set(epoch) == set(range(count))
    # The last batch is filled up from the epoch's beginning
    assert len(epoch) - count < min(size, count)
    assert batches.indices(0) == Batches([example(1)] * count, batch_size=size, seed=seed).indices(
        0
    )


def test_a_batch_mixes_lengths() -> None:
    batches = Batches([example(1 + index) for index in range(256)], batch_size=16, seed=0)
    widest = [
        max(batches.indices(step)) - min(batches.indices(step)) for step in range(batches.per_epoch)
    ]
    assert min(widest) > 100, "rows of like length share a batch"


@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.integers(6, 16), st.integers(0, 5))
def test_every_batch_has_its_share_of_each_label(counts: list[int], size: int, seed: int) -> None:
    rows = [
        Example(prompt=(3,), target=(5 + label, 0), text=str(label))
        for label, count in enumerate(counts)
        for _ in range(2 * count)
    ]
    batches = Batches(rows, batch_size=size, seed=seed)
    for step in range(len(rows) // min(size, len(rows))):
        batch = [rows[index].text for index in batches.indices(step)]
        for label, count in enumerate(counts):
            share = 2 * count / len(rows) * len(batch)
            assert abs(batch.count(str(label)) - share) < 2


def test_rows_of_one_label_come_in_an_order_of_the_seed() -> None:
    rows = [Example(prompt=(3 + index,), target=(index % 2, 0), text="") for index in range(40)]
    orders = {
        Batches(rows, batch_size=40, seed=seed).indices(epoch)
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 4


def test_groups_give_the_batchs_gradient(llama: FrozenModel) -> None:
    rows = [{"input": "river " * (1 + index), "target": f"yes {index}"} for index in range(8)]
    data = load_data(
        rows, record_rows(2), tokenizer=llama.tokenizer, prompt="{input}\n", max_tokens=200
    )
    objective = Objective(base=llama, name="target", metric_name="loss")
    whole = objective.weight(data.train)

    def gradient(groups: Sequence[Sequence[Example]]) -> list[Tensor]:
        prefix = [
            (key.requires_grad_(), value.requires_grad_())
            for key, value in llama.key_values([5, 6, 7])
        ]
        for group in groups:
            (objective.loss(prefix, group) * (objective.weight(group) / whole)).backward()  # type: ignore[no-untyped-call]
        return [tensor.grad for pair in prefix for tensor in pair if tensor.grad is not None]

    groups = groups_of_like_length(data.train, 20)
    assert len(groups) > 2
    assert sum(collate(group).tokens for group in groups) < collate(data.train).tokens
    together, apart = gradient([data.train]), gradient(groups)
    assert len(together) == 2 * len(llama.layers)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
