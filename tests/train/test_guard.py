"""A run that has become worse than the base alone begins anew with a smaller rate, and is then the
run that it would have been with that rate.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rows import record_rows
from safetensors.numpy import load_file

from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.errors import TrainingInterrupted
from edgeprefix.train import (
    PrefixConfig,
    Progress,
    TrainConfig,
    TrainResult,
    rate_test,
    train_prefix,
)
from edgeprefix.train.checkpoint import read_checkpoint
from edgeprefix.train.defaults import Plan
from edgeprefix.train.guard import RETREAT, worse_early, worse_validated

STEPS = 6
OPEN = TrainConfig(steps=STEPS, batch_size=8, precision="fp32", validate_every=2)


BASE = Path(__file__).parents[2] / "demo" / "base"
TOO_FAST = 30.0


@pytest.fixture
def too_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate test that knows one rate only, far too large."""
    monkeypatch.setattr(rate_test, "_SHARES", (TOO_FAST,))


def go(out: Path, **changes: Any) -> TrainResult:
    """Over a base that has learnt something, which can be lost."""
    settings: dict[str, Any] = {
        "task": "cities",
        "prompt": "{input} ->",
        "train": OPEN,
        "prefix": PrefixConfig(length=6, init="text", dropout=0.0),
    }
    return train_prefix(
        BASE, record_rows(), record_rows(8, start=100), out=out, **(settings | changes)
    )


@pytest.mark.usefixtures("too_fast")
def test_a_ruined_run_begins_anew_with_a_smaller_rate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Progress] = []
    with caplog.at_level(logging.WARNING):
        result = go(tmp_path / "run", progress=seen.append)
    setbacks = Prefix.load(result.prefix_path).pack.recipe["setbacks"]
    assert setbacks >= 1
    words = [record.getMessage() for record in caplog.records]
    assert sum("back to the start, with a learning rate of" in text for text in words) == setbacks
    assert [step.step for step in seen] == [1, 2] * setbacks + [*range(1, STEPS + 1)]
    assert result.steps == STEPS
    assert result.validation_loss < result.base_validation_loss
    # What came after is a run with that rate and nothing else.
    lr = result.plan.lr * RETREAT**setbacks
    plain = go(tmp_path / "plain", train=dataclasses.replace(OPEN, lr=lr))
    for layer, other in zip(
        Prefix.load(result.prefix_path).layers, Prefix.load(plain.prefix_path).layers, strict=True
    ):
        np.testing.assert_allclose(layer.key, other.key, rtol=1e-3, atol=1e-4)
    lines = [json.loads(line) for line in (result.run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation_loss" in line] == [2, 4, 6]


@pytest.mark.usefixtures("too_fast")
@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_an_interrupted_run_begins_anew_as_an_uninterrupted_one(
    tmp_path: Path, stop_at: int
) -> None:
    whole = go(tmp_path / "whole")
    told = 0

    def interrupt(_: Progress) -> None:
        nonlocal told
        told += 1
        if told == stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TrainingInterrupted):
        go(tmp_path / "parts", progress=interrupt)
    kept = read_checkpoint(tmp_path / "parts" / "last.safetensors").progressed
    assert (kept.step, kept.setbacks) == {1: (1, 0), 2: (0, 1), 3: (1, 1)}[stop_at]
    resumed = go(tmp_path / "parts", resume=True)
    expected, actual = (load_file(run / "last.safetensors") for run in (whole.run, resumed.run))
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)
    assert whole.prefix_path.read_bytes() == resumed.prefix_path.read_bytes()


def test_a_rate_that_was_asked_for_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        result = go(tmp_path / "run", train=dataclasses.replace(OPEN, lr=3.0))
    assert "worse than the base alone: give a smaller --lr than 3, or leave it out" in caplog.text
    assert Prefix.load(result.prefix_path).pack.recipe["setbacks"] == 0


def test_what_counts_as_worse() -> None:
    """Training rows by a margin, since parts of prefix and prompts are hidden in them."""
    plan = Plan(
        length=6, init="text", steps=100, batch_size=8, lr=0.1, dropout=0.0, prompt_dropout=0.0,
        metric="loss", objective="target", validate_every=50, max_tokens=99,
    )  # fmt: skip
    alone = {"validation_loss": 3.0}
    assert worse_validated(plan, {"validation_loss": 3.01}, alone)
    assert not worse_validated(plan, {"validation_loss": 3.0}, alone)
    assert worse_early(plan, [2.0] * 10 + [3.4] * 10, alone)
    assert not worse_early(plan, [9.0] * 10 + [3.2] * 10, alone)
    taught = dataclasses.replace(plan, objective="distill", metric="kl")
    alone |= {"kl": 0.5}
    assert worse_validated(taught, {"validation_loss": 1.0, "kl": 0.6}, alone)
    assert not worse_validated(taught, {"validation_loss": 9.0, "kl": 0.4}, alone)
    assert not worse_early(taught, [9.0] * 20, alone)
    ranked = dataclasses.replace(plan, objective="labels", metric="accuracy")
    alone |= {"accuracy": 0.5}
    assert worse_validated(ranked, {"validation_loss": 1.0, "accuracy": 0.4}, alone)
    assert not worse_validated(ranked, {"validation_loss": 9.0, "accuracy": 0.5}, alone)
