"""What the user left open follows from the rows and the base, by the measured rules; what was asked
for stays.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import label_rows, record_rows

from edgeprefix.train import FrozenModel, PrefixConfig, TrainConfig
from edgeprefix.train.batches import Batches
from edgeprefix.train.data import Example, load_data
from edgeprefix.train.defaults import Plan, _steps_of, plan


def planned(
    base: FrozenModel,
    count: int,
    *,
    labels: tuple[str, ...] = (),
    prefix: PrefixConfig | None = None,
    train: TrainConfig | None = None,
    distilled: bool = False,
) -> Plan:
    rows = label_rows(count) if labels else record_rows(count)
    data = load_data(
        rows, rows[:2], tokenizer=base.tokenizer, prompt="{input} ->", labels=labels, max_tokens=200
    )
    return plan(
        prefix or PrefixConfig(),
        train or TrainConfig(),
        data,
        length=10,
        max_tokens=200,
        labels=labels,
        distilled=distilled,
    )


@pytest.mark.parametrize(
    ("count", "labels", "lr", "dropout", "prompt_dropout", "steps"),
    [
        (10, (), 0.02, 0.2, 0.0, 300),
        (125, (), 0.05, 0.16, 0.0, 300),
        (500, (), 0.1, 0.1, 0.0, 300),
        (3200, (), 0.1, 0.019, 0.0, 1000),
        (6400, (), 0.1, 0.0, 0.0, 2000),
        (50, ("yes", "no"), 0.05, 0.2, 0.3, 600),
        (200, ("yes", "no"), 0.05, 0.14, 0.171, 600),
        (500, ("yes", "no"), 0.05, 0.1, 0.0, 600),
    ],
)
def test_largest_rate_dropout_and_steps_follow_from_the_rows(
    llama: FrozenModel,
    count: int,
    labels: tuple[str, ...],
    lr: float,
    dropout: float,
    prompt_dropout: float,
    steps: int,
) -> None:
    chosen = planned(llama, count, labels=labels)
    assert (chosen.init, chosen.steps, chosen.batch_size) == ("auto", steps, min(16, count))
    assert (chosen.lr, chosen.dropout) == (pytest.approx(lr), pytest.approx(dropout))
    assert chosen.prompt_dropout == prompt_dropout
    assert chosen.metric == ("accuracy" if labels else "loss")


def test_a_prefix_that_follows_a_teacher_is_not_one_of_few_rows(llama: FrozenModel) -> None:
    chosen = planned(llama, 40, distilled=True)
    assert (chosen.init, chosen.lr, chosen.dropout, chosen.prompt_dropout) == (
        "auto",
        0.1,
        0.0,
        0.0,
    )
    assert (chosen.objective, chosen.metric) == ("distill", "kl")


def test_what_was_asked_for_stays(llama: FrozenModel) -> None:
    chosen = planned(
        llama,
        50,
        prefix=PrefixConfig(init="vocab", dropout=0.0),
        labels=("yes", "no"),
        train=TrainConfig(
            prompt_dropout=0.0, steps=7, lr=0.3, batch_size=4, metric="exact", validate_every=2
        ),
    )
    asked = {
        "init": "vocab",
        "dropout": 0.0,
        "prompt_dropout": 0.0,
        "steps": 7,
        "lr": 0.3,
        "batch_size": 4,
        "metric": "exact",
        "validate_every": 2,
    }
    assert {
        name: value for name, value in dataclasses.asdict(chosen).items() if name in asked
    } == asked


@given(
    rows=st.integers(1, 200),
    batch_size=st.integers(1, 40),
    accumulation=st.integers(1, 6),
    epochs=st.integers(1, 3),
)
def test_an_epoch_meets_every_row(
    rows: int, batch_size: int, accumulation: int, epochs: int
) -> None:
    """In the fewest steps that do; what is asked for is what the loop reads."""
    examples = [Example(prompt=(3,), target=(4, 0), text=str(row)) for row in range(rows)]
    batches = Batches(examples, batch_size=batch_size, seed=0)
    steps = _steps_of(epochs, rows, min(batch_size, rows), accumulation)
    met = Counter(
        index for number in range(steps * accumulation) for index in batches.indices(number)
    )
    assert min(met.values()) >= epochs
    assert len(met) == rows
    before = (steps - 1) * accumulation
    assert steps == 1 or before < epochs * batches.per_epoch


def test_one_epoch_of_accumulated_batches_is_planned_whole(llama: FrozenModel) -> None:
    train = TrainConfig(epochs=1, batch_size=16, accumulation=4)
    assert planned(llama, 127, train=train).steps == 2
    assert planned(llama, 127, train=dataclasses.replace(train, epochs=0.1)).steps == 1
