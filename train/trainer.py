"""`train_prefix`: data in, prefix file out. Everything between is put together here."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.errors import MissingExtraError, TrainingError, TrainingInterrupted
from edgeprefix.train.checkpoint import Checkpoint, Progressed, read_checkpoint
from edgeprefix.train.choice import Choice, OnMeasured, choose, with_choice, with_start
from edgeprefix.train.config import AUTO, INITS, PrefixConfig, TrainConfig
from edgeprefix.train.data import DataReport, load_data
from edgeprefix.train.defaults import Plan, choose_length, choose_max_tokens, plan
from edgeprefix.train.distill import OnTeacher, Teacher
from edgeprefix.train.facts import packed_prefix, prefix_layers, run_facts, run_settings
from edgeprefix.train.initialise import prefix_file_length
from edgeprefix.train.loading import load_base
from edgeprefix.train.loop import Job, ProgressCallback, train_loop
from edgeprefix.train.memory import memory_errors
from edgeprefix.train.model import FrozenModel
from edgeprefix.train.optimiser import NAdamW
from edgeprefix.train.parametrisation import Parametrisation
from edgeprefix.train.plot import draw_curve
from edgeprefix.train.processes import join_processes
from edgeprefix.train.record import RunFolder
from edgeprefix.train.search import Candidate, chosen_in, search, trial_steps
from edgeprefix.train.setting import Setting
from edgeprefix.train.sources import TARGET, DataSource
from edgeprefix.train.start import (
    measured_units,
    parametrisation_of,
    start_of,
    start_tensors,
)
from edgeprefix.train.tensorboard import mirrored, summary_writer

logger = logging.getLogger(__name__)

DEFAULT_PROMPT = "{input}\n"

PlanCallback = Callable[[Plan, DataReport, FrozenModel], None]
ChoiceCallback = Callable[[Choice], None]


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a finished run found. Losses are nats per target token on the validation rows."""

    run: Path
    prefix_path: Path
    base: BaseIdentity
    plan: Plan
    report: DataReport
    best_step: int
    steps: int
    """Steps done; fewer than planned when patience ended it."""
    metric_name: str
    metric: float
    base_metric: float
    """The same metric of the base alone."""
    validation_loss: float
    base_validation_loss: float
    parameters: int
    """Trained numbers."""
    seconds: float
    """Training time, without loading, choosing start and rate, and validation."""
    tokens_per_s: float


def train_prefix(
    base: str | Path | FrozenModel,
    data: DataSource,
    validation: DataSource | None = None,
    *,
    revision: str | None = None,
    task: str,
    out: str | Path,
    prefix: PrefixConfig | None = None,
    train: TrainConfig | None = None,
    prompt: str = DEFAULT_PROMPT,
    target: str = TARGET,
    labels: Sequence[str] = (),
    stop: Sequence[str] = (),
    licence: str = "",
    teacher: str | None = None,
    search_s: float = 0.0,
    progress: ProgressCallback | None = None,
    on_plan: PlanCallback | None = None,
    on_teacher: OnTeacher | None = None,
    on_measured: OnMeasured | None = None,
    on_choice: ChoiceCallback | None = None,
    resume: bool = False,
    force: bool = False,
) -> TrainResult:
    """Trains a prefix for `task` over a frozen base and writes the RUN folder `out` (see
    docs/training.md).

    `revision` is the branch, tag or commit of a base from the hub. `data` and `validation` are
    JSONL or CSV files, Hugging Face data sets (train/sources.py), or
    rows, with the fields of `prompt` and what is to be learnt in the field `target`. Without
    `validation` a tenth of the rows is set apart. `teacher` is a long text prompt that the prefix
    shall stand for: training then follows what the base says with that text in front. `search_s`
    seconds are spent on trying settings first. `on_plan` is called once with settings and data
    report before anything is measured; a start and a rate that are left open are measured then
    (train/choice.py): `on_measured` is told of each loss, `on_choice` of what was taken.

    Raises DataError, TemplateError, CheckpointError, OutputError, TrainingError, CapacityError; see
    their texts. On Ctrl-C a TrainingInterrupted says how to resume. Several calls may run at once
    in threads, over one loaded base too, each with an `out` of its own.

    >>> result = train_prefix("base", "train.jsonl", task="e2e", out="run")  # doctest: +SKIP
    >>> result.prefix_path  # doctest: +SKIP
    PosixPath('run/prefix.safetensors')
    """
    prefix, train = prefix or PrefixConfig(), train or TrainConfig()
    processes = join_processes()
    run = RunFolder.open(out, resume=resume, force=force, writes=processes.main)
    begun = read_checkpoint(run.checkpoint_path) if resume else None
    if train.tensorboard:
        summary_writer()  # a missing package is said now
    loaded = (
        base
        if isinstance(base, FrozenModel)
        else load_base(
            base,
            revision=revision,
            precision=train.precision,
            device=train.device,
            weights=train.weights,
            recompute=train.recompute,
        )
    )
    length = choose_length(
        prefix,
        loaded,
        # The file of the start may have gone or changed since: a resume asks the checkpoint.
        prefix_file_length(prefix) if begun is None else begun.settings["plan"]["length"],
    )
    guide = None if teacher is None else Teacher(loaded, teacher)
    max_tokens = choose_max_tokens(
        train, loaded, length if guide is None else max(length, guide.tokens)
    )
    rows = load_data(
        data,
        validation,
        tokenizer=loaded.tokenizer,
        prompt=prompt,
        target=target,
        labels=labels,
        max_tokens=max_tokens,
        window=loaded.window,
        seed=train.seed,
    )
    chosen = plan(
        prefix,
        train,
        rows,
        length=length,
        max_tokens=max_tokens,
        labels=labels,
        distilled=guide is not None,
    )
    if on_plan is not None:
        on_plan(chosen, rows.report, loaded)
    setting = Setting(
        loaded,
        rows,
        chosen,
        prefix,
        train,
        task,
        prompt,
        tuple(labels),
        tuple(stop),
        licence,
        guide,
        processes,
    )
    if begun is not None:
        # A resume that is refused is refused now, before anything is computed or written.
        setting = _as_begun(setting, begun, run, search_s)
        begun.require_same(run_settings(setting), run.checkpoint_path)
    if guide is not None:
        guide.prepare([*setting.visited, *setting.held_out], run, on_teacher)
    start = None if begun is None else start_of(begun.tensors)
    if begun is None and _is_open(setting):
        setting, start = choose(setting, on_measured)
    if on_choice is not None and setting.choice is not None:
        on_choice(Choice.from_json(setting.choice))
    if begun is None and search_s:
        setting, start = _searched(setting, run, search_s, progress), None
    return _run(setting, run, progress=progress, begun=begun, start=start)


