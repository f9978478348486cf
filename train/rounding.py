"""The base's weights as a quantised bundle holds them, so that a prefix can be trained on what it
will meet.

Every projection is rounded in the format that `export decoder --precision` uses
(base/rounding.py) and put back as plain numbers. What is not modelled: the kernels
also round activations to 8 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from edgeprefix.base.rounding import FORMATS, SMALLEST_SIDE, rounded

WEIGHTS = ("checkpoint", *FORMATS)


@torch.no_grad()
def round_weights(model: Any, weights: str) -> None:
    """Rounds a model's projections in place to `weights`, "int8" or "int4"; a tied embedding is
    rounded with the head.
    """
    head = model.get_output_embeddings()
    form = FORMATS[weights]
    for module in model.modules():
        if not isinstance(module, nn.Linear | Conv1D) or min(module.weight.shape) < SMALLEST_SIDE:
            continue
        weight = module.weight.detach().float()
        columns = weight.numpy() if isinstance(module, Conv1D) else weight.T.numpy()  # [K, N]
        numbers = torch.from_numpy(
            rounded(np.ascontiguousarray(columns), form.head if module is head else form.body)
        )
        module.weight.copy_(numbers if isinstance(module, Conv1D) else numbers.T)
