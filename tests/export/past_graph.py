"""An ordinary ONNX decoder as people have them: past in, present out, attention mask and position
ids, names as Optimum's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from edgeprefix.base.quiet import quiet_transformers


class _Decoder(nn.Module):
    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        past: list[tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, ...]:
        cache = DynamicCache()
        for index, (key, value) in enumerate(past):
            cache.update(key, value, index)
        out: Any = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
        )
        return (
            out.logits,
            *(state for layer in cache.layers for state in (layer.keys, layer.values)),
        )


def export_past_graph(model: PreTrainedModel, path: Path, *, positions: bool = True) -> Path:
    """Writes the graph of a model with equal layers; everything is dynamic. Without `positions` it
    counts its past itself.
    """
    config = model.config
    heads = config.num_attention_heads
    H, D = getattr(config, "num_key_value_heads", heads), config.hidden_size // heads
    past = [
        (torch.zeros(2, H, 5, D), torch.zeros(2, H, 5, D)) for _ in range(config.num_hidden_layers)
    ]
    names = [f"{index}.{kind}" for index in range(len(past)) for kind in ("key", "value")]
    free = torch.export.Dim.AUTO
    table = {0: free, 1: free}
    arguments = (
        torch.ones(2, 3, dtype=torch.int64),
        torch.ones(2, 8, dtype=torch.int64),
        torch.arange(5, 8)[None].repeat(2, 1) if positions else None,
        past,
    )
    inputs = ["input_ids", "attention_mask", *(["position_ids"] if positions else [])]
    states = {0: free, 2: free}
    with quiet_transformers(), torch.no_grad():
        program = torch.onnx.export(
            _Decoder(model).eval(),
            arguments,
            dynamo=True,
            verbose=False,
            optimize=False,
            dynamic_shapes=(
                table,
                table,
                table if positions else None,
                [(states, states) for _ in past],
            ),
            input_names=[*inputs, *(f"past_key_values.{name}" for name in names)],
            output_names=["logits", *(f"present.{name}" for name in names)],
        )
    assert program is not None
    program.save(str(path))
    return path
