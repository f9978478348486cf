"""How much of everything a run of the demo does: rows, steps, requests. Chosen to fit, on two quiet
cores, five minutes on the embedded base and fifteen on a base of a few hundred million parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeprefix.demo.tasks import Sizes


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


@dataclass(frozen=True, kw_only=True)
class Programme:
    """All that one run does."""

    recipes: Mapping[str, Recipe]
    """By task."""
    amounts: Amounts = field(default_factory=Amounts)


_WHOLE = Programme(
    recipes={
        "trails": Recipe(rows=Sizes(train=4000, validation=64, test=100), steps=320),
        "triage": Recipe(rows=Sizes(train=4000, validation=64, test=200), steps=300, dropout=0.2),
        "polite": Recipe(rows=Sizes(train=4000, validation=64, test=100), steps=380),
    }
)

# A pretrained base has less to learn, and each step takes it a hundred times as long
_LARGE_PARAMETERS = 50_000_000
_LARGE_RECIPE = Recipe(
    rows=Sizes(train=800, validation=24, test=60), steps=60, batch_size=8, length=40, log_every=2
)
_LARGE = Programme(
    recipes=dict.fromkeys(_WHOLE.recipes, _LARGE_RECIPE),
    amounts=Amounts(mixed=12, latency=15, swaps=1000, loads=20),
)

_QUICK_RECIPE = Recipe(
    rows=Sizes(train=64, validation=12, test=12), steps=6, batch_size=8, length=16, log_every=1
)
_QUICK = Programme(
    recipes=dict.fromkeys(_WHOLE.recipes, _QUICK_RECIPE),
    amounts=Amounts(samples=2, mixed=6, latency=6, swaps=200, loads=6),
)


def programme_for(parameters: int, *, quick: bool) -> Programme:
    """What fits a base of so many parameters; a quick one runs every stage, too briefly to learn
    much.
    """
    if quick:
        return _QUICK
    return _LARGE if parameters >= _LARGE_PARAMETERS else _WHOLE
