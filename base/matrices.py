"""Which parameters of a model matrices are multiplied by."""

from __future__ import annotations

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D


def is_matrix(module: nn.Module, parameter: torch.Tensor) -> bool:
    """Whether autocast multiplies by this parameter of the module: a projection's weight, or
    experts'.
    """
    if isinstance(module, nn.Linear | Conv1D):
        return parameter.dim() == 2
    return parameter.dim() == 3 and hasattr(module, "is_transposed")
