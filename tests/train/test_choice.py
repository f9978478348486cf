"""No base is made worse by its prefix: start and rate are measured on it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rows import label_rows, record_rows
from transformers import PreTrainedModel

from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.train import PrefixConfig, TrainConfig, TrainResult, train_prefix
from edgeprefix.train.choice import STARTS, Choice
from edgeprefix.train.rate_test import falling_rates
from tiny import save_checkpoint, tiny_gpt2, tiny_llama, tiny_mistral

OPEN = TrainConfig(steps=40, batch_size=8, precision="fp32", validate_every=10, validation_rows=32)


def go(base: str | Path, out: Path, **changes: Any) -> TrainResult:
    settings: dict[str, Any] = {
        "task": "cities",
        "prompt": "{input} ->",
        "train": OPEN,
        "prefix": PrefixConfig(length=12),
    }
    return train_prefix(
        base, record_rows(120), record_rows(32, start=200), out=out, **(settings | changes)
    )


def first_validation(run: Path) -> float:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return float(next(line["validation_loss"] for line in lines if "validation_loss" in line))


def choice_of(run: Path) -> Choice:
    return Choice.from_json(json.loads((run / "run.json").read_text())["settings"]["choice"])


def not_worse_at_the_first_validation(result: TrainResult) -> None:
    assert first_validation(result.run) <= result.base_validation_loss
    assert result.validation_loss <= result.base_validation_loss


@pytest.mark.parametrize(
    "make",
    [tiny_llama, tiny_gpt2, lambda: tiny_mistral(window=48)],
    ids=["llama", "gpt2", "window"],
)
def test_no_random_base_is_made_worse(make: Callable[[], PreTrainedModel], tmp_path: Path) -> None:
    folder = save_checkpoint(make(), tmp_path / "base")
    not_worse_at_the_first_validation(go(folder, tmp_path / "run"))


@pytest.mark.parametrize("name", ["base-3m", "stories260K"])
def test_no_pretrained_base_is_made_worse(name: str, shared: Path, tmp_path: Path) -> None:
    not_worse_at_the_first_validation(go(shared / "models" / name, tmp_path / "run"))


@pytest.mark.slow
def test_a_real_base_is_not_made_worse(shared: Path, tmp_path: Path) -> None:
    """The base on which the defaults of a small one ended at 6 nats, from 2.7 of the base alone."""
    where = os.environ.get("EDGEPREFIX_REAL_BASE")
    if not where:
        pytest.skip("needs EDGEPREFIX_REAL_BASE, the folder that holds gemma-3-270m")
    rows = [
        json.loads(line)
        for line in (shared / "data" / "e2e" / "train.jsonl").read_text().splitlines()[:400]
    ]
    result = train_prefix(
        Path(where) / "gemma-3-270m",
        [{"input": row["input"], "target": row["target"]} for row in rows[:-16]],
        [{"input": row["input"], "target": row["target"]} for row in rows[-16:]],
        task="e2e",
        out=tmp_path / "run",
        prefix=PrefixConfig(length=40),
        train=TrainConfig(steps=20, batch_size=8, validate_every=10),
    )
    not_worse_at_the_first_validation(result)
    assert result.plan.lr < 0.1


def test_the_start_is_the_one_of_the_lowest_loss(llama_base: Path, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    chosen: list[Choice] = []
    result = go(
        llama_base,
        tmp_path / "run",
        on_measured=lambda what, loss: told.append((what, loss)),
        on_choice=chosen.append,
    )
    (choice,) = chosen
    assert tuple(choice.starts) == STARTS
    assert choice.starts[choice.init] == min(choice.starts.values())
    assert choice.rates[f"{choice.lr:.3g}"] == min(choice.rates.values())
    assert (result.plan.init, result.plan.lr) == (choice.init, choice.lr)
    assert len(told) == 1 + len(choice.starts) + len(choice.rates)
    assert told[0] == ("base alone", choice.base_loss)
    assert choice == choice_of(result.run)
    recipe = Prefix.load(result.prefix_path).pack.recipe
    assert recipe["choice"]["starts"] == dict(choice.starts)
    for line, name in zip(choice.lines(), (choice.init, f"{choice.lr:.3g}"), strict=True):
        assert line.count("←") == 1
        assert f"{name} " in line


@pytest.mark.parametrize(
    ("init", "lr", "starts"), [("random", None, ("random",)), ("auto", 0.05, STARTS)]
)
def test_what_was_asked_for_is_not_measured(
    llama_base: Path, tmp_path: Path, init: str, lr: float | None, starts: Any
) -> None:
    result = go(
        llama_base,
        tmp_path / "run",
        prefix=PrefixConfig(length=12, init=init),
        train=dataclasses.replace(OPEN, lr=lr, steps=4),
    )
    choice = choice_of(result.run)
    assert tuple(choice.starts) == starts
    assert lr is None or (result.plan.lr, list(choice.rates)) == (lr, [f"{lr:.3g}"])


def test_with_both_asked_for_nothing_is_measured(llama_base: Path, tmp_path: Path) -> None:
    told: list[str] = []
    result = go(
        llama_base,
        tmp_path / "run",
        prefix=PrefixConfig(length=12, init="random"),
        train=dataclasses.replace(OPEN, lr=0.1, steps=4),
        on_measured=lambda what, _: told.append(what),
    )
    assert told == []
    assert json.loads((result.run / "run.json").read_text())["settings"]["choice"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"prefix": PrefixConfig(length=12, reparam=True, mlp_width=16)},
        {"prefix": PrefixConfig(length=12, prompt_tuning=True)},
        {"teacher": "Say who lives where, in one sentence."},
    ],
    ids=["mlp", "prompt-tuning", "teacher"],
)
def test_other_ways_to_train_are_measured_too(
    llama_base: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    result = go(llama_base, tmp_path / "run", train=dataclasses.replace(OPEN, steps=4), **changes)
    choice = choice_of(result.run)
    assert choice.rates
    assert all(math.isfinite(loss) for loss in choice.starts.values())


def test_labels_are_measured_by_the_objective(llama_base: Path, tmp_path: Path) -> None:
    result = train_prefix(
        llama_base,
        label_rows(),
        label_rows(8, start=100),
        task="help",
        out=tmp_path / "run",
        prompt="{input} ->",
        labels=("yes", "no"),
        prefix=PrefixConfig(length=6),
        train=dataclasses.replace(OPEN, steps=4, objective="labels"),
    )
    choice = choice_of(result.run)
    assert (choice.init, tuple(choice.starts)) == ("random", STARTS), "one step from there helps"
    assert choice.base_loss < 3, "among two labels, not among the vocabulary"
    assert result.base_validation_loss > 4


@pytest.mark.parametrize(
    ("best", "measured"), [(0.1, 2), (0.03, 3), (0.001, 6), (0.0003, 6), (1.0, 2)]
)
def test_rates_fall_until_one_is_worse(best: float, measured: int) -> None:
    losses = falling_rates(0.1, lambda lr: abs(math.log(lr / best)))
    assert list(losses) == [0.1, 0.03, 0.01, 0.003, 0.001, 0.0003][:measured]
    nearest = min(max(best, 0.0003), 0.1)
    assert min(losses, key=lambda rate: losses[rate]) == pytest.approx(nearest)


def test_a_rate_that_diverges_is_passed_over() -> None:
    losses = falling_rates(1.0, lambda lr: math.inf if lr > 0.05 else lr)
    assert min(losses, key=lambda rate: losses[rate]) == 0.003


def test_a_choice_survives_json() -> None:
    choice = Choice(
        init="text", lr=0.01, base_loss=2.7, starts={"text": 2.3},
        rates={"0.1": math.inf, "0.03": 2.0, "0.01": 1.7},
    )  # fmt: skip
    assert Choice.from_json(json.loads(json.dumps(choice.to_json(), allow_nan=False))) == choice
    assert choice.lines() == [
        "start text 2.300 ←; base alone 2.700",
        "rate 0.1 inf, 0.03 2.000, 0.01 1.700 ←, after one step of 3 times it",
    ]
