"""The search for settings: keeps its budget, keeps the best, and a resume keeps its choice."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from rows import record_rows

from edgeprefix.runtime.errors import TrainingDiverged, TrainingError, TrainingInterrupted
from edgeprefix.train import PrefixConfig, Progress, TrainConfig, train_prefix
from edgeprefix.train.search import Candidate, search, trial_steps

START = Candidate(lr=0.1, value_lr_ratio=3.0, init="random")


def test_it_walks_towards_the_lowest_loss() -> None:
    found = search(
        START,
        lambda c: abs(c.lr - 0.3) + abs(c.value_lr_ratio - 10) + (c.init != "text"),
        budget_s=60,
        inits=("text",),
    )
    assert found.chosen == Candidate(lr=pytest.approx(0.3), value_lr_ratio=10.0, init="text")
    assert found.trials[0].candidate == START


def test_it_keeps_to_its_budget_and_a_diverging_setting_loses() -> None:
    now = [100.0]
    took = iter([50.0, 60.0, 50.0, 60.0])

    def slow(candidate: Candidate) -> float:
        now[0] += next(took)
        if candidate.lr > 0.1:
            raise TrainingDiverged("the loss became nan")
        return candidate.lr

    # After 160 s another trial as long as the longest, 60 s, just fits; after 220 s none does.
    found = search(START, slow, budget_s=220, inits=("text",), clock=lambda: now[0])
    assert [trial.seconds for trial in found.trials] == [50.0, 60.0, 50.0, 60.0]
    assert found.chosen.lr <= 0.1
    took, diverges = iter([50.0]), Candidate(lr=1.0, value_lr_ratio=1.0, init="random")
    with pytest.raises(TrainingDiverged, match="every setting that was tried diverged"):
        search(diverges, slow, budget_s=1, inits=(), clock=lambda: now[0])


def test_only_divergence_loses_a_trial() -> None:
    """Whatever else ends a trial ends the search, in words that say nothing of it."""
    for error in (TrainingInterrupted("stopped"), TrainingError("no space"), MemoryError("full")):

        def fail(_: Candidate, error: Exception = error) -> float:
            raise error

        with pytest.raises(type(error), match=str(error)):
            search(START, fail, budget_s=60, inits=())


def test_a_trial_is_no_longer_than_the_run() -> None:
    assert [trial_steps(steps) for steps in (1, 19, 60, 1000)] == [1, 19, 20, 200]


def test_a_run_begins_with_a_search_and_a_resume_keeps_its_choice(
    llama_base: Path, tmp_path: Path
) -> None:
    def stop(progress: Progress) -> None:
        if progress.steps == 100 and progress.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    def go(*, resume: bool) -> None:
        train_prefix(
            llama_base,
            record_rows(),
            record_rows(8, start=100),
            task="cities",
            out=tmp_path / "run",
            search_s=0.01,
            prefix=PrefixConfig(length=5),
            train=TrainConfig(steps=100, lr=0.3, batch_size=4, precision="fp32"),
            progress=None if resume else stop,
            resume=resume,
        )

    with pytest.raises(TrainingInterrupted, match="at step 2 of 100"):
        go(resume=False)
    before = json.loads((tmp_path / "run" / "run.json").read_text())["search"]
    assert len(before["trials"]) == 1
    go(resume=True)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["search"] == before