def _run(
    setting: Setting,
    run: RunFolder,
    *,
    progress: ProgressCallback | None,
    begun: Checkpoint | None = None,
    start: Mapping[str, Tensor] | None = None,
) -> TrainResult:
    base, train = setting.base, setting.train
    settings = run_settings(setting)
    before = base.fingerprint()
    if start is None:
        start = start_tensors(setting, measured_units(setting))
    parametrisation = parametrisation_of(setting, start)
    baseline = _baseline(setting)
    # A bad name is refused now, not after the first validation.
    Prefix(name=setting.task, base=base.identity, layers=prefix_layers(parametrisation.prefix()))
    if begun is None:
        # Not before: the start may be the very prefix of the run that is replaced.
        setting.processes.wait()
        run.reset(keep_teacher=setting.teacher is not None, keep_trials=setting.search is not None)
    run.write_facts(run_facts(setting, settings, baseline))
    job = Job(
        base=base,
        data=setting.data,
        held_out=setting.held_out,
        plan=setting.plan,
        train=train,
        objective=setting.objective,
        parametrisation=parametrisation,
        optimiser=NAdamW(
            parametrisation.parameters(),
            lr=setting.plan.lr,
            value_lr_ratio=train.value_lr_ratio,
            weight_decay=train.weight_decay,
            clip=train.clip,
        ),
        run=run,
        processes=setting.processes,
        settings=settings,
        baseline=baseline,
        start=start,
        save_best=lambda tensors, done: run.write(
            run.prefix_path, packed_prefix(setting, tensors, done).to_bytes()
        ),
        progress=progress,
    )
    with mirrored(run, wanted=train.tensorboard):
        done = train_loop(job, begun)
    if base.fingerprint() != before:
        raise TrainingError(
            "the base's weights changed during training; this is a bug in edgeprefix, please "
            "report it"
        )
    return _finish(setting, run, done, baseline, parametrisation)


def _is_open(setting: Setting) -> bool:
    """Whether start or rate are still to be chosen."""
    return setting.prefix.init == AUTO or setting.train.lr is None


