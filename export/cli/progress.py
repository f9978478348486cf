"""The progress bar of the export commands: one step a stage, on the terminal only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskID, TimeElapsedColumn

from edgeprefix.cli.terminal import terminal, text_column
from edgeprefix.export.bundle import STAGES, silent
from edgeprefix.export.bundle import Progress as Report


@contextmanager
def stage_bar(quiet: bool) -> Iterator[Report]:
    """A bar with one step a stage, on the terminal only."""
    console = terminal(stderr=True)
    if quiet or not console.is_terminal:
        yield silent
        return
    columns = (
        text_column("{task.description:<9}"),
        BarColumn(),
        text_column("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task: TaskID = bars.add_task(STAGES[0], total=len(STAGES))
        yield lambda stage, done: bars.update(
            task, description=stage, completed=STAGES.index(stage) + done
        )
