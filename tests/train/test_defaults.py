"""What the user left open follows from the rows and the base, by the measured rules; what was asked
for stays.
"""

from __future__ import annotations

import dataclasses

import pytest
from rows import label_rows, record_rows

from edgeprefix.train import FrozenModel, PrefixConfig, TrainConfig
from edgeprefix.train.data import load_data
from edgeprefix.train.defaults import Plan, plan


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
    ("count", "labels", "init", "lr", "dropout", "prompt_dropout", "steps"),
    [
        (10, (), "text", 0.02, 0.2, 0.0, 300),
        (125, (), "text", 0.05, 0.16, 0.0, 300),
        (500, (), "random", 0.1, 0.1, 0.0, 300),
        (3200, (), "random", 0.1, 0.019, 0.0, 1000),
        (6400, (), "random", 0.1, 0.0, 0.0, 2000),
        (50, ("yes", "no"), "random", 0.05, 0.2, 0.3, 600),
        (200, ("yes", "no"), "random", 0.05, 0.14, 0.171, 600),
        (500, ("yes", "no"), "random", 0.05, 0.1, 0.0, 600),
    ],
)
def test_start_rate_dropout_and_steps_follow_from_the_rows(
    llama: FrozenModel,
    count: int,
    labels: tuple[str, ...],
    init: str,
    lr: float,
    dropout: float,
    prompt_dropout: float,
    steps: int,
) -> None:
    chosen = planned(llama, count, labels=labels)
    assert (chosen.init, chosen.steps, chosen.batch_size) == (init, steps, min(16, count))
    assert (chosen.lr, chosen.dropout) == (pytest.approx(lr), pytest.approx(dropout))
    assert chosen.prompt_dropout == prompt_dropout
    assert chosen.metric == ("accuracy" if labels else "loss")


def test_a_prefix_that_follows_a_teacher_is_not_one_of_few_rows(llama: FrozenModel) -> None:
    chosen = planned(llama, 40, distilled=True)
    assert (chosen.init, chosen.lr, chosen.dropout, chosen.prompt_dropout) == (
        "random",
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
