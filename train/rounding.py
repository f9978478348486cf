"""The base's weights as a quantised bundle holds them, so that a prefix can be trained on what it will meet.

Every projection is rounded block by block with ONNX Runtime's own kernels, in the formats that `export decoder --precision` uses
(int8: blocks of 64; int4: blocks of 32, with the vocabulary projection in int8), and put back as plain numbers. What is not
modelled: the kernels also round activations to 8 bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

Array = npt.NDArray[np.float32]

WEIGHTS = ("checkpoint", "int8", "int4")
_SMALLEST_SIDE = 32  # narrower matrices stay as they are in the bundle too
_SMALLEST_BLOCK = 16


class _Format(NamedTuple):
    bits: int
    block: int


_BODY = {"int8": _Format(8, 64), "int4": _Format(4, 32)}
_HEAD = _Format(8, 64)


@torch.no_grad()
def round_weights(model: Any, weights: str) -> None:
    """Rounds a model's projections in place to `weights`, "int8" or "int4"; a tied embedding is rounded with the head."""
    head = model.get_output_embeddings()
    for module in model.modules():
        if not isinstance(module, nn.Linear | Conv1D) or min(module.weight.shape) < _SMALLEST_SIDE:
            continue
        form = _HEAD if module is head else _BODY[weights]
        weight = module.weight.detach().float()
        columns = weight.numpy() if isinstance(module, Conv1D) else weight.T.numpy()  # [K, N]
        rounded = torch.from_numpy(round_blocks(np.ascontiguousarray(columns), form.bits, form.block))
        module.weight.copy_(rounded if isinstance(module, Conv1D) else rounded.T)


def round_blocks(weight: Array, bits: int, block: int) -> Array:
    """A weight [K, N] after symmetric rounding to `bits` in blocks along K, as MatMulNBits computes with it."""
    from onnxruntime.capi import _pybind_state as kernels

    K, N = weight.shape
    size = block
    while size > _SMALLEST_BLOCK and K % size:
        size //= 2
    if K % size:
        size = min(32, block)
    blocks = -(-K // size)
    padded = np.pad(weight, ((0, blocks * size - K), (0, 0)))
    packed = np.zeros((N, blocks, size * bits // 8), np.uint8)
    scales = np.zeros((N, blocks), np.float32)
    zeros = np.zeros((N, -(-blocks * bits // 8)), np.uint8)
    kernel = {4: kernels.quantize_matmul_4bits, 8: kernels.quantize_matmul_8bits}[bits]
    kernel(packed, padded, scales, zeros, size, N, K, True)
    steps = packed if bits == 8 else np.stack([packed & 15, packed >> 4], axis=-1).reshape(N, blocks, size)
    numbers = (steps.astype(np.float32) - 2.0 ** (bits - 1)) * scales[..., None]
    rounded: Array = np.ascontiguousarray(numbers.reshape(N, -1)[:, :K].T)
    return rounded
