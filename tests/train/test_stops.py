"""Everything that can end a run early loses nothing and says what to do."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rows import record_rows, write_jsonl
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.errors import (
    CapacityError,
    CheckpointError,
    DataError,
    OutputError,
    PrefixFileError,
    TrainingError,
    TrainingInterrupted,
)
from edgeprefix.train import (
    FrozenModel,
    PrefixConfig,
    Progress,
    TrainConfig,
    TrainResult,
    load_base,
    train_prefix,
)
from edgeprefix.train.checkpoint import read_checkpoint
from edgeprefix.train.record import RunFolder

STEPS = 12
CONFIG = TrainConfig(steps=STEPS, lr=0.05, batch_size=8, precision="fp32", validate_every=5)
COMMAND = "import sys; from edgeprefix.cli.root import main; main()"


def go(
    base: Path | FrozenModel,
    out: Path,
    *,
    resume: bool = False,
    stop_at: int | None = None,
    **changes: object,
) -> TrainResult:
    """Trains; with `stop_at`, the process gets a real Ctrl-C after that step."""

    def interrupt(progress: Progress) -> None:
        if progress.step == stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    settings: dict[str, object] = {
        "prefix": PrefixConfig(length=5),
        "train": CONFIG,
        "prompt": "{input} ->",
        "data": record_rows(),
        "validation": record_rows(8, start=100),
        "task": "cities",
        "progress": interrupt,
    }
    return train_prefix(base, out=out, resume=resume, **(settings | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("stop_at", [1, 5, 7])
@pytest.mark.parametrize(
    ("config", "prompt_dropout"),
    [
        (PrefixConfig(length=5), 0.0),
        (PrefixConfig(length=5, reparam=True, mlp_width=16, dropout=0.2), 0.3),
    ],
)
def test_interrupted_and_resumed_equals_uninterrupted(
    llama_base: Path, tmp_path: Path, stop_at: int, config: PrefixConfig, prompt_dropout: float
) -> None:
    train = dataclasses.replace(CONFIG, prompt_dropout=prompt_dropout)
    whole = go(llama_base, tmp_path / "whole", prefix=config, train=train)
    with pytest.raises(
        TrainingInterrupted, match=rf"at step {stop_at} of 12; nothing is lost.*--resume"
    ):
        go(llama_base, tmp_path / "parts", stop_at=stop_at, prefix=config, train=train)
    kept = read_checkpoint(tmp_path / "parts" / "last.safetensors")
    assert kept.progressed.step == stop_at, "steps since the last validation are lost"
    resumed = go(llama_base, tmp_path / "parts", resume=True, prefix=config, train=train)
    expected, actual = (load_file(run / "last.safetensors") for run in (whole.run, resumed.run))
    assert set(expected) == set(actual)
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)
    assert whole.prefix_path.read_bytes() == resumed.prefix_path.read_bytes()
    assert logged_steps(whole.run) == logged_steps(resumed.run)


def logged_steps(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_ctrl_c_means_again_what_it_meant(llama_base: Path, tmp_path: Path) -> None:
    """After a run, whether it ended or was interrupted; a second Ctrl-C within it ends it at
    once.
    """
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(TrainingInterrupted):
        go(llama_base, tmp_path / "once", stop_at=2)
    assert signal.getsignal(signal.SIGINT) is before

    def twice(progress: Progress) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        go(llama_base, tmp_path / "twice", progress=twice)
    assert signal.getsignal(signal.SIGINT) is before
    assert read_checkpoint(tmp_path / "twice" / "last.safetensors").progressed.step == 0


def test_resuming_a_finished_run_gives_its_result_again(llama_base: Path, tmp_path: Path) -> None:
    first = go(llama_base, tmp_path / "run")
    again = go(llama_base, tmp_path / "run", resume=True)
    assert (again.best_step, again.validation_loss) == (first.best_step, first.validation_loss)


def test_a_resume_with_other_settings_is_refused(llama_base: Path, tmp_path: Path) -> None:
    go(llama_base, tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(
        TrainingError, match="belongs to another run: .*prompt was '{input} ->', now '{input}'"
    ):
        go(llama_base, tmp_path / "run", resume=True, prompt="{input}")
    with pytest.raises(TrainingError, match="has no checkpoint to resume from"):
        go(llama_base, tmp_path / "nothing", resume=True)
    fewer = dataclasses.replace(CONFIG, seed=7)
    with pytest.raises(
        TrainingError,
        match="belongs to another run: train.seed was 0, now 7; give the same settings",
    ):
        go(llama_base, tmp_path / "run", resume=True, train=fewer)
    assert (tmp_path / "run" / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"task": "towns"}, "task was 'cities', now 'towns'"),
        ({"stop": ["##"]}, r"stop was \[\], now \['##'\]"),
        ({"licence": "CC0-1.0"}, "licence was '', now 'CC0-1.0'"),
        ({"data": record_rows(39)}, "data was '"),
        ({"validation": record_rows(8, start=101)}, "data was '"),
        ({"target": "input"}, "data was '"),
        ({"search_s": 1.0}, "began without --search; leave it out"),
        ({"teacher": "name: Ann"}, "teacher was None, now '"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_resume_with_what_it_would_not_apply_is_refused(
    llama_base: Path, interrupted: Path, change: dict[str, object], named: str
) -> None:
    before = {file.name: file.read_bytes() for file in interrupted.iterdir()}
    with pytest.raises(TrainingError, match=named):
        go(llama_base, interrupted, resume=True, **change)
    assert {file.name: file.read_bytes() for file in interrupted.iterdir()} == before


@pytest.fixture(scope="module")
def interrupted(llama_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("interrupted") / "run"
    with pytest.raises(TrainingInterrupted):
        go(llama_base, run, stop_at=1)
    return run


@pytest.mark.parametrize("reparam", [False, True])
def test_a_run_that_began_from_its_own_prefix_resumes_without_it(
    llama_base: Path, tmp_path: Path, reparam: bool
) -> None:
    """The start is in the checkpoint: its file is replaced by the run itself."""
    first, run = tmp_path / "first" / "prefix.safetensors", tmp_path / "run"
    go(llama_base, first.parent, train=dataclasses.replace(CONFIG, steps=2))
    shutil.copytree(first.parent, run)
    whole = go(
        llama_base, tmp_path / "whole", prefix=PrefixConfig(init=str(first), reparam=reparam)
    )
    follow = PrefixConfig(init=str(run / "prefix.safetensors"), reparam=reparam)
    with pytest.raises(TrainingInterrupted):
        go(llama_base, run, prefix=follow, stop_at=6, force=True)
    assert (run / "prefix.safetensors").read_bytes() != first.read_bytes()
    (run / "prefix.safetensors").unlink()
    resumed = go(llama_base, run, prefix=follow, resume=True)
    expected, actual = (load_file(folder / "last.safetensors") for folder in (whole.run, run))
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)
    assert resumed.validation_loss == whole.validation_loss


def test_a_checkpoint_of_another_format_version_is_refused(
    llama_base: Path, interrupted: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(interrupted, tmp_path / "run")
    with safe_open(run / "last.safetensors", "np") as file:
        metadata = file.metadata() | {"version": "1"}
    save_file(load_file(run / "last.safetensors"), run / "last.safetensors", metadata)
    with pytest.raises(TrainingError, match="has format version 1, this edgeprefix resumes 2"):
        go(llama_base, run, resume=True)


def test_forcing_a_run_removes_what_the_old_one_left_and_nothing_else(
    llama_base: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    quick = dataclasses.replace(CONFIG, steps=2, tensorboard=True)
    go(llama_base, run, train=quick, teacher="name: Ann", search_s=0.01)
    (run / "notes.txt").write_text("mine")
    (run / "search" / "1" / "notes.txt").write_text("mine")
    kept = [run / "notes.txt", run / "search", run / "search" / "1"]
    kept.append(run / "search" / "1" / "notes.txt")
    assert len(list(run.rglob("*"))) > len(kept) + 10
    with pytest.raises(TrainingInterrupted):
        go(llama_base, run, force=True, stop_at=1)  # before its first validation
    new = [run / name for name in ("last.safetensors", "metrics.jsonl", "run.json")]
    assert sorted(run.rglob("*")) == sorted(kept + new)


@pytest.mark.parametrize("how", ["resume", "force"])
def test_a_killed_writer_leaves_nothing_for_ever(tmp_path: Path, how: str) -> None:
    """Whichever file it was writing, the next run need not write that one again."""
    trial = RunFolder(tmp_path / "run").trial(3)
    abandoned = [
        file.with_name(f".{file.name}.0a1b2c3d.tmp")
        for file in (*RunFolder(tmp_path / "run").files, *trial.files)
    ]
    for file in abandoned:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    foreign = tmp_path / "run" / ".notes.txt.0a1b2c3d.tmp"
    foreign.touch()
    run = RunFolder.open(tmp_path / "run", resume=how == "resume", force=how == "force")
    assert not any(file.exists() for file in abandoned if file.parent == run.path)
    run.reset()
    assert [*run.path.iterdir()] == [foreign]


def test_a_refused_replacement_leaves_the_old_run(llama_base: Path, tmp_path: Path) -> None:
    go(llama_base, tmp_path / "run", train=dataclasses.replace(CONFIG, steps=1))
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    with pytest.raises(PrefixFileError, match="task name 'a b' cannot be used"):
        go(llama_base, tmp_path / "run", force=True, task="a b")
    assert {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()} == before


def test_a_foreign_prefix_in_the_folder_is_not_overwritten(
    llama_base: Path, tmp_path: Path
) -> None:
    (tmp_path / "prefix.safetensors").write_bytes(b"a prefix of another kind")
    with pytest.raises(OutputError, match="holds a run already"):
        go(llama_base, tmp_path)


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: torch.empty(1 << 50),
        lambda: bytearray(1 << 60),
    ],
    ids=["torch", "python"],
)
@pytest.mark.parametrize("steps_before", [1, 2], ids=["in a step", "in the validation"])
def test_running_out_of_memory_says_what_to_lower(
    llama_base: Path, tmp_path: Path, allocate: Callable[[], object], steps_before: int
) -> None:
    base = load_base(llama_base, precision="fp32")
    config = dataclasses.replace(CONFIG, validate_every=2)

    def break_the_base(progress: Progress) -> None:
        if progress.step == steps_before:
            base.model.register_forward_pre_hook(lambda *_: allocate())

    where = {1: "at step 2 with batch size 8 and prefix length 5: lower --batch-size", 2: "step 3"}
    with pytest.raises(CapacityError, match=f"out of memory .*{where[steps_before]}"):
        go(base, tmp_path / "run", train=config, progress=break_the_base)


@pytest.mark.parametrize(
    "words", ["the memory of a model", "can't allocate memory", "DefaultCPUAllocator: memory"]
)
def test_an_error_that_speaks_of_memory_is_not_running_out_of_it(
    llama_base: Path, tmp_path: Path, words: str
) -> None:
    base = load_base(llama_base, precision="fp32")

    def fail(*_: object) -> None:
        raise RuntimeError(words)

    def break_the_base(_: Progress) -> None:
        base.model.register_forward_pre_hook(fail)

    with pytest.raises(RuntimeError, match=words):
        go(base, tmp_path / "run", progress=break_the_base)


def test_a_damaged_checkpoint_is_named(llama_base: Path, tmp_path: Path) -> None:
    go(llama_base, tmp_path / "run")
    checkpoint = tmp_path / "run" / "last.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    with pytest.raises(TrainingError, match=r"last\.safetensors cannot be read"):
        go(llama_base, tmp_path / "run", resume=True)


def test_a_loss_that_is_no_number_stops_and_keeps_the_best(
    llama_base: Path, tmp_path: Path
) -> None:
    base = load_base(llama_base, precision="fp32")

    def spoil(progress: Progress) -> None:
        if progress.step == 3:
            base.model.get_input_embeddings().weight.data.fill_(math.nan)

    config = dataclasses.replace(CONFIG, validate_every=2)
    with pytest.raises(
        TrainingError,
        match=r"loss became nan at step 4 .* the best prefix so far \(step 2\) is kept .* --lr",
    ):
        train_prefix(
            base,
            record_rows(),
            record_rows(8, start=100),
            task="cities",
            out=tmp_path / "run",
            train=config,
            prefix=PrefixConfig(length=5),
            progress=spoil,
        )
    assert Prefix.load(tmp_path / "run" / "prefix.safetensors").pack.recipe["step"] == 2
    assert np.isfinite(load_file(tmp_path / "run" / "last.safetensors")["key.0"]).all()


def test_an_existing_run_is_not_overwritten(llama_base: Path, tmp_path: Path) -> None:
    first = go(llama_base, tmp_path / "run")
    kept = first.prefix_path.read_bytes()
    with pytest.raises(
        OutputError, match="holds a run already; pass --resume to go on with it, --force"
    ):
        go(llama_base, tmp_path / "run")
    assert first.prefix_path.read_bytes() == kept
    go(llama_base, tmp_path / "run", force=True)


def test_a_place_that_cannot_be_written_is_found_before_any_work(
    llama_base: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match=r"cannot write .*file/run"):
        go(llama_base, tmp_path / "file" / "run")


def test_wrong_inputs_are_named(llama_base: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError,
        match="no-base: no such folder; give the folder of a checkpoint, a GGUF file, or a hub id",
    ):
        go(tmp_path / "no-base", tmp_path / "run")
    with pytest.raises(DataError, match=r"missing\.jsonl does not exist"):
        train_prefix(llama_base, tmp_path / "missing.jsonl", task="t", out=tmp_path / "run2")
    with pytest.raises(PrefixFileError, match="task name 'a b' cannot be used"):
        train_prefix(llama_base, record_rows(), task="a b", out=tmp_path / "run3")
    with pytest.raises(TrainingError, match="leaves 6 of the base's 256 positions"):
        go(llama_base, tmp_path / "run4", prefix=PrefixConfig(length=250))
    with pytest.raises(TrainingError, match="needs labels"):
        go(llama_base, tmp_path / "run5", train=TrainConfig(metric="accuracy"))


def command(base: Path, folder: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "-c",
        COMMAND,
        "train",
        "--base",
        str(base),
        "--data",
        str(folder / "train.jsonl"),
        "--validation",
        str(folder / "validation.jsonl"),
        "--task",
        "cities",
        "--out",
        str(folder / "run"),
        "--length",
        "5",
        "--lr",
        "0.05",
        "--batch-size",
        "8",
        "--precision",
        "fp32",
        "--validate-every",
        "50",
        *more,
    ]


def test_ctrl_c_in_a_real_process_then_resume(llama_base: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", record_rows())
    write_jsonl(tmp_path / "validation.jsonl", record_rows(8, start=100))
    process = subprocess.Popen(
        command(llama_base, tmp_path, "--steps", "200"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    line = [text for text in errors.splitlines() if text.startswith("error: ")]
    assert len(line) == 1
    assert "nothing is lost" in " ".join(errors.split())
    assert "Traceback" not in errors
    resumed = subprocess.run(
        command(llama_base, tmp_path, "--steps", "200", "--resume"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert "validation loss" in resumed.stdout
    assert json.loads((tmp_path / "run" / "run.json").read_text())["result"]["steps"] == 200
    Prefix.load(tmp_path / "run" / "prefix.safetensors")


def test_a_full_disk_ends_in_one_line_and_leaves_nothing_half_written(
    llama_base: Path, tmp_path: Path
) -> None:
    """A limit on file sizes stands for the full disk: the system refuses the write in the same
    place. What was there before, a note and the facts of the run, is whole.
    """
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    write_jsonl(tmp_path / "train.jsonl", record_rows())
    write_jsonl(tmp_path / "validation.jsonl", record_rows(8, start=100))

    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    result = subprocess.run(
        command(llama_base, tmp_path, "--steps", "5"),
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=small_disk,
    )
    assert result.returncode == 1
    assert "error: cannot write" in result.stderr
    assert "last.safetensors" in "".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left <= {"notes.txt", "run.json", "metrics.jsonl"}
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    assert RunFolder(tmp_path / "run").read_facts()["task"]


def test_the_command_line_names_a_bad_row(llama_base: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "validation.jsonl", record_rows(3))
    (tmp_path / "train.jsonl").write_text('{"input": "a", "target": "b"}\nnot json\n')
    result = subprocess.run(
        command(llama_base, tmp_path, "--steps", "5"), capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 1
    assert "train.jsonl:2: not a row" in "".join(result.stderr.splitlines())
