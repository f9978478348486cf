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

STEPS = 30
OPEN = TrainConfig(steps=STEPS, batch_size=8, precision="fp32", validate_every=10)


@pytest.fixture
def too_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate test that knows one rate only, far too large."""
    monkeypatch.setattr(rate_test, "_SHARES", (300.0,))


def go(base: Path, out: Path, **changes: Any) -> TrainResult:
    settings: dict[str, Any] = {
        "task": "cities",
        "prompt": "{input} ->",
        "train": OPEN,
        "prefix": PrefixConfig(length=6, init="text", dropout=0.0),
    }
    return train_prefix(
        base, record_rows(), record_rows(8, start=100), out=out, **(settings | changes)
    )


@pytest.mark.parametrize("validate_every", [10, 25], ids=["validation", "early"])
@pytest.mark.usefixtures("too_fast")
def test_a_ruined_run_begins_anew_with_a_smaller_rate(
    llama_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, validate_every: int
) -> None:
    train = dataclasses.replace(OPEN, validate_every=validate_every)
    seen: list[Progress] = []
    with caplog.at_level(logging.WARNING):
        result = go(llama_base, tmp_path / "run", train=train, progress=seen.append)
    recipe = Prefix.load(result.prefix_path).pack.recipe
    setbacks = recipe["setbacks"]
    assert setbacks >= 1
    words = [record.getMessage() for record in caplog.records]
    assert sum("back to the start, with a learning rate of" in text for text in words) == setbacks
    steps = [step.step for step in seen]
    back = 20 if validate_every > 20 else validate_every
    assert steps[: back + 1] == [*range(1, back + 1), 1]
    assert result.steps == STEPS
    assert result.validation_loss < result.base_validation_loss
    # What came after is a run with that rate and nothing else.
    lr = result.plan.lr * 0.3**setbacks
    plain = go(llama_base, tmp_path / "plain", train=dataclasses.replace(train, lr=lr))
    for layer, other in zip(
        Prefix.load(result.prefix_path).layers, Prefix.load(plain.prefix_path).layers, strict=True
    ):
        np.testing.assert_allclose(layer.key, other.key, rtol=1e-4, atol=1e-5)
    lines = [json.loads(line) for line in (result.run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [10, 20, 30]


@pytest.mark.usefixtures("too_fast")
@pytest.mark.parametrize("stop_at", [7, 10, 13])
def test_an_interrupted_run_begins_anew_as_an_uninterrupted_one(
    llama_base: Path, tmp_path: Path, stop_at: int
) -> None:
    whole = go(llama_base, tmp_path / "whole")
    told = 0

    def interrupt(_: Progress) -> None:
        nonlocal told
        told += 1
        if told == stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TrainingInterrupted):
        go(llama_base, tmp_path / "parts", progress=interrupt)
    kept = read_checkpoint(tmp_path / "parts" / "last.safetensors").progressed
    assert (kept.step, kept.setbacks) == {7: (7, 0), 10: (0, 1), 13: (3, 1)}[stop_at]
    resumed = go(llama_base, tmp_path / "parts", resume=True)
    expected, actual = (load_file(run / "last.safetensors") for run in (whole.run, resumed.run))
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)
    assert whole.prefix_path.read_bytes() == resumed.prefix_path.read_bytes()


def test_a_rate_that_was_asked_for_is_kept(
    llama_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        result = go(llama_base, tmp_path / "run", train=dataclasses.replace(OPEN, lr=30.0))
    assert "worse than the base alone: give a smaller --lr than 30, or leave it out" in caplog.text
    assert Prefix.load(result.prefix_path).pack.recipe["setbacks"] == 0
