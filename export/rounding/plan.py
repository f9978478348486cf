"""A plan: every matrix of a base in the format that its damage is worth, rounded by what it does to
text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from edgeprefix.base import Base
from edgeprefix.base.rounding import RoundedMatrix, WeightFormat
from edgeprefix.export.rounding.budget import Choice, Offer, choices, within_bytes, within_damage
from edgeprefix.export.rounding.damage import Sensitivity, sensitivities
from edgeprefix.export.rounding.gptq import nearest
from edgeprefix.export.rounding.layerwise import Layerwise, Texts
from edgeprefix.export.rounding.pack import stored_bytes
from edgeprefix.export.rounding.siblings import Siblings
from edgeprefix.runtime.errors import ExportError

FORMATS = (
    WeightFormat(bits=4, block=128, symmetric=False, padding=1 / 8),
    WeightFormat(bits=4, block=64, symmetric=False),
    WeightFormat(bits=4, block=32, symmetric=False),
    WeightFormat(bits=8, block=32),
    WeightFormat(bits=8, block=256),
)
"""What a group may have."""

DEFAULT_BITS = 5.0
"""Mean bits of a body's weights, scales and zero points included, when nothing is asked for."""

_ROUNDS = 3  # of choosing and rounding until a quality is reached
_SHARE_OF_NEAREST = 0.6  # of nearest rounding's damage that is left by rounding with the Hessian

_MARGIN = 1.05  # over what was measured, when it was too much

Progress = Callable[[float], None]
"""Told how much is done, from 0 to 1."""
_MEASURED = 0.2  # of the time is gone when damages are known


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a plan is to keep to. With neither, DEFAULT_BITS decide."""

    body_bytes: int | None = None
    """Largest size of all matrices together."""
    quality: float | None = None
    """Largest perplexity, as a multiple of the base's."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What a group got."""

    layer: int
    matrices: str
    weights: int
    bits: int
    block: int
    bytes: int
    damage: float
    """Expected share of the mean KL, nats."""


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedPlan:
    """Rounded matrices by the names of their parameters, and what was measured on the way."""

    matrices: Mapping[str, RoundedMatrix]
    chosen: tuple[Chosen, ...]
    divergence: float
    """Mean KL to the base, nats, on texts that nothing was fitted to: the matrices rounded, nothing
    else. The kernels' rounding of activations to 8 bits comes on top.
    """

    @property
    def quality(self) -> float:
        """The perplexity on the base's own texts as a multiple of the base's."""
        return math.exp(self.divergence)


def make_plan(base: Base, texts: Texts, goal: Goal, *, progress: Progress) -> FittedPlan:
    """Measures, chooses, rounds; more than once until a goal's quality is reached.

    Raises ExportError when no choice of formats keeps to the goal.
    """
    groups, offers = _offers(base, texts.fitted[0], progress)
    found, factor = choices(offers), 1.0
    for _ in range(_ROUNDS):
        choice = _choose(found, groups, goal, factor)
        plan = _rounded(base, texts, groups, choice, factor, progress)
        if goal.quality is None or plan.quality <= goal.quality:
            return plan
        factor *= plan.divergence / math.log(goal.quality) * _MARGIN
    raise ExportError(
        f"rounding {base.identity.name} costs {plan.quality - 1:.1%} of perplexity after {_ROUNDS} "
        f"tries, more than the {goal.quality:g} times that were asked for; ask for more, or choose "
        "int8"
    )


def _offers(
    base: Base, text: Tensor, progress: Progress
) -> tuple[list[Siblings], list[list[Offer]]]:
    """All groups in the order of the layers, and what each may have."""
    found: list[tuple[Siblings, list[Offer]]] = []
    count = int(base.config.num_hidden_layers)
    for done, layer in enumerate(sensitivities(base.model, text)):
        progress(_MEASURED * done / count)
        found = [(one.group, [_offer(one, form) for form in FORMATS]) for one in layer] + found
    return [group for group, _ in found], [offers for _, offers in found]


def _offer(sensitivity: Sensitivity, form: WeightFormat) -> Offer:
    """A format and what it is expected to damage: what rounding each number by itself would, less
    what fitting saves, and what the kernels do when they round the inputs block by block.
    """
    group = sensitivity.group
    weight = group.weight()
    rounded = nearest(
        weight,
        sensitivity.importance(),
        bits=form.bits,
        block=form.block_for(weight.shape[1]),
        symmetric=form.symmetric,
    )
    size = sum(stored_bytes(form, N, weight.shape[1]) for N in group.rows)
    of_weights = sensitivity.damage(rounded.numbers() - weight)
    of_inputs = sensitivity.damage_of_inputs(weight, rounded.grid.block)
    return Offer(format=form, bytes=size, damage=_SHARE_OF_NEAREST * of_weights + of_inputs)


def _choose(
    found: Sequence[Choice], groups: Sequence[Siblings], goal: Goal, factor: float
) -> Choice:
    if goal.quality is not None:
        choice = within_damage(found, math.log(goal.quality) / factor)
        if choice is None:
            raise ExportError(
                f"no mix of 4 and 8 bits keeps the perplexity within {goal.quality:g} times the "
                f"base's; the best is expected at {math.exp(found[-1].damage * factor):.4f}: ask "
                "for that, or choose int8 or fp32"
            )
        return choice
    weights = sum(math.prod(group.shape) for group in groups)
    limit = round(weights * DEFAULT_BITS / 8) if goal.body_bytes is None else goal.body_bytes
    choice = within_bytes(found, limit)
    if choice is None:
        raise ExportError(
            f"the matrices take {found[0].bytes / 1e6:,.1f} MB in the smallest format, and "
            f"{limit / 1e6:,.1f} MB are left for them; ask for a larger size"
        )
    return choice


def _rounded(
    base: Base,
    texts: Texts,
    groups: Sequence[Siblings],
    choice: Choice,
    factor: float,
    progress: Progress,
) -> FittedPlan:
    formats = {
        group.names: offer.format for group, offer in zip(groups, choice.offers, strict=True)
    }
    run = Layerwise(base.model, texts)
    matrices: dict[str, RoundedMatrix] = {}
    count = int(base.config.num_hidden_layers)
    for done, layer in enumerate(run.layers(lambda group: formats[group.names])):
        matrices |= layer
        progress(_MEASURED + (1 - _MEASURED) * (done + 1) / count)
    chosen = tuple(
        Chosen(
            layer=group.layer,
            matrices=group.label,
            weights=math.prod(group.shape),
            bits=offer.format.bits,
            block=offer.format.block_for(group.shape[1]),
            bytes=offer.bytes,
            damage=offer.damage * factor,
        )
        for group, offer in zip(groups, choice.offers, strict=True)
    )
    return FittedPlan(matrices=matrices, chosen=chosen, divergence=run.divergence())
