"""How much of everything a run of the demo does: rows, steps, requests. Chosen to fit five minutes
on two quiet cores.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgeprefix.demo.tasks import DemoTask, Sizes


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One task's rows and training."""

    rows: Sizes
    steps: int
    batch_size: int = 16
    length: int = 100
    """P, positions; less when the base has few."""
    lr: float | None = None
    """Learning rate; None is the trainer's own choice."""
    dropout: float | None = None
    """Share of positions hidden in each step; None is the trainer's own choice."""
    log_every: int = 5
    """Steps between points of the loss curve."""


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """What the measuring process does."""

    samples: int = 4
    """Test rows shown per task."""
    mixed: int = 24
    """Requests in the mixed batch."""
    latency: int = 45
    """Requests run one after another."""
    swaps: int = 3000
    loads: int = 60


_RECIPES = {
    "trails": Recipe(rows=Sizes(train=4000, validation=64, test=100), steps=320),
    "triage": Recipe(rows=Sizes(train=4000, validation=64, test=200), steps=300, dropout=0.2),
    "polite": Recipe(rows=Sizes(train=4000, validation=64, test=100), steps=380),
}
_QUICK_ROWS = Sizes(train=64, validation=12, test=12)
_QUICK = Amounts(samples=2, mixed=6, latency=6, swaps=200, loads=6)


def recipe_for(task: DemoTask, *, quick: bool) -> Recipe:
    """A task's recipe; a quick one runs every stage, too briefly to learn much."""
    recipe = _RECIPES[task.name]
    return (
        replace(recipe, rows=_QUICK_ROWS, steps=6, batch_size=8, length=16, log_every=1)
        if quick
        else recipe
    )


def amounts(*, quick: bool) -> Amounts:
    """How much is measured."""
    return _QUICK if quick else Amounts()
