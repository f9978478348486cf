"""What is switched in a model while it runs, and back afterwards."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class RowSelection:
    """While active, only `rows` of the flattened hidden states [B·S] reach the model's vocabulary
    projection.

    What models do to logits after it (soft caps, scales) works element by element, so the result is
    exact.
    """

    def __init__(self, model: Any, rows: Tensor | None) -> None:
        self._head = model.get_output_embeddings()
        self._rows: Any = rows
        self._handle: Any = None

    def __enter__(self) -> None:
        if self._rows is not None:
            self._handle = self._head.register_forward_pre_hook(self._select)

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            self._handle.remove()

    def _select(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = inputs[0]
        return (hidden.reshape(1, -1, hidden.shape[-1]).index_select(1, self._rows), *inputs[1:])


class AttentionSwitch:
    """While active, the model uses another attention implementation."""

    def __init__(self, model: Any, name: str) -> None:
        self._model, self._name = model, name
        self._before = model.config._attn_implementation

    def __enter__(self) -> None:
        if self._before != self._name:
            self._model.set_attn_implementation(self._name)

    def __exit__(self, *_: object) -> None:
        if self._before != self._name:
            self._model.set_attn_implementation(self._before)
