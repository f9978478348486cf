"""The training loop: steps, validations, checkpoints; stops on Ctrl-C, on a loss that is no number,
and when patience ends; begins anew with a smaller rate when it has become worse than the base alone
(guard.py).

A checkpoint is written after every validation and on Ctrl-C, always between two steps, so that a
resumed run walks exactly the path that the uninterrupted one would have walked.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from edgeprefix.runtime.errors import TrainingDiverged, TrainingInterrupted
from edgeprefix.train.batches import Batches, groups_of_like_length
from edgeprefix.train.checkpoint import Checkpoint, Progressed, checkpoint_bytes
from edgeprefix.train.config import TrainConfig
from edgeprefix.train.data import Example, TrainingData
from edgeprefix.train.defaults import Plan
from edgeprefix.train.evaluate import HIGHER_IS_BETTER
from edgeprefix.train.guard import (
    EARLY_STEP,
    MOST_SETBACKS,
    rate_left,
    worse_early,
    worse_validated,
)
from edgeprefix.train.memory import memory_errors
from edgeprefix.train.model import FrozenModel
from edgeprefix.train.objective import Objective
from edgeprefix.train.optimiser import NAdamW, schedule
from edgeprefix.train.parametrisation import Parametrisation, PrefixTensors, fold, load_parameters
from edgeprefix.train.processes import Processes
from edgeprefix.train.record import RunFolder

logger = logging.getLogger(__name__)

# Rows of a step are read in groups of like length of about so many tokens. Smaller groups save
# memory, and padding where rows are not packed; larger ones fill the machine
# (benchmarks/training/groups.py; the GPU's number was not measured).
_PACKED_TOKENS, _CPU_TOKENS, _GPU_TOKENS = 1024, 512, 8192


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a progress callback gets after every step."""

    step: int
    steps: int
    loss: float
    """Training loss of this step, nats per target token."""
    tokens_per_s: float
    seconds_left: float
    validation_loss: float | None
    """Of the latest validation."""
    metric_name: str
    metric: float | None
    """Of the latest validation."""
    validated_step: int | None = None
    """When the latest validation was."""
    best_step: int


ProgressCallback = Callable[[Progress], None]


@dataclass(kw_only=True)
class Job:
    """All that the loop works with."""

    base: FrozenModel
    data: TrainingData
    held_out: Sequence[Example]
    """The validation rows that are measured."""
    plan: Plan
    train: TrainConfig
    objective: Objective
    parametrisation: Parametrisation
    optimiser: NAdamW
    run: RunFolder
    processes: Processes
    settings: Mapping[str, Any]
    """What a resume must find unchanged."""
    baseline: Mapping[str, float]
    """The base alone on the validation rows."""
    start: Mapping[str, Tensor]
    """What the parametrisation was made from (`start_tensors`), for the checkpoint."""
    save_best: Callable[[PrefixTensors, Progressed], None]
    progress: ProgressCallback | None
    progressed: Progressed = field(default_factory=Progressed)
    latest: dict[str, float] = field(default_factory=dict)
    validated_step: int | None = None
    """When `latest` was validated, in this session."""
    first: dict[str, Tensor] = field(default_factory=dict)
    """The parameters as they were before the first step."""


def train_loop(job: Job, checkpoint: Checkpoint | None) -> Progressed:
    """Runs a job, or goes on from a checkpoint, to its end and gives its counters.

    Raises TrainingInterrupted on Ctrl-C, TrainingDiverged when a loss is no number, CapacityError
    when memory runs out, OutputError when a file cannot be written. The best prefix and the last
    checkpoint are in the run folder in every case.
    """
    _begin(job, checkpoint)
    plan = job.plan
    batches = Batches(
        job.data.train,
        batch_size=plan.batch_size,
        seed=job.train.seed,
        prompt_dropout=plan.prompt_dropout,
    )
    clock = _Clock(job)
    losses: list[float] = []
    with _interrupt_flag() as interrupted:
        while job.progressed.step < job.plan.steps and not _out_of_patience(job):
            losses.append(_guarded_step(job, batches))
            step = job.progressed.step
            clock.stop()
            last = step == job.plan.steps
            if step % job.train.log_every == 0 or last:
                _log_step(job, losses, clock)
                losses = []
            if step % job.plan.validate_every == 0 or last:
                _validate(job)
            _report(job, losses or [job.latest["loss"]], clock)
            if _ruined(job):
                _begin_anew(job)
                clock, losses = _Clock(job), []
            if job.processes.any(interrupted.is_set(), job.base.device):
                _stop_here(job)
            clock.start()
    return job.progressed


def _begin(job: Job, checkpoint: Checkpoint | None) -> None:
    parameters = job.parametrisation.parameters()
    job.first = {name: tensor.detach().clone() for name, tensor in parameters.items()}
    if checkpoint is not None:
        job.progressed = checkpoint.progressed
        load_parameters(job.parametrisation, checkpoint.tensors)
        job.optimiser.load_state(checkpoint.tensors)
        job.run.start_metrics(keep_until=job.progressed.step)
    else:
        job.run.start_metrics(keep_until=-1)
        _save_last(job)


