"""Trainings that run at once in one process come to what each comes to alone."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from rows import record_rows

from edgeprefix.train import (
    FrozenModel,
    PrefixConfig,
    Progress,
    TrainConfig,
    load_base,
    train_prefix,
)

CONFIG = TrainConfig(steps=4, lr=0.2, batch_size=4, precision="fp32", validate_every=2)
RUNS = [
    (PrefixConfig(length=12, init="random"), CONFIG),
    (PrefixConfig(length=11, reparam=True, mlp_width=16), dataclasses.replace(CONFIG, seed=1)),
    (PrefixConfig(length=7, prompt_tuning=True), dataclasses.replace(CONFIG, metric="exact")),
]


def trained(
    base: FrozenModel, out: Path, number: int, in_step: threading.Barrier | None = None
) -> bytes:
    """The prefix file of one of RUNS; with `in_step`, every step waits for the other runs."""
    torch.set_num_threads(1)  # of this thread; pools of many threads would fight for the cores
    prefix, train = RUNS[number]

    def wait(_: Progress) -> None:
        if in_step is not None:
            in_step.wait(timeout=60)

    result = train_prefix(
        base,
        record_rows(24, start=30 * number),
        record_rows(2, start=200),
        task="cities",
        out=out / str(number),
        prompt="{input} ->",
        prefix=prefix,
        train=train,
        progress=wait,
    )
    return result.prefix_path.read_bytes()


@pytest.fixture(scope="module")
def alone(llama: FrozenModel, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    out = tmp_path_factory.mktemp("alone")
    with ThreadPoolExecutor(1) as pool:
        return list(pool.map(lambda number: trained(llama, out, number), range(len(RUNS))))


@pytest.mark.parametrize(
    ("count", "recompute"), [(1, True), (len(RUNS), False)], ids=["one base", "a base each"]
)
def test_trainings_in_threads_give_the_results_of_each_alone(
    llama_base: Path, tmp_path: Path, alone: list[bytes], count: int, recompute: bool
) -> None:
    bases = [load_base(llama_base, precision="fp32", recompute=recompute) for _ in range(count)]
    in_step = threading.Barrier(len(RUNS))
    with ThreadPoolExecutor(len(RUNS)) as pool:
        running = [
            pool.submit(trained, bases[number % count], tmp_path, number, in_step)
            for number in range(len(RUNS))
        ]
        together = [run.result() for run in running]
    assert together == alone