def _as_begun(setting: Setting, begun: Checkpoint, run: RunFolder, search_s: float) -> Setting:
    """The setting with what was chosen when the run began, by measurement or by a search."""
    choice = begun.settings.get("choice")
    if choice is not None and _is_open(setting):
        measured = Choice.from_json(choice)
        init, lr = setting.prefix.init, setting.train.lr
        setting = with_choice(
            setting,
            dataclasses.replace(
                measured,
                init=measured.init if init == AUTO else init,
                lr=measured.lr if lr is None else lr,
            ),
        )
    facts = run.read_facts()
    chosen = chosen_in(facts)
    if chosen is not None:
        return _with(setting, chosen, search=facts["search"])
    if search_s:
        raise TrainingError(
            f"the run in {run.path} began without --search; leave it out, or give --force instead "
            "of --resume to start anew"
        )
    return setting


def _searched(
    setting: Setting, run: RunFolder, budget_s: float, progress: ProgressCallback | None
) -> Setting:
    """The setting with what a search chooses."""
    if setting.processes.count > 1:
        raise TrainingError(
            "--search works in one process; search first, then launch several with what it chose"
        )
    run.reset_trials()
    count = 0

    def attempt(candidate: Candidate) -> float:
        nonlocal count
        count += 1
        short = _with(setting, candidate, steps=trial_steps(setting.plan.steps))
        try:
            return _run(short, run.trial(count), progress=progress).validation_loss
        except TrainingInterrupted as error:
            raise TrainingInterrupted(
                f"interrupted in trial {count} of the search; give the same command again"
            ) from error

    start = Candidate(
        lr=setting.plan.lr, value_lr_ratio=setting.train.value_lr_ratio, init=setting.prefix.init
    )
    others = tuple(init for init in INITS if init != start.init) if start.init in INITS else ()
    found = search(start, attempt, budget_s=budget_s, inits=others)
    return _with(setting, found.chosen, search=found.to_json())


def _with(
    setting: Setting,
    candidate: Candidate,
    *,
    steps: int | None = None,
    search: Mapping[str, Any] | None = None,
) -> Setting:
    """The setting with a candidate's values; with `steps`, as a trial that is measured once, at its
    end.
    """
    plan = dataclasses.replace(setting.plan, lr=candidate.lr)
    train = dataclasses.replace(setting.train, value_lr_ratio=candidate.value_lr_ratio)
    if steps is not None:
        plan = dataclasses.replace(plan, steps=steps, validate_every=steps, metric="loss")
        train = dataclasses.replace(train, tensorboard=False)
    setting = with_start(dataclasses.replace(setting, plan=plan, train=train), candidate.init)
    return dataclasses.replace(setting, search=search)


def _baseline(setting: Setting) -> dict[str, float]:
    """The base alone on the validation rows."""
    with memory_errors("when the base alone read the validation rows: lower --max-tokens"):
        loss, metric = setting.objective.measure([], setting.held_out)
    return (
        {"validation_loss": loss, setting.plan.metric: metric}
        if setting.plan.metric != "loss"
        else {"validation_loss": loss}
    )


def _finish(
    setting: Setting,
    run: RunFolder,
    done: Progressed,
    baseline: Mapping[str, float],
    parametrisation: Parametrisation,
) -> TrainResult:
    metric = setting.plan.metric
    if done.best_loss is None or done.best_metric is None:
        raise TrainingError(
            "training ended without a validation; this is a bug in edgeprefix, please report it"
        )
    result = TrainResult(
        run=run.path,
        prefix_path=run.prefix_path,
        base=setting.base.identity,
        plan=setting.plan,
        report=setting.data.report,
        best_step=done.best_step,
        steps=done.step,
        metric_name=metric,
        metric=done.best_metric,
        base_metric=baseline["validation_loss" if metric == "loss" else metric],
        validation_loss=done.best_loss,
        base_validation_loss=baseline["validation_loss"],
        parameters=sum(tensor.numel() for tensor in parametrisation.parameters().values()),
        seconds=done.seconds,
        tokens_per_s=done.tokens / max(done.seconds, 1e-9),
    )
    run.write_facts({**run.read_facts(), "result": _result_facts(result)})
    _draw(setting, run, done)
    return result


def _draw(setting: Setting, run: RunFolder, done: Progressed) -> None:
    """Writes the curve; without matplotlib the result stands without it."""
    try:
        curve = draw_curve(
            run.read_metrics(),
            title=setting.task,
            metric=setting.plan.metric,
            best_step=done.best_step,
        )
    except MissingExtraError as error:
        logger.warning("%s", error)
    else:
        run.write(run.curve_path, curve)


def _result_facts(result: TrainResult) -> dict[str, Any]:
    names = (
        "best_step",
        "steps",
        "metric_name",
        "metric",
        "base_metric",
        "validation_loss",
        "base_validation_loss",
        "parameters",
        "seconds",
        "tokens_per_s",
    )
    return {name: getattr(result, name) for name in names} | {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    }
