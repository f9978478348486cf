"""Texts on their way through a model's layers, one layer at a time.

A layer is run by the model's own forward, which knows what it gets besides the hidden states
(masks, angles, windows): the layers before it give out what is remembered of the last run, and
after it the forward stops. So of all hidden states only one layer's are held, and of a big base
(base/streaming.py) only one module's weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgeprefix.export.decoder_layers import decoder_layers


class _StopError(Exception):
    """The layer that was wanted has run."""


class Walk:
    """Hidden states of some texts before a layer, the first one to begin with."""

    def __init__(self, model: Any, texts: Sequence[Tensor]) -> None:
        """`texts` are batches of token ids [B, S]."""
        self.layers = decoder_layers(model)
        self._model = model
        self._texts = texts
        self._before: list[Any] = [None] * len(texts)
        self._after: list[Any] = [None] * len(texts)
        self._next = 0

    @property
    def batches(self) -> int:
        """How many batches of texts there are."""
        return len(self._texts)

    @property
    def layer(self) -> nn.Module:
        """The layer that is next."""
        return self.layers[self._next]

    def run(self, batch: int, watched: Mapping[str, nn.Module] | None = None) -> dict[str, Tensor]:
        """Runs a batch through the next layer; the inputs [B, S, K] of the `watched` modules.

        What comes out is remembered until `advance`; a later run of the batch takes its place.
        """
        seen: dict[str, Tensor] = {}
        with torch.no_grad(), _watching(watched or {}, seen):
            self._after[batch] = self._through(batch)
        return seen

    def advance(self) -> list[Any]:
        """Lets what came out of this layer go into the one after it; gives what went into it."""
        gone, self._before = self._before, self._after
        self._after = [None] * self.batches
        self._next += 1
        return gone

    def back_to(self, layer: int, before: Sequence[Any]) -> None:
        """Stands before a layer again; `before` is what `advance` gave when it was left."""
        self._before, self._next = list(before), layer

    def differentiate(self, batch: int) -> tuple[Tensor, Tensor]:
        """Runs a batch through the next layer; what went in and what came out, [B, S, width] both,
        the second as a function of the first.
        """
        found: list[Tensor] = []

        def begin(module: nn.Module, arguments: Any, named: Any) -> Any:
            given = arguments[0] if arguments else named["hidden_states"]
            found.append(given.detach().requires_grad_())
            if arguments:
                return (found[0], *arguments[1:]), named
            return arguments, named | {"hidden_states": found[0]}

        handle = self.layer.register_forward_pre_hook(begin, with_kwargs=True)
        try:
            with torch.enable_grad():
                output = self._through(batch)
        finally:
            handle.remove()
        return found[0], _states(output)

    def outputs(self, batch: int) -> Tensor:
        """Hidden states [B, S, width] before the next layer, or after the last one."""
        return _states(self._before[batch])

    def logits(self, batch: int, positions: Tensor, states: Tensor) -> Tensor:
        """Logits [B, n, V] at n positions, where the last layer gives out `states`."""
        before = self._before[batch]
        given = (states, *before[1:]) if isinstance(before, tuple) else states
        with _passing(self.layers, given):
            logits: Tensor = self._model(
                input_ids=self._texts[batch], use_cache=False, logits_to_keep=positions
            ).logits
        kept = logits.shape[1] == len(positions)  # some architectures give them all
        return logits if kept else logits[:, positions]

    def _through(self, batch: int) -> Any:
        """Whatever the next layer gives out; the model's forward runs this far."""
        found: list[Any] = []

        def stop(module: nn.Module, arguments: Any, output: Any) -> None:
            found.append(output)
            raise _StopError

        handle = self.layer.register_forward_hook(stop)
        try:
            with (
                _passing(self.layers[: self._next], self._before[batch]),
                contextlib.suppress(_StopError),
            ):
                self._model(input_ids=self._texts[batch], use_cache=False)
        finally:
            handle.remove()
        return found[0]


def _states(output: Any) -> Tensor:
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states


@contextlib.contextmanager
def _passing(layers: Iterable[nn.Module], output: Any) -> Iterator[None]:
    """Within the block these layers compute nothing and give out `output`."""

    def passed(*_: Any, **__: Any) -> Any:
        return output

    for layer in layers:
        layer.forward = passed
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


@contextlib.contextmanager
def _watching(watched: Mapping[str, nn.Module], seen: dict[str, Tensor]) -> Iterator[None]:
    """Within the block the inputs of modules are noted."""

    def note(name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            seen[name] = arguments[0]

        return hook

    handles = [module.register_forward_pre_hook(note(name)) for name, module in watched.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
