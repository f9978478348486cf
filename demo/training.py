"""The demo's training stage: one prefix per task over one loaded base."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from edgeprefix.demo.recipes import Recipe
from edgeprefix.demo.stages import Advance
from edgeprefix.demo.tasks import DemoTask
from edgeprefix.train import (
    FrozenModel,
    PrefixConfig,
    Progress,
    TrainConfig,
    TrainResult,
    train_prefix,
)

_LICENCE = "Apache-2.0"


class _Stopped(Exception):
    """Ends the training thread after Ctrl-C; never seen outside."""


def train_task(
    base: FrozenModel,
    task: DemoTask,
    recipe: Recipe,
    *,
    data: Path,
    run: Path,
    seed: int,
    advance: Advance,
) -> TrainResult:
    """Trains a task's prefix on the rows in `data` and writes the folder `run`.

    Runs in a thread, so that Ctrl-C stays KeyboardInterrupt: the demo has no use for a half-trained
    run to resume.
    """
    stopped = threading.Event()

    def tell(progress: Progress) -> None:
        if stopped.is_set():
            raise _Stopped
        advance(progress.step / progress.steps, _words(progress))

    def tell_measured(what: str, loss: float) -> None:
        if stopped.is_set():
            raise _Stopped
        advance(0.0, f"measuring {what} {loss:.2f}")

    with ThreadPoolExecutor(max_workers=1) as pool:
        training = pool.submit(
            train_prefix,
            base,
            data / "train.jsonl",
            data / "validation.jsonl",
            task=task.name,
            out=run,
            prefix=PrefixConfig(
                length=min(recipe.length, base.max_positions // 4), dropout=recipe.dropout
            ),
            train=_settings(recipe, seed),
            prompt=task.prompt,
            labels=task.labels,
            licence=_LICENCE,
            progress=tell,
            on_measured=tell_measured,
        )
        try:
            return training.result()
        except KeyboardInterrupt:
            stopped.set()
            raise


def read_curves(run: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The run's training and validation losses as points {"step", "loss"}."""
    entries = [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    training = [
        {"step": entry["step"], "loss": entry["loss"]} for entry in entries if "loss" in entry
    ]
    validation = [
        {"step": entry["step"], "loss": entry["validation_loss"]}
        for entry in entries
        if "validation_loss" in entry
    ]
    return training, validation


def _settings(recipe: Recipe, seed: int) -> TrainConfig:
    return TrainConfig(
        steps=recipe.steps,
        lr=recipe.lr,
        batch_size=recipe.batch_size,
        metric="loss",
        seed=seed,
        log_every=recipe.log_every,
    )


def _words(progress: Progress) -> str:
    validation = (
        "" if progress.validation_loss is None else f", validation {progress.validation_loss:.2f}"
    )
    return f"loss {progress.loss:.2f}{validation}"
