"""`train_prefix`: data in, prefix file out. Everything between is put together here."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.errors import TrainingError
from edgeprefix.train.checkpoint import Progressed, load_checkpoint
from edgeprefix.train.config import INITS, PrefixConfig, TrainConfig
from edgeprefix.train.data import DataReport, load_data
from edgeprefix.train.defaults import Plan, choose_length, choose_max_tokens, plan
from edgeprefix.train.distill import OnTeacher, Teacher
from edgeprefix.train.facts import packed_prefix, prefix_layers, run_facts, run_settings
from edgeprefix.train.initialise import prefix_file_length, start_embeddings, start_prefix
from edgeprefix.train.loading import load_base
from edgeprefix.train.loop import Job, ProgressCallback, train_loop
from edgeprefix.train.model import FrozenModel
from edgeprefix.train.optimiser import NAdamW
from edgeprefix.train.parametrisation import Direct, Parametrisation, PromptTuned, Reparametrised
from edgeprefix.train.plot import draw_curve
from edgeprefix.train.processes import join_processes
from edgeprefix.train.record import CURVE_FILE, PREFIX_FILE, RunFolder
from edgeprefix.train.search import Candidate, chosen_in, search, trial_steps
from edgeprefix.train.setting import Setting
from edgeprefix.train.sources import TARGET, DataSource
from edgeprefix.train.tensorboard import TensorBoard
from edgeprefix.train.units import measure_units

DEFAULT_PROMPT = "{input}\n"

PlanCallback = Callable[[Plan, DataReport, FrozenModel], None]


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
    """Training time, without loading and validation."""
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
    report before the first step.

    Raises DataError, TemplateError, CheckpointError, OutputError, TrainingError, CapacityError; see
    their texts. On Ctrl-C a TrainingError says how to resume.

    >>> result = train_prefix("base", "train.jsonl", task="e2e", out="run")  # doctest: +SKIP
    >>> result.prefix_path  # doctest: +SKIP
    PosixPath('run/prefix.safetensors')
    """
    prefix, train = prefix or PrefixConfig(), train or TrainConfig()
    processes = join_processes()
    run = RunFolder.open(out, resume=resume, force=force, writes=processes.main)
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
    if train.tensorboard and processes.main:
        run.mirror = TensorBoard(run.path).add
    length = choose_length(prefix, loaded, prefix_file_length(prefix))
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
    prefix = dataclasses.replace(prefix, init=chosen.init)
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
    if guide is not None:
        guide.prepare([*setting.visited, *setting.held_out], run, on_teacher)
    found = _searched(setting, run, search_s, progress, resume=resume)
    return _run(found, run, progress=progress, resume=resume)


def _run(
    setting: Setting, run: RunFolder, *, progress: ProgressCallback | None, resume: bool
) -> TrainResult:
    base, train = setting.base, setting.train
    settings = run_settings(setting)
    # A resume that is refused is refused now, before anything is computed or written.
    checkpoint = load_checkpoint(run.path, settings=settings) if resume else None
    before = base.fingerprint()
    parametrisation = _parametrisation(setting)
    baseline = _baseline(setting)
    # A bad name is refused now, not after the first validation.
    Prefix(name=setting.task, base=base.identity, layers=prefix_layers(parametrisation.prefix()))
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
        save_best=lambda tensors, done: run.write(
            PREFIX_FILE, packed_prefix(setting, tensors, done).to_bytes()
        ),
        progress=progress,
    )
    done = train_loop(job, checkpoint)
    if base.fingerprint() != before:
        raise TrainingError(
            "the base's weights changed during training; this is a bug in edgeprefix, please "
            "report it"
        )
    return _finish(setting, run, done, baseline, parametrisation)


def _searched(
    setting: Setting,
    run: RunFolder,
    budget_s: float,
    progress: ProgressCallback | None,
    *,
    resume: bool,
) -> Setting:
    """The setting with what a search chose: now, or when the run that is resumed began."""
    before = run.read_facts().get("search") if resume else None
    chosen = chosen_in({"search": before})
    if chosen is not None:
        return _with(setting, chosen, search=before)
    if not budget_s:
        return setting
    if setting.processes.count > 1:
        raise TrainingError(
            "--search works in one process; search first, then launch several with what it chose"
        )
    count = 0

    def attempt(candidate: Candidate) -> float:
        nonlocal count
        count += 1
        short = _with(setting, candidate, steps=trial_steps(setting.plan.steps))
        folder = RunFolder(run.path / "search" / str(count))
        return _run(short, folder, progress=progress, resume=False).validation_loss

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
    if steps is not None:
        plan = dataclasses.replace(plan, steps=steps, validate_every=steps, metric="loss")
    train = dataclasses.replace(setting.train, value_lr_ratio=candidate.value_lr_ratio)
    init_text = setting.prefix.init_text if candidate.init == "text" else None
    prefix = dataclasses.replace(setting.prefix, init=candidate.init, init_text=init_text)
    return dataclasses.replace(setting, plan=plan, train=train, prefix=prefix, search=search)


def _parametrisation(setting: Setting) -> Parametrisation:
    train = setting.train
    if setting.prefix.prompt_tuning:
        return PromptTuned(
            setting.base,
            start_embeddings(
                setting.base,
                setting.prefix,
                length=setting.plan.length,
                examples=setting.data.train,
                seed=train.seed,
            ),
        )
    units = measure_units(
        setting.base, setting.data.train, length=setting.plan.length, seed=train.seed
    )
    start = start_prefix(
        setting.base,
        setting.prefix,
        length=setting.plan.length,
        examples=setting.data.train,
        units=units,
        seed=train.seed,
    )
    if setting.prefix.reparam:
        generator = torch.Generator().manual_seed(train.seed + 1)
        return Reparametrised(
            start,
            units,
            width=setting.prefix.mlp_width,
            sink=setting.prefix.sink,
            generator=generator,
        )
    return Direct(start, units, sink=setting.prefix.sink)


def _baseline(setting: Setting) -> dict[str, float]:
    """The base alone on the validation rows."""
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
    curve = draw_curve(
        run.read_metrics(), title=setting.task, metric=metric, best_step=done.best_step
    )
    run.write(CURVE_FILE, curve)
    if done.best_loss is None or done.best_metric is None:
        raise TrainingError(
            "training ended without a validation; this is a bug in edgeprefix, please report it"
        )
    result = TrainResult(
        run=run.path,
        prefix_path=run.file(PREFIX_FILE),
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
    return result


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