def _ruined(job: Job) -> bool:
    """Whether the run is worse than the base alone and may begin anew: with a rate that was asked
    for, or after several times, it goes on and says so.
    """
    done, plan = job.progressed, job.plan
    if done.step == plan.steps:
        return False
    if done.step == plan.validate_every:
        worse = worse_validated(plan, job.latest, job.baseline)
    elif done.step == EARLY_STEP < plan.validate_every:
        worse = worse_early(plan, done.early, job.baseline)
    else:
        return False
    if not worse:
        return False
    fixed = job.train.lr is not None
    if fixed or done.setbacks == MOST_SETBACKS:
        logger.warning(
            "at step %d the prefix is worse than the base alone%s",
            done.step,
            f": give a smaller --lr than {plan.lr:g}, or leave it out" if fixed else "",
        )
        return False
    return True


def _begin_anew(job: Job) -> None:
    """Back to the start with a smaller rate; the metrics and the best prefix so far are of no
    use.
    """
    done = job.progressed
    rate = job.plan.lr * rate_left(done.setbacks + 1)
    logger.warning(
        "at step %d the prefix is worse than the base alone: back to the start, with a learning "
        "rate of %.3g",
        done.step,
        rate,
    )
    job.progressed = Progressed(
        setbacks=done.setbacks + 1, tokens=done.tokens, seconds=done.seconds
    )
    job.latest, job.validated_step = {}, None
    load_parameters(job.parametrisation, job.first)
    job.optimiser.forget()
    job.run.start_metrics(keep_until=-1)
    _save_last(job)


def _guarded_step(job: Job, batches: Batches) -> float:
    """One optimiser step; turns running out of memory and a loss that is no number into errors that
    say what to do.
    """
    with memory_errors(
        f"at step {job.progressed.step + 1} with batch size {job.plan.batch_size} and prefix "
        f"length {job.plan.length}: lower --batch-size (and raise --accumulation to keep their "
        "product), or give --recompute; the last checkpoint is kept"
    ):
        loss = _step(job, batches)
    if not math.isfinite(loss):
        raise TrainingDiverged(
            f"the loss became {loss} at step {job.progressed.step + 1} (learning rate "
            f"{job.plan.lr:g}): training stopped; "
            f"{_kept(job)}; lower --lr, or set --clip 1"
        )
    job.progressed.step += 1
    if job.progressed.step <= EARLY_STEP:
        job.progressed.early.append(loss)
    return loss


def _step(job: Job, batches: Batches) -> float:
    """Forward, backward, update; the mean loss over the step's rows. Nothing is updated when it is
    no number.
    """
    step, parts = job.progressed.step, job.train.accumulation
    chosen = [batches.examples(step * parts + part) for part in range(parts)]
    whole = sum(job.objective.weight(examples) for examples in chosen)
    job.optimiser.zero_gradients()
    prefix = _dropped(job.parametrisation.prefix(), job.plan.dropout, seed=(job.train.seed, step))
    leaves = [
        (key.detach().requires_grad_(), value.detach().requires_grad_()) for key, value in prefix
    ]
    total = torch.zeros((), device=job.base.device)
    tokens = _group_tokens(job.base)
    for examples in chosen:
        job.progressed.tokens += sum(example.length - 1 for example in examples)
        mine = job.processes.share(sorted(examples, key=lambda example: example.length))
        for group in groups_of_like_length(mine, tokens):
            loss = job.objective.loss(leaves, group) * (job.objective.weight(group) / whole)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
    _backward(prefix, leaves)
    job.processes.sum_in_place([*job.optimiser.gradients(), total])
    if math.isfinite(float(total)) and math.isfinite(job.optimiser.gradient_norm()):
        job.optimiser.step(step + 1, _rate_share(job, step))
        return float(total)
    return math.nan


def _rate_share(job: Job, step: int) -> float:
    """Share of the plan's learning rate at a step."""
    factor = schedule(step, steps=job.plan.steps, warmup=job.train.warmup)
    return factor * rate_left(job.progressed.setbacks)


def _group_tokens(base: FrozenModel) -> int:
    if base.route == "packed":
        return _PACKED_TOKENS
    return _CPU_TOKENS if base.device.type == "cpu" else _GPU_TOKENS


def _backward(prefix: PrefixTensors, leaves: PrefixTensors) -> None:
    """Hands the gradients that the groups summed in `leaves` on to the parameters."""
    pairs = zip(itertools.chain(*prefix), itertools.chain(*leaves), strict=True)
    reached = [(tensor, leaf.grad) for tensor, leaf in pairs if leaf.grad is not None]
    if reached:  # a process without rows in this step has none
        torch.autograd.backward(
            [tensor for tensor, _ in reached], [gradient for _, gradient in reached]
        )


