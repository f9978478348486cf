"""What is measured: one cell is one method trained once, on one data set, with one seed and one
number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

OURS = (
    "edgeprefix",
    "edgeprefix-int4",
    "edgeprefix-text",
    "edgeprefix-vocab",
    "edgeprefix-mlp",
    "edgeprefix-prompt",
)
PEFT = ("peft-prefix", "peft-prefix-zero", "peft-cartridge-text", "peft-lora")
THROUGH_RUNTIME = ("edgeprefix", "edgeprefix-int4")
METHODS = (*OURS, *PEFT, "full", "few-shot", "base")
FEW = (
    "edgeprefix",
    "peft-prefix",
    "peft-prefix-zero",
    "peft-cartridge-text",
    "peft-lora",
    "full",
    "few-shot",
)

STEPS = {"e2e": 200, "clinc150_domain": 600, "banking77": 400}
FEW_STEPS = {"e2e": 100, "clinc150_domain": 600, "banking77": 400}
FEW_ROWS = (50, 100, 200, 500)
METRIC = {"e2e": "bleu", "clinc150_domain": "accuracy", "banking77": "accuracy"}

# PEFT's and full fine-tuning's peak rates: the best of those that were tried on validation rows
# (benchmarks/training/tries.py).
LEARNING_RATES: dict[tuple[str, str], float] = {("e2e", "peft-lora"): 2e-2}
FEW_RATES: dict[tuple[str, str], dict[int, float]] = {
    ("e2e", "peft-lora"): {50: 1.25e-3, 100: 1.25e-3, 200: 5e-3, 500: 2e-2},
    ("e2e", "full"): {50: 1.25e-4, 100: 1.25e-4, 200: 3e-4, 500: 1e-3},
}
_FALLBACK = {
    "peft-prefix": 1e-1,
    "peft-prefix-zero": 1e-1,
    "peft-cartridge-text": 1e-1,
    "peft-lora": 1e-2,
    "full": 1e-3,
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training; `rows` 0 takes all rows, `lr` 0 the method's own rate, `held_out` 0 the usual
    number of held-out inputs.
    """

    data: str
    method: str
    seed: int
    rows: int
    steps: int
    batch_size: int = 16
    length: int = 100
    lr: float = 0.0
    held_out: int = 0

    @property
    def rate(self) -> float:
        """Peak learning rate of PEFT's methods and of full fine-tuning."""
        few = FEW_RATES.get((self.data, self.method), {}).get(self.rows)
        return (
            self.lr or few or LEARNING_RATES.get((self.data, self.method), _FALLBACK[self.method])
        )

    @property
    def key(self) -> str:
        """What tells it from other cells in a file of results; a method's own rate is that rate,
        asked for or not.
        """
        known = asdict(self) | ({"lr": self.rate} if self.method in _FALLBACK else {})
        return " ".join(f"{name}={value}" for name, value in known.items())

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Cell:
        """The cell of a line of results."""
        return cls(**{name: record[name] for name in cls.__dataclass_fields__ if name in record})


def main_cells(data: str, seeds: int, methods: tuple[str, ...]) -> list[Cell]:
    """All rows."""
    return [
        Cell(data=data, method=method, seed=seed, rows=0, steps=STEPS[data])
        for seed in range(seeds)
        for method in methods
    ]


def few_cells(data: str, seeds: int, methods: tuple[str, ...], counts: Sequence[int]) -> list[Cell]:
    """Few rows."""
    return [
        Cell(data=data, method=method, seed=seed, rows=rows, steps=FEW_STEPS[data])
        for rows in counts
        for seed in range(seeds)
        for method in methods
    ]
