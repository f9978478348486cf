"""The base's weights as a quantised bundle holds them, so that a prefix can be trained on what it
will meet.

Every weight that `export decoder --precision` rounds (base/rounded_weights.py) is rounded in the
same format and put back as plain numbers. What is not modelled: the kernels also round activations
to 8 bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgeprefix.base.mapped import give_back
from edgeprefix.base.matrices import is_matrix
from edgeprefix.base.rounded_weights import rounded_weights
from edgeprefix.base.rounding import FORMATS

WEIGHTS = ("checkpoint", *FORMATS)


@torch.no_grad()
def round_weights(model: Any, weights: str, precision: str = "fp32") -> None:
    """Rounds a model's weights to `weights`, "int8" or "int4"; an embedding that is tied to the
    head is rounded once. Matrices that are to be multiplied in `precision` bf16 are kept so.
    """
    done: set[nn.Parameter] = set()
    for weight in rounded_weights(model, FORMATS[weights]):
        parameter = weight.parameter
        if parameter not in done:  # rows of a tied table are rounded the same way in both its roles
            stored = parameter.data
            numbers = weight.numbers(stored)
            half = precision == "bf16" and is_matrix(weight.module, parameter)
            parameter.data = numbers.bfloat16() if half else numbers
            give_back(stored)
            done.add(parameter)
