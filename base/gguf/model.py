"""The model of a GGUF file: every number as the file has it, bit for bit what llama.cpp computes
with, and one tensor unpacked at a time.

A file's numbers fit no smaller dtype (a step of five bits times a scale of sixteen is none of
bf16's), so they are held in fp32; or, when they are many, not at all: they are unpacked when they
are needed, and the file's bytes are all that is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from edgeprefix.base.gguf.kinds import numbers
from edgeprefix.base.gguf.layout import Place, places
from edgeprefix.base.gguf.reader import GgufFile
from edgeprefix.base.matrices import is_matrix
from edgeprefix.base.streaming import hollow_model

_OWN_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16}
_STREAM_ABOVE_BYTES = 4 << 30  # of the numbers in fp32


class GgufState(Mapping[str, Tensor]):
    """A file's tensors by the names of their parameters: fp16 and bf16 in their own dtype, all
    others in fp32, exactly. Each is unpacked when it is asked for, and not kept.
    """

    def __init__(self, found: Mapping[str, Place]) -> None:
        self._places = found

    def __getitem__(self, name: str) -> Tensor:
        return _tensor(self._places[name])

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def origin(self, name: str) -> str:
        """The file's own name of a parameter: tied ones share it."""
        return self._places[name].name

    @property
    def full_bytes(self) -> int:
        """What all of them take in fp32."""
        shapes = {place.name: place.tensor.shape for place in self._places.values()}
        return sum(4 * int(np.prod(shape)) for shape in shapes.values())


def load_gguf_model(
    file: GgufFile, config: Any, *, hold: str, fast_attention: bool = False
) -> tuple[PreTrainedModel, Mapping[str, Tensor] | None]:
    """The model in evaluation mode, frozen; and the file's tensors, unless all are held in fp32.

    `hold` is one of HOLDS (base/model.py); "auto" streams when the numbers take more than four
    gigabytes in fp32. Raises CheckpointError when tensors of the model are missing, or some have no
    place in it.
    """
    model = hollow_model(config, fast_attention=fast_attention)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    state = GgufState(places(file, config, shapes))
    if hold == "auto":
        hold = "streamed" if state.full_bytes > _STREAM_ABOVE_BYTES else "fp32"
    if hold == "streamed":
        _unpack_while_running(model, state)
    else:
        _fill(model, state, hold)
    ready: Any = model
    ready.config.use_cache = True
    return ready.eval().requires_grad_(False), None if hold == "fp32" else state


def _fill(model: nn.Module, state: GgufState, hold: str) -> None:
    """Puts the file's numbers into a hollow model, those of tied parameters once."""
    held: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            full = f"{path}.{name}" if path else name
            origin = state.origin(full)
            if hold == "bf16" and is_matrix(module, parameter):
                numbers_of = held[origin] if origin in held else state[full]
                half = nn.Parameter(numbers_of.to(torch.bfloat16), requires_grad=False)
                setattr(module, name, half)
                continue
            if origin not in held:
                held[origin] = state[full].float() if hold == "fp32" else state[full]
            parameter.data = held[origin]


def _unpack_while_running(model: nn.Module, state: GgufState) -> None:
    """Lets each module of a hollow model unpack its own parameters while its forward runs."""
    for path, module in model.named_modules():
        names = [name for name, _ in module.named_parameters(recurse=False)]
        if names:
            _unpack_while_module_runs(
                module, state, {name: f"{path}.{name}" if path else name for name in names}
            )


def _unpack_while_module_runs(
    module: nn.Module, state: GgufState, names: Mapping[str, str]
) -> None:
    hollow: dict[str, Tensor] = {}

    def before(module: nn.Module, *_: Any) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            hollow[name] = parameter.data
            parameter.data = state[names[name]].float()

    def after(module: nn.Module, *_: Any) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            parameter.data = hollow.pop(name)

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after, always_call=True)


def _tensor(place: Place) -> Tensor:
    """A parameter's numbers, exactly."""
    kind, data = place.tensor.kind, place.tensor.data
    own = None if place.from_one else _OWN_DTYPES.get(kind.name)
    array: Any = numbers(kind, data) if own is None else data.view(np.int16).copy()
    place.tensor.give_back()
    array = array.reshape(place.tensor.shape)
    if place.rows is not None:
        array = array[place.rows]
    if place.from_one:
        array -= np.float32(1)
    found = torch.from_numpy(np.ascontiguousarray(array.T if place.columns else array))
    return found if own is None else found.view(own)
