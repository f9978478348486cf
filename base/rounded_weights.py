"""Which weights of a model a precision rounds, and how: the one predicate that the trainer, the
exporter and the comparison with torch read.

A weight has one of four roles. The exporter tells it from the graph (what is multiplied, looked up,
gathered), the others from torch's modules (`rounded_weights`); the format follows from role and
shape alone (`format_of`). tests/base/test_rounded_weights.py holds the two sides together.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from edgeprefix.base.rounding import QuantisedFormat, WeightFormat, rounded

SMALLEST_SIDE = 32
"""Narrower matrices (most routers') stay as they are: they are cheap, and their errors are not."""

_SMALLEST_EXPERT_BLOCK = 16  # of GatherBlockQuantized
_MORE_TABLES = ("embed_tokens_per_layer",)  # of Gemma 3n and 4, looked up by token ids as well
_AT_ONCE = 1 << 24  # numbers


class Role(enum.Enum):
    """What a weight does in a model."""

    PROJECTION = "projection"
    """Multiplies hidden states: [K, N], or [N, K]. A router is one."""
    HEAD = "head"
    """The vocabulary projection."""
    EMBEDDING = "embedding"
    """A table that is looked up by token ids, tied to the head or not."""
    EXPERTS = "experts"
    """[E, N, K], of which those that a token has chosen are gathered."""


def format_of(role: Role, shape: Sequence[int], form: QuantisedFormat) -> WeightFormat | None:
    """How a weight of that role and shape is rounded in `form`, None when it stays as it is."""
    if min(shape[-2:]) < SMALLEST_SIDE:
        return None
    if role is Role.EXPERTS:
        return _expert_format(form.body, shape[-1])
    return form.body if role is Role.PROJECTION else form.head


def _expert_format(form: WeightFormat, features: int) -> WeightFormat | None:
    """Blocks that divide K: GatherBlockQuantized cannot cut off what is padded."""
    block = form.block
    while block > _SMALLEST_EXPERT_BLOCK and features % block:
        block //= 2
    return None if features % block else dataclasses.replace(form, block=block)


@dataclass(frozen=True, eq=False)
class RoundedWeight:
    """A parameter of a torch module that a precision rounds."""

    module: nn.Module
    name: str
    role: Role
    format: WeightFormat

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter itself; that of a tied embedding is the head's."""
        found: nn.Parameter = getattr(self.module, self.name)
        return found

    def numbers(self, weight: Tensor, *, in_place: bool = False) -> Tensor:
        """`weight` (the parameter's numbers) as a bundle computes with it, in fp32. In place only
        what is fp32 already.
        """
        columns = isinstance(self.module, Conv1D)  # which keeps it as [K, N]
        rows = weight.T if columns else weight.flatten(0, -2)
        found = rounded_rows(rows, self.format, out=rows if in_place else None)
        return found.T if columns else found.view(weight.shape)


def rounded_weights(model: Any, form: QuantisedFormat) -> Iterator[RoundedWeight]:
    """Every weight of a causal language model that is rounded in `form`; a tied one is named twice,
    as embedding and as head.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    for path, module in model.named_modules():
        table = module is embedding or path.rpartition(".")[2] in _MORE_TABLES
        for name, parameter in module.named_parameters(recurse=False):
            role = _role(module, name, parameter, head=module is head, table=table)
            own = None if role is None else format_of(role, parameter.shape, form)
            if role is not None and own is not None:
                yield RoundedWeight(module, name, role, own)


def _role(
    module: nn.Module, name: str, parameter: Tensor, *, head: bool, table: bool
) -> Role | None:
    """A parameter's role, None for what is no matrix that the graph multiplies, looks up or
    gathers.
    """
    if isinstance(module, nn.Embedding):
        return Role.EMBEDDING if table else None  # tables of positions stay as they are
    if name == "weight" and parameter.dim() == 2:
        return Role.HEAD if head else Role.PROJECTION
    # transformers marks the classes whose experts can be gathered with what they look like
    if parameter.dim() == 3 and hasattr(module, "is_transposed"):
        return Role.EXPERTS
    return None


@torch.no_grad()
def rounded_rows(weight: Tensor, form: WeightFormat, *, out: Tensor | None = None) -> Tensor:
    """Rounds a weight [N, K] along K, some rows at a time; fp32, on the weight's device."""
    if out is None:
        out = torch.empty(weight.shape, device=weight.device)
    count = max(1, _AT_ONCE // weight.shape[1])
    for start in range(0, len(weight), count):
        rows = weight[start : start + count].detach().float().cpu().numpy()
        out[start : start + count] = torch.from_numpy(rounded(np.ascontiguousarray(rows.T), form)).T
    return out
