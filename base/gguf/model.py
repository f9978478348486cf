"""The model of a GGUF file: every number as the file has it, bit for bit what llama.cpp computes
with, and one tensor unpacked at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from edgeprefix.base.gguf.kinds import numbers
from edgeprefix.base.gguf.layout import Place, places
from edgeprefix.base.gguf.reader import GgufFile
from edgeprefix.base.streaming import fill, hollow_model

_STORED = {"F16": torch.float16, "BF16": torch.bfloat16}
_STREAM_ABOVE_BYTES = 2 << 30  # as fp32


def load_gguf_model(
    file: GgufFile, config: Any, *, hold: str, fast_attention: bool = False
) -> tuple[PreTrainedModel, Mapping[str, Tensor] | None]:
    """The model in evaluation mode, frozen."""
    model = hollow_model(config, fast_attention=fast_attention)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    state = GgufState(places(file, config, shapes))
    fill(model, state.read())
    ready: Any = model
    ready.config.use_cache = True
    return ready.eval().requires_grad_(False), None


class GgufState(Mapping[str, Tensor]):
    """The file's tensors by the names of their parameters, each unpacked when it is asked for."""

    def __init__(self, found: Mapping[str, Place]) -> None:
        self._places = found

    def __getitem__(self, name: str) -> Tensor:
        return tensor_of(self._places[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def read(self) -> dict[str, Tensor]:
        """All of them, a tied one once; in fp32."""
        found: dict[str, Tensor] = {}
        for name, place in self._places.items():
            if place.name not in found:
                found[place.name] = self[name].float()
        return {name: found[place.name] for name, place in self._places.items()}


def tensor_of(place: Place) -> Tensor:
    """A parameter's numbers, exactly: fp16 and bf16 in their own dtype, everything else in fp32."""
    kind, data = place.tensor.kind, place.tensor.data
    array: Any
    if kind.name in _STORED and not place.from_one:
        array = data.view(np.int16).copy()
    else:
        array = numbers(kind, data)
    array = array.reshape(place.tensor.shape)
    if place.rows is not None:
        array = array[place.rows]
    if place.from_one:
        array = array - np.float32(1)
    found = torch.from_numpy(np.ascontiguousarray(array.T if place.columns else array))
    return found.view(_STORED[kind.name]) if found.dtype == torch.int16 else found
