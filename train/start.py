"""What a run starts from, as named tensors: computed once, then kept in every checkpoint, so that a
resume needs neither the file that it came from nor to measure anything again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from edgeprefix.train.initialise import start_embeddings, start_prefix
from edgeprefix.train.parametrisation import Direct, Parametrisation, PromptTuned, Reparametrised
from edgeprefix.train.setting import Setting
from edgeprefix.train.units import Unit, measure_units

_EMBEDDING = "start.embedding"


def measured_units(setting: Setting) -> list[Unit]:
    """Each layer's units; none for prompt tuning, which needs none."""
    if setting.prefix.prompt_tuning:
        return []
    return measure_units(
        setting.base, setting.data.train, length=setting.plan.length, seed=setting.train.seed
    )


def start_tensors(setting: Setting, units: Sequence[Unit]) -> dict[str, Tensor]:
    """Input embeddings [P, width] for prompt tuning; else each layer's first keys and values
    [H, P, D] and its units.

    Raises what `start_prefix` raises.
    """
    base, examples, seed = setting.base, setting.data.train, setting.train.seed
    length = setting.plan.length
    if setting.prefix.prompt_tuning:
        start = start_embeddings(base, setting.prefix, length=length, examples=examples, seed=seed)
        return {_EMBEDDING: start}
    prefix = start_prefix(
        base, setting.prefix, length=length, examples=examples, units=units, seed=seed
    )
    tensors = {}
    for index, ((key, value), unit) in enumerate(zip(prefix, units, strict=True)):
        tensors[f"start.key.{index}"], tensors[f"start.value.{index}"] = key, value
        tensors[f"start.key_unit.{index}"] = unit.key
        tensors[f"start.value_unit.{index}"] = torch.tensor(unit.value, dtype=torch.float64)
    return tensors


def start_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The start among a checkpoint's tensors."""
    return {name: tensor for name, tensor in tensors.items() if name.startswith("start.")}


def parametrisation_of(setting: Setting, start: Mapping[str, Tensor]) -> Parametrisation:
    """What the optimiser moves, at its beginning."""
    tensors = {name: tensor.to(setting.base.device) for name, tensor in start.items()}
    if setting.prefix.prompt_tuning:
        return PromptTuned(setting.base, tensors[_EMBEDDING])
    layers = range(len(setting.base.layers))
    prefix = [(tensors[f"start.key.{index}"], tensors[f"start.value.{index}"]) for index in layers]
    units = [
        Unit(tensors[f"start.key_unit.{index}"], float(tensors[f"start.value_unit.{index}"]))
        for index in layers
    ]
    if not setting.prefix.reparam:
        return Direct(prefix, units, sink=setting.prefix.sink)
    return Reparametrised(
        prefix,
        units,
        width=setting.prefix.mlp_width,
        sink=setting.prefix.sink,
        generator=torch.Generator().manual_seed(setting.train.seed + 1),
    )
