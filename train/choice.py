"""Start and learning rate where the user left them open: measured on this base, with these rows,
before the first step.

What is best on one base ruins another: noise at a rate of 0.1 is a good beginning over a small base
and destroys Gemma 3 270M (docs/lab/training-tried.md). So every start is asked for its loss, beside
that of the base alone, and how far one step can take it (rate_test.py). The start of the lowest
loss is taken; with labels it is noise, which learns them best, where one step from there is below
the base alone. Everything is seeded; a resume reads the choice from the checkpoint and measures
nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from edgeprefix.train.config import AUTO, PrefixConfig
from edgeprefix.train.parametrisation import Parametrisation, fold
from edgeprefix.train.probe import Probe
from edgeprefix.train.rate_test import STEP_OVER_RATE, FirstStep, falling_rates
from edgeprefix.train.setting import Setting
from edgeprefix.train.start import measured_units, parametrisation_of, start_tensors

STARTS = ("text", "random", "vocab")
_START_OF_LABELS = "random"

OnMeasured = Callable[[str, float], None]
"""Told of every loss that was measured: of what, and how much."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """What was measured, and what was taken for it. Losses are the objective's, on training rows
    set apart for it; lower is better.
    """

    init: str
    lr: float
    base_loss: float
    """Of the base alone."""
    starts: Mapping[str, float]
    """Losses of the starts before any step."""
    rates: Mapping[str, float]
    """Losses after the first step that belongs to a rate (rate_test.py), from the start that was
    taken; empty when both were asked for.
    """

    def to_json(self) -> dict[str, Any]:
        """For run.json, the checkpoint and the prefix file's recipe; a trial that diverged has no
        loss.
        """
        rates = {rate: loss if math.isfinite(loss) else None for rate, loss in self.rates.items()}
        return dataclasses.asdict(self) | {"rates": rates}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Choice:
        """The way back."""
        rates = {rate: math.inf if loss is None else loss for rate, loss in found["rates"].items()}
        return cls(**{**found, "rates": rates})

    def lines(self) -> list[str]:
        """What a user reads: a line for the starts, one for the rates."""
        said = [f"start {_listed(self.starts, self.init)}; base alone {self.base_loss:.3f}"]
        if self.rates:
            taken = _name(self.lr)
            said.append(
                f"rate {_listed(self.rates, taken)}, after one step of {STEP_OVER_RATE:g} times it"
            )
        return said


def choose(
    setting: Setting, on_measured: OnMeasured | None = None
) -> tuple[Setting, dict[str, Tensor]]:
    """The setting with start and rate, and the start's tensors (as `start_tensors` gives them).

    Raises what `start_prefix` raises.
    """
    measuring = _Measuring(setting, on_measured)
    base_loss = measuring.base_loss()
    starts = {init: measuring.start_loss(init) for init in _inits(setting.prefix)}
    lowest = min(starts, key=lambda init: starts[init])
    preferred = _START_OF_LABELS if setting.labels and _START_OF_LABELS in starts else lowest
    for init in dict.fromkeys((preferred, lowest)):
        rates = measuring.rates(init)
        if min(rates.values()) < base_loss:
            break
    choice = Choice(
        init=init,
        lr=min(rates, key=lambda rate: rates[rate]),
        base_loss=base_loss,
        starts=starts,
        rates={_name(rate): loss for rate, loss in rates.items()},
    )
    return with_choice(setting, choice), measuring.start(init)


class _Measuring:
    """What is measured of a setting, told while it goes on."""

    def __init__(self, setting: Setting, on_measured: OnMeasured | None) -> None:
        self._setting = setting
        self._told = on_measured
        self._probe = Probe.of(setting)
        self._units = measured_units(setting)
        self._starts: dict[str, dict[str, Tensor]] = {}

    def start(self, init: str) -> dict[str, Tensor]:
        """A start's tensors, made once."""
        if init not in self._starts:
            self._starts[init] = start_tensors(with_start(self._setting, init), self._units)
        return self._starts[init]

    def base_loss(self) -> float:
        """Of the base alone."""
        return self._tell("base alone", self._probe.loss([]))

    def start_loss(self, init: str) -> float:
        """Of a start before any step."""
        return self._tell(f"start {init}", self._probe.loss(fold(self._at(init))))

    def rates(self, init: str) -> dict[float, float]:
        """The loss after a first step from a start, by rate; at the rate alone that was asked
        for.
        """
        step = FirstStep(
            self._at(init), self._probe, value_lr_ratio=self._setting.train.value_lr_ratio
        )

        def measure(rate: float) -> float:
            return self._tell(f"rate {_name(rate)} from {init}", step.loss(rate))

        if self._setting.train.lr is not None:
            return {self._setting.train.lr: measure(self._setting.train.lr)}
        return falling_rates(self._setting.plan.lr, measure)

    def _at(self, init: str) -> Parametrisation:
        return parametrisation_of(with_start(self._setting, init), self.start(init))

    def _tell(self, what: str, loss: float) -> float:
        if self._told is not None:
            self._told(what, loss)
        return loss


def with_choice(setting: Setting, choice: Choice) -> Setting:
    """The setting with what was chosen."""
    setting = with_start(setting, choice.init)
    plan = dataclasses.replace(setting.plan, lr=choice.lr)
    return dataclasses.replace(setting, plan=plan, choice=choice.to_json())


def with_start(setting: Setting, init: str) -> Setting:
    """The setting with a start; a text that was given for it is of use to a start from text
    alone.
    """
    prefix = dataclasses.replace(
        setting.prefix, init=init, init_text=setting.prefix.init_text if init == "text" else None
    )
    plan = dataclasses.replace(setting.plan, init=init)
    return dataclasses.replace(setting, prefix=prefix, plan=plan)


def _inits(prefix: PrefixConfig) -> tuple[str, ...]:
    """The starts to measure; a text that was given is a start that was asked for."""
    if prefix.init != AUTO:
        return (prefix.init,)
    return STARTS if prefix.init_text is None else ("text",)


def _name(rate: float) -> str:
    return f"{rate:.3g}"


def _listed(losses: Mapping[str, float], taken: str) -> str:
    return ", ".join(
        f"{name} {loss:.3f}{' ←' if name == taken else ''}" for name, loss in losses.items()
    )
