"""The progress of the export commands: a bar with one step a stage on a terminal, elsewhere a line
now and then of what takes minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskID, TimeElapsedColumn

from edgeprefix.cli.terminal import terminal, text_column
from edgeprefix.export.bundle import STAGES, silent
from edgeprefix.export.bundle import Progress as Report

_A_WHILE_S = 10.0


@contextmanager
def stage_bar(quiet: bool) -> Iterator[Report]:
    """A bar with one step a stage, or lines."""
    console = terminal(stderr=True)
    if quiet:
        yield silent
        return
    if not console.is_terminal:
        yield _Lines(console.print)
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


class _Lines:
    """A line for each tenth of a stage that has taken a while."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._stage, self._began = "", 0.0
        self._told = 0

    def __call__(self, stage: str, done: float) -> None:
        if stage != self._stage:
            self._stage, self._began, self._told = stage, time.monotonic(), 0
        tenths, seconds = int(10 * done), time.monotonic() - self._began
        if tenths > self._told and seconds > _A_WHILE_S:
            self._told = tenths
            self._write(f"{stage} {10 * tenths}% after {seconds:.0f} s")