def _dropped(prefix: PrefixTensors, share: float, *, seed: tuple[int, int]) -> PrefixTensors:
    """Hides a share of each head's keys, and of its values, by noise that follows from seed and
    step alone; scales the rest up.

    Whole positions: zeroing single entries drowns the faint signal of labels (measured,
    docs/lab/training-few-rows.md).
    """
    if not share:
        return prefix
    generator = torch.Generator().manual_seed(hash(seed) % (1 << 63))

    def mask(like: Tensor) -> Tensor:
        kept = torch.rand(*like.shape[:2], 1, generator=generator) >= share
        return kept.to(like.device) / (1 - share)

    return [(key * mask(key), value * mask(value)) for key, value in prefix]


def _validate(job: Job) -> None:
    """Measures, keeps the prefix when it is the best so far, and writes a checkpoint."""
    prefix = fold(job.parametrisation)
    with memory_errors(
        f"in the validation at step {job.progressed.step} with prefix length {job.plan.length}: "
        "lower --max-tokens or --length; the last checkpoint is kept"
    ):
        loss, metric = job.objective.measure(prefix, job.held_out)
    if not math.isfinite(loss):
        raise TrainingDiverged(
            f"the validation loss became {loss} at step {job.progressed.step}: training stopped; "
            f"{_kept(job)}; lower --lr"
        )
    measured = {"validation_loss": loss}
    if job.plan.metric != "loss":
        measured[job.plan.metric] = metric
    job.latest |= measured
    job.validated_step = job.progressed.step
    job.run.add_metrics({"step": job.progressed.step, **measured})
    if _better(job, metric, loss):
        job.progressed.best_step = job.progressed.step
        job.progressed.best_metric, job.progressed.best_loss = metric, loss
        job.progressed.validations_without_gain = 0
        job.save_best(prefix, job.progressed)
    else:
        job.progressed.validations_without_gain += 1
    _save_last(job)


def _better(job: Job, metric: float, loss: float) -> bool:
    """By the metric; between equals, by the loss."""
    best = job.progressed
    if best.best_metric is None or best.best_loss is None:
        return True
    sign = 1 if HIGHER_IS_BETTER[job.plan.metric] else -1
    return (sign * metric, -loss) > (sign * best.best_metric, -best.best_loss)


def _out_of_patience(job: Job) -> bool:
    return (
        bool(job.train.patience) and job.progressed.validations_without_gain >= job.train.patience
    )


def _save_last(job: Job) -> None:
    tensors = job.parametrisation.parameters() | job.optimiser.state() | dict(job.start)
    job.run.write(
        job.run.checkpoint_path,
        checkpoint_bytes(tensors, progressed=job.progressed, settings=job.settings),
    )


def _stop_here(job: Job) -> None:
    """Ctrl-C: keep everything, then say how to go on."""
    _save_last(job)
    raise TrainingInterrupted(
        f"interrupted at step {job.progressed.step} of {job.plan.steps}; nothing is lost: "
        f"give the same command with --resume to go on ({job.run.path})"
    )


def _kept(job: Job) -> str:
    if not job.progressed.best_step:
        return "no validation had come yet, so no prefix was kept"
    return f"the best prefix so far (step {job.progressed.best_step}) is kept in {job.run.path}"


class _Clock:
    """Time spent in steps (validations do not count) and what follows from it."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._first_step, self._first_tokens = job.progressed.step, job.progressed.tokens
        self._seconds = 0.0
        self.start()

    def start(self) -> None:
        self._began = time.perf_counter()

    def stop(self) -> None:
        passed = time.perf_counter() - self._began
        self._seconds += passed
        self._job.progressed.seconds += passed

    @property
    def tokens_per_s(self) -> float:
        return (self._job.progressed.tokens - self._first_tokens) / max(self._seconds, 1e-9)

    @property
    def seconds_left(self) -> float:
        done = self._job.progressed.step - self._first_step
        return self._seconds / max(done, 1) * (self._job.plan.steps - self._job.progressed.step)


def _log_step(job: Job, losses: Sequence[float], clock: _Clock) -> None:
    job.latest["loss"] = sum(losses) / len(losses)
    job.run.add_metrics(
        {
            "step": job.progressed.step,
            "loss": job.latest["loss"],
            "lr": job.plan.lr * _rate_share(job, job.progressed.step - 1),
            "tokens_per_s": round(clock.tokens_per_s, 1),
        }
    )


def _report(job: Job, losses: Sequence[float], clock: _Clock) -> None:
    if job.progress is None:
        return
    job.progress(
        Progress(
            step=job.progressed.step,
            steps=job.plan.steps,
            loss=losses[-1],
            tokens_per_s=clock.tokens_per_s,
            seconds_left=clock.seconds_left,
            validation_loss=job.latest.get("validation_loss"),
            metric_name=job.plan.metric,
            metric=job.latest.get(
                "validation_loss" if job.plan.metric == "loss" else job.plan.metric
            ),
            validated_step=job.validated_step,
            best_step=job.progressed.best_step,
        )
    )


@contextlib.contextmanager
def _interrupt_flag() -> Iterator[threading.Event]:
    """Ctrl-C sets a flag that the loop reads between steps; a second Ctrl-C stops at once (the last
    checkpoint stays).
    """
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag  # signals belong to the main thread; there Ctrl-C keeps its own meaning
        return
    before = signal.getsignal(signal.SIGINT)

    def note(_: int, __: Any) -> None:
        flag.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)
