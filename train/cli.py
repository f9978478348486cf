"""`edgeprefix train`: options in, a progress bar while it runs, a summary at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn
from rich.table import Table

from edgeprefix.cli.flags import flag, flags_from
from edgeprefix.cli.terminal import terminal, text_column
from edgeprefix.runtime.contracts.generation_options import GenerationOptions
from edgeprefix.runtime.contracts.prompt import unescaped
from edgeprefix.runtime.errors import DataError
from edgeprefix.train.chat import (
    CONVERSATION_PROMPT,
    chat_prompt,
    conversation_rows,
    holds_conversations,
)
from edgeprefix.train.choice import Choice
from edgeprefix.train.config import PrefixConfig, TrainConfig
from edgeprefix.train.data import DataReport
from edgeprefix.train.defaults import Plan
from edgeprefix.train.loop import Progress as Step
from edgeprefix.train.model import FrozenModel
from edgeprefix.train.processes import join_processes
from edgeprefix.train.progress_lines import ProgressLines, duration, step_facts
from edgeprefix.train.sources import TARGET, DataSource
from edgeprefix.train.trainer import DEFAULT_PROMPT, TrainResult, train_prefix

train_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@train_app.command(help="Learn a prefix for a task over a frozen base.")
@flags_from(prefix=PrefixConfig, training=TrainConfig)
def train(
    *,
    base: Annotated[str, typer.Option(help="Folder of a checkpoint, a GGUF file, or a hub id.")],
    data: Annotated[
        str,
        typer.Option(
            help=(
                "Training rows: a JSONL or CSV file, or a Hugging Face data set "
                "NAME\\[@CONFIGURATION]\\[:SPLIT]."
            )
        ),
    ],
    task: Annotated[str, typer.Option(help="Name of the task.")],
    out: Annotated[Path, typer.Option(help="The run's folder.")],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a base from the hub.")
    ] = None,
    validation: Annotated[
        str | None, typer.Option(help="Validation rows; a tenth of the data when not given.")
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help=r"Template of the prompt (default: {input}\n); \n is a line break, \t a tab, "
            r"\\ a backslash."
        ),
    ] = None,
    target: Annotated[str, typer.Option(help="Field that holds what is to be learnt.")] = TARGET,
    chat: Annotated[
        bool,
        typer.Option(
            "--chat",
            help="Use the base's chat template: around {input}, or over rows with 'messages'.",
        ),
    ] = False,
    system: Annotated[str | None, typer.Option(help="System message for --chat.")] = None,
    labels: Annotated[
        str, typer.Option(help="Label options of a classification task: a,b,c.")
    ] = "",
    stop: Annotated[list[str] | None, flag(GenerationOptions, "stop", default="none")] = None,
    prefix: dict[str, Any],
    teacher_text: Annotated[
        str | None, typer.Option(help="Long prompt that the prefix shall stand for.")
    ] = None,
    teacher_file: Annotated[Path | None, typer.Option(help="The same from a file.")] = None,
    search: Annotated[
        float, typer.Option(min=0, help="Seconds to spend on trying settings first.")
    ] = 0.0,
    training: dict[str, Any],
    licence: Annotated[str, typer.Option(help="Licence of the prefix, kept in its file.")] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing run.")] = False,
) -> None:
    """Builds the two configurations, trains, and prints the summary."""
    prefix_config, train_config = PrefixConfig(**prefix), TrainConfig(**training)
    rows = _rows(base, data, validation, revision=revision, prompt=prompt, chat=chat, system=system)
    main = join_processes().main
    console = terminal(stderr=True, quiet=not main)
    stops = [unescaped(text) for text in stop or ()]
    with _Display(console, rate_open=train_config.lr is None) as display:
        display.texts(rows.prompt, stops)
        result = train_prefix(
            base,
            rows.train,
            rows.validation,
            revision=revision,
            task=task,
            out=out,
            prefix=prefix_config,
            train=train_config,
            prompt=rows.prompt,
            target=target,
            labels=[label.strip() for label in labels.split(",") if label.strip()],
            stop=stops,
            licence=licence,
            teacher=_teacher(teacher_text, teacher_file),
            search_s=search,
            progress=display.step,
            on_plan=display.plan,
            on_teacher=display.teacher,
            on_measured=display.measured,
            on_choice=display.choice,
            resume=resume,
            force=force,
        )
    if main:
        terminal().print(_summary(result))


class _Rows(NamedTuple):
    """What is trained on, and the template of its prompts."""

    train: DataSource
    validation: DataSource | None
    prompt: str


def _rows(
    base: str,
    data: str,
    validation: str | None,
    *,
    revision: str | None,
    prompt: str | None,
    chat: bool,
    system: str | None,
) -> _Rows:
    if not chat:
        if system is not None:
            raise typer.BadParameter("--system goes with --chat")
        return _Rows(data, validation, DEFAULT_PROMPT if prompt is None else unescaped(prompt))
    if prompt is not None:
        raise typer.BadParameter(
            "--chat makes the prompt from the base's chat template; leave --prompt out, and put "
            "its words into --system"
        )
    if not holds_conversations(Path(data)):
        return _Rows(data, validation, chat_prompt(base, revision=revision, system=system))

    def read(file: str) -> DataSource:
        return conversation_rows(base, Path(file), revision=revision, system=system)

    held_out = None if validation is None else read(validation)
    return _Rows(read(data), held_out, CONVERSATION_PROMPT)


def _teacher(text: str | None, file: Path | None) -> str | None:
    if text is not None and file is not None:
        raise typer.BadParameter("give --teacher-text or --teacher-file, not both")
    if file is None:
        return text
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"teacher file {file} cannot be read: {error}") from error


class _Display:
    """The plan, then a progress bar; where there is no terminal, lines now and then."""

    def __init__(self, console: Console, *, rate_open: bool) -> None:
        self._console = console
        self._rate_open = rate_open
        self._bar = Progress(
            text_column(style="bold"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            text_column("{task.fields[facts]}"),
            console=console,
        )
        self._task = self._bar.add_task("loading", total=None, facts="")
        self._lines = None if console.is_terminal else ProgressLines(self._say)

    def __enter__(self) -> _Display:
        if self._lines is None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._lines is None:
            self._bar.stop()

    def texts(self, prompt: str, stops: Sequence[str]) -> None:
        """Shows the texts as they were understood, line breaks and tabs visible."""
        ends = "".join(f", stop {text!r}" for text in stops)
        self._say(f"prompt {prompt!r}{ends}")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def plan(self, plan: Plan, report: DataReport, base: FrozenModel) -> None:
        self._console.print(_plan_text(plan, report, base, measured=self._rate_open))
        for warning in report.warnings():
            self._console.print("note:", style="yellow", end=" ")
            self._console.print(warning)
        self._bar.update(self._task, description="training", total=plan.steps)

    def teacher(self, done: int, count: int) -> None:
        if self._lines is not None:
            self._lines.teacher(done, count)
        self._bar.update(self._task, description="teacher", completed=done, total=count)

    def measured(self, what: str, loss: float) -> None:
        if self._lines is not None:
            self._lines.measured(what, loss)
        self._bar.update(
            self._task, description="measuring start and rate", facts=f"{what} {loss:.3f}"
        )

    def choice(self, choice: Choice) -> None:
        for line in choice.lines():
            self._say(line)

    def step(self, step: Step) -> None:
        if self._lines is not None:
            self._lines.step(step)
        facts = step_facts(step)
        self._bar.update(
            self._task, description="training", completed=step.step, total=step.steps, facts=facts
        )


def _plan_text(plan: Plan, report: DataReport, base: FrozenModel, *, measured: bool) -> str:
    return (
        f"base {base.identity} · {base.parameters:,} weights, frozen, {base.precision} on "
        f"{base.device}\n"
        f"data {report.train_rows:,} training and {report.validation_rows:,} validation rows"
        f"{' (set apart from the training data)' if report.validation_from_train else ''}; "
        f"tokens median/95 %/longest: prompt {'/'.join(map(str, report.prompt_tokens))}, "
        f"target {'/'.join(map(str, report.target_tokens))}\n"
        f"plan length {plan.length}, start {plan.init}, {plan.steps} steps of {plan.batch_size} "
        "rows, "
        f"learning rate {'at most ' if measured else ''}{plan.lr:.3g}, "
        f"dropout {plan.dropout:.2g} of the prefix and {plan.prompt_dropout:.2g} of prompts, "
        f"objective {plan.objective}, "
        f"best by {plan.metric} every {plan.validate_every} steps"
    )


def _summary(result: TrainResult) -> Table:
    table = Table(title=f"prefix {result.prefix_path}", title_justify="left", show_header=True)
    for column in ("", "base alone", "with prefix"):
        table.add_column(column)
    table.add_row(
        "validation loss", f"{result.base_validation_loss:.4f}", f"{result.validation_loss:.4f}"
    )
    if result.metric_name != "loss":
        table.add_row(
            f"validation {result.metric_name}", f"{result.base_metric:.4f}", f"{result.metric:.4f}"
        )
    table.add_row("best step", "", f"{result.best_step} of {result.steps}")
    table.add_row("trained numbers", "", f"{result.parameters:,}")
    table.add_row("file", "", f"{result.prefix_path.stat().st_size:,} bytes")
    table.add_row(
        "training", "", f"{duration(result.seconds)} · {result.tokens_per_s:,.0f} tokens/s"
    )
    return table
