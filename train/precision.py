"""What the frozen base is multiplied in: fp32, or bf16 where the machine is fast in it."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import nn

from edgeprefix.base.mapped import give_back
from edgeprefix.base.matrices import is_matrix

PRECISIONS = ("auto", "fp32", "bf16")

# "auto" takes bf16 when a product of matrices takes less than this share of its time in fp32
_BF16_SHARE = 0.8


def has_fast_bf16(device: torch.device) -> bool:
    """Whether matrices are multiplied faster in bf16 than in fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    able = device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in probes)
    return able and _bf16_pays()


def _bf16_pays() -> bool:
    """Times products of matrices, in turns, the best of many. What a processor says of itself is
    not enough: one that has bf16 instructions was slower with them (docs/lab/training-speed.md
    fast").
    """
    matrices = {
        dtype: torch.ones(512, 512, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)
    }
    best = dict.fromkeys(matrices, math.inf)
    for _ in range(30):
        for dtype, matrix in matrices.items():
            began = time.perf_counter()
            torch.mm(matrix, matrix)
            best[dtype] = min(best[dtype], time.perf_counter() - began)
    return best[torch.bfloat16] < _BF16_SHARE * best[torch.float32]


@torch.no_grad()
def set_precision(model: Any, precision: str) -> None:
    """Turns a model's weights into fp32, and with "bf16" its matrices into bf16, one after the
    other: a checkpoint in bf16 is never held in fp32 as a whole.

    Matrices are rounded once; autocast would do it anew in every step, since frozen weights are not
    in its cache.
    """
    if precision == "bf16":
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                if is_matrix(module, parameter):
                    frozen = nn.Parameter(parameter.data.to(torch.bfloat16), requires_grad=False)
                    setattr(module, name, frozen)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.dtype != torch.float32 and not (
                precision == "bf16" and is_matrix(module, parameter)
            ):
                stored = parameter.data
                parameter.data = stored.float()
                give_back(stored)
