"""Start and learning rate where the user left them open: measured on this base, with these rows,
before the first step.

What is best on one base ruins another: noise at a rate of 0.1 is a good beginning over a small base
and destroys Gemma 3 270M (docs/lab/training-tried.md). So every start is asked for its loss, beside
that of the base alone, and the best one how far it can be moved in one step. Everything is seeded;
a resume reads the choice from the checkpoint and measures nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from edgeprefix.train.config import AUTO, PrefixConfig
from edgeprefix.train.probe import Probe
from edgeprefix.train.rate_test import STEP_OVER_RATE, FirstStep, falling_rates
from edgeprefix.train.setting import Setting
from edgeprefix.train.start import measured_units, parametrisation_of, start_tensors

STARTS = ("text", "begin", "random", "vocab")

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
    taken; empty when a rate was asked for.
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
    probe = Probe.of(setting)

    def told(what: str, loss: float) -> float:
        if on_measured is not None:
            on_measured(what, loss)
        return loss

    units = measured_units(setting)
    base_loss = told("base alone", probe.loss([]))
    losses, tensors = {}, {}
    for init in _inits(setting.prefix):
        at = with_start(setting, init)
        tensors[init] = start_tensors(at, units)
        prefix = parametrisation_of(at, tensors[init]).prefix()
        losses[init] = told(f"start {init}", probe.loss(prefix))
    init = min(losses, key=lambda name: losses[name])
    setting, start = with_start(setting, init), tensors[init]
    rates: dict[float, float] = {}
    if setting.train.lr is None:
        step = FirstStep(
            parametrisation_of(setting, start), probe, value_lr_ratio=setting.train.value_lr_ratio
        )
        rates = falling_rates(setting.plan.lr, lambda lr: told(f"rate {_name(lr)}", step.loss(lr)))
    choice = Choice(
        init=init,
        lr=min(rates, key=lambda rate: rates[rate]) if rates else setting.plan.lr,
        base_loss=base_loss,
        starts=losses,
        rates={_name(rate): loss for rate, loss in rates.items()},
    )
    return with_choice(setting, choice), start


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
