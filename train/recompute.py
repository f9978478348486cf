"""Gradient checkpointing: a layer keeps its input only and is computed again in the backward pass
(Chen et al. 2016).

transformers' own switch works in training mode and takes the cache away, and with it the prefix.
Here the layers' `forward` is wrapped while the loss is computed, and what the attention function
needs is put up again around the second computation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

Surroundings = Callable[[], contextlib.AbstractContextManager[Any]]


def decoder_layers(model: Any) -> list[Any]:
    """The layers that transformers itself would checkpoint; empty where a model has none."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


@contextlib.contextmanager
def recomputed(model: Any, surroundings: Surroundings) -> Iterator[None]:
    """While active, layers called keep their inputs only; the second computation runs inside
    `surroundings()`.
    """
    layers = decoder_layers(model)
    for layer in layers:
        layer.forward = partial(_checkpointed, layer.forward, surroundings)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own shows again


def _checkpointed(
    forward: Callable[..., Any], surroundings: Surroundings, *args: Any, **kwargs: Any
) -> Any:
    return checkpoint(
        forward,
        *args,
        use_reentrant=False,
        preserve_rng_state=False,  # the base is in evaluation mode: nothing is drawn
        context_fn=lambda: (contextlib.nullcontext(), surroundings()),
        **kwargs,
    )
