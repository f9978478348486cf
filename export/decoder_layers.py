"""Where a model keeps its layers."""

from __future__ import annotations

from typing import Any, cast

from torch import nn


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder's layers: the one list of as many modules as the configuration says."""
    config = cast(Any, model).config.get_text_config(decoder=True)
    return next(
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList) and len(module) == config.num_hidden_layers
    )
