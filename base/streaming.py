"""Big bases: the checkpoint's own numbers are held once, in the checkpoint's own dtype, and nothing
else is.

A base in bf16 would double in memory as fp32. So its modules are built around memory that is never
touched; the graph is traced from them, and its weights are read from the checkpoint's tensors one
at a time when they are written. torch's side of the comparison runs on the same tensors, each
module's turned into fp32 only while that module runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from transformers import AutoModelForCausalLM, PreTrainedModel

try:
    from transformers.initialization import no_init_weights
except ImportError:  # transformers 4, which Optimum needs
    from transformers.modeling_utils import no_init_weights  # type: ignore[attr-defined,no-redef]

from edgeprefix.base.attention import reference_attention
from edgeprefix.base.mapped import give_back

_loader: Any = AutoModelForCausalLM


def hollow_model(config: Any, *, fast_attention: bool = False) -> PreTrainedModel:
    """The model of a configuration in fp32: real buffers, and parameters that take no memory.

    A matrix is one random column, repeated: enough to rehearse how the model rotates and where it
    attends. With `fast_attention` transformers chooses how it attends, else it is the plainest way.
    """
    attention = None if fast_attention else reference_attention(config.model_type)
    with no_init_weights(), _hollow_parameters():
        model = _loader.from_config(
            config, dtype=torch.float32, attn_implementation=attention, trust_remote_code=False
        )
    model.tie_weights()
    ready: PreTrainedModel = model.eval().requires_grad_(False)
    return ready


def untouched(model: PreTrainedModel) -> PreTrainedModel:
    """Gives every parameter memory of its own that nobody has written to, so that it takes none;
    for tracing.
    """
    for parameter in model.parameters():
        parameter.data = torch.empty(parameter.shape, dtype=torch.float32)
    return model


def fill(model: PreTrainedModel, state: Mapping[str, Tensor]) -> PreTrainedModel:
    """Puts the checkpoint's tensors into a hollow model, in their own dtype.

    Buffers that the checkpoint does not hold keep what the model computed in fp32.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters(remove_duplicate=False):
            parameter.data = state[name]
        for name, buffer in model.named_buffers():
            if name in state:
                buffer.data = state[name].to(buffer.dtype)  # not copied into: it may be a view
    return model


def compute_in_full(model: PreTrainedModel) -> None:
    """Lets each module turn its own parameters into fp32 while its forward runs."""
    for module in model.modules():
        if any(parameter.dtype != torch.float32 for parameter in module.parameters(recurse=False)):
            _compute_in_full(module)


@contextlib.contextmanager
def in_full(module: nn.Module) -> Iterator[None]:
    """Within the block all parameters of a module are held in fp32: gradients pass through it after
    its forward has run.
    """
    kept = {parameter: parameter.data for parameter in module.parameters()}
    for parameter, stored in kept.items():
        parameter.data = stored.float()
        give_back(stored)
    try:
        yield
    finally:
        for parameter, stored in kept.items():
            parameter.data = stored


def _compute_in_full(module: nn.Module) -> None:
    """Turns a module's own parameters into fp32 while its forward runs."""
    kept: dict[str, Tensor] = {}

    def before(module: nn.Module, *_: Any) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            kept[name] = parameter.data
            parameter.data = parameter.data.float()
            give_back(kept[name])

    def after(module: nn.Module, *_: Any) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            parameter.data = kept.pop(name)

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after, always_call=True)


@contextlib.contextmanager
def _hollow_parameters() -> Iterator[None]:
    """Within the block every new parameter of more than one dimension is a repeated column; vectors
    are near one.
    """
    original = nn.Module.register_parameter
    generator = torch.Generator().manual_seed(0)

    def register(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        # Convolutions (of a composite model's eyes) write into their weights when they are made
        if parameter is not None and not isinstance(module, _ConvNd):
            parameter = nn.Parameter(_hollow(parameter, generator), requires_grad=False)
        original(module, name, parameter)

    nn.Module.register_parameter = register  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = original  # type: ignore[method-assign]


def _hollow(parameter: Tensor, generator: torch.Generator) -> Tensor:
    if parameter.dim() < 2:
        return 1.0 + 0.1 * torch.randn(parameter.shape, generator=generator)
    column = torch.randn(*parameter.shape[:-1], 1, generator=generator) / parameter.shape[-1] ** 0.5
    repeated: Tensor = column.expand(parameter.shape)
    return repeated
