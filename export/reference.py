"""torch's side: a base run whole and without tricks, over any prefix, with its weights as they are
or as a bundle rounds them.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from edgeprefix.base import Base
from edgeprefix.base.rounded_weights import Role, RoundedWeight, rounded_rows, rounded_weights
from edgeprefix.base.rounding import FORMATS, WeightFormat
from edgeprefix.export.trace import survey_layers

Array = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
States = Sequence[tuple[Array, Array]]

_TEXT = (
    "The harbour wakes before the town does. At five the first boats come in, low in the water, "
    "and the gulls follow them "
    "like a torn sail. Anna counts the crates: 12 of herring, 7 of cod, and one small box of "
    "shrimp that nobody ordered. "
    "Her brother writes the numbers on a board with chalk, then adds the price of each: 3.50, "
    "4.20, 11.00. Which of them "
    "will sell by noon? The cook of the Blue Anchor, a family restaurant near the station, wants "
    "everything that is fresh; "
    'the man from the market wants everything that is cheap. {"name": "Anna", "crates": '
    '20, "paid": true} says the '
    "receipt, which is printed in a format for machines. Once the trucks are gone, the street is "
    "washed, the ropes are "
    "coiled, and the only sound is the slow knocking of the hulls against the wood. It is the "
    "best hour of the day, she says. "
)


@dataclass(frozen=True, eq=False)
class Row:
    """A text over a prefix; `states` are keys and values [H, P, D] of each layer, None without a
    prefix.
    """

    tokens: Ids
    states: States | None

    @property
    def prefix_length(self) -> int:
        """P."""
        return 0 if self.states is None else self.states[0][0].shape[1]


class Reference:
    """The base in torch, run whole and without tricks."""

    def __init__(self, base: Base) -> None:
        self._model = base.model
        self._indices = [layer.index for layer in survey_layers(base.model)]

    def logits(self, row: Row) -> list[Array]:
        """Logits [V] of every token of the row."""
        out = self._run(row.tokens, row.states)
        return list(out.logits[0].float().numpy())

    def rounded_weights(
        self, precision: str, *, but: Collection[nn.Module] = ()
    ) -> contextlib.AbstractContextManager[None]:
        """Within the block the base's weights, `but` those of some modules, are rounded as in a
        bundle of int8 or int4.
        """
        return _rounded(self._model, precision, but)

    def random_states(
        self, tokens: Ids, length: int, *, seed: int, stretch: float = 1.0
    ) -> list[tuple[Array, Array]]:
        """Random keys and values [H, P, D] with the mean of the base's own over some text, and up
        to `stretch` times their spread, each channel with a factor of its own.
        """
        cache = self._run(tokens[:64], None).past_key_values
        generator = torch.Generator().manual_seed(seed)
        pairs = []
        for index in self._indices:
            layer = cache.layers[index]
            pairs.append(
                tuple(
                    _like(states[0], length, generator, stretch)
                    for states in (layer.keys, layer.values)
                )
            )
        return [(key, value) for key, value in pairs]

    def own_states(self, tokens: Ids, *, behind: States | None = None) -> list[tuple[Array, Array]]:
        """The base's own keys and values [H, S, D] of each layer over some tokens, which may stand
        behind a prefix.
        """
        layers = self._run(tokens, behind).past_key_values.layers
        return [
            (
                layers[index].keys[0, :, -len(tokens) :].numpy(),
                layers[index].values[0, :, -len(tokens) :].numpy(),
            )
            for index in self._indices
        ]

    def _run(self, tokens: Ids, states: States | None):  # type: ignore[no-untyped-def]  # a transformers output
        # Without the config: it keeps all positions, and the masks see to windows
        cache = DynamicCache()
        if states is not None:
            for index, (key, value) in zip(self._indices, states, strict=True):
                cache.update(torch.from_numpy(key)[None], torch.from_numpy(value)[None], index)
        with torch.no_grad():
            return self._model(
                input_ids=torch.from_numpy(tokens)[None], past_key_values=cache, use_cache=True
            )


def _like(states: torch.Tensor, length: int, generator: torch.Generator, stretch: float) -> Array:
    """[H, S, D] of real states → random [H, length, D] with their mean and 1 … `stretch` times
    their spread.
    """
    mean, spread = states.mean(dim=1, keepdim=True), states.std(dim=1, keepdim=True)
    H, _, D = states.shape
    if stretch > 1:
        spread = spread * stretch ** torch.rand(H, 1, D, generator=generator)
    result: Array = (mean + spread * torch.randn(H, length, D, generator=generator)).numpy()
    return result


def some_tokens(base: Base, count: int) -> Ids:
    """Ids of a text, repeated as often as it takes; random ids for a base without a tokenizer."""
    vocabulary = int(base.config.vocab_size)
    if base.tokenizer is None:
        return np.random.default_rng(0).integers(0, vocabulary, count)
    ids = [
        token
        for token in base.tokenizer.encode(_TEXT, add_special_tokens=False).ids
        if token < vocabulary
    ]
    return np.array(list(itertools.islice(itertools.cycle(ids), count)), np.int64)


@contextlib.contextmanager
def _rounded(model: PreTrainedModel, precision: str, but: Collection[nn.Module]) -> Iterator[None]:
    """Within the block every weight that the exporter rounds is rounded while its module runs, and
    only then.
    """
    handles: list[Any] = []
    for weight in rounded_weights(model, FORMATS[precision]):
        if weight.module in but:
            continue
        if weight.role is Role.EMBEDDING:
            handles.append(weight.module.register_forward_hook(_RoundingRows(weight.format)))
        else:
            rounding = _Rounding(weight)
            handles.append(weight.module.register_forward_pre_hook(rounding.before))
            handles.append(
                weight.module.register_forward_hook(rounding.after, prepend=True, always_call=True)
            )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _RoundingRows:
    """Rounds the rows that an embedding gives out, which is to round its table: a row's blocks are
    its own.
    """

    def __init__(self, form: WeightFormat) -> None:
        self._form = form

    def __call__(self, module: nn.Module, arguments: object, rows: Tensor) -> Tensor:
        """As a forward hook; rows [B, S, width]."""
        return rounded_rows(rows.flatten(0, -2), self._form).view(rows.shape)


class _Rounding:
    """Rounds a weight before its module runs, and puts back the module's own afterwards."""

    def __init__(self, weight: RoundedWeight) -> None:
        self._weight = weight
        # A big base's module makes an fp32 copy for each run; nobody else sees what is written
        # into it.
        self._copied = weight.parameter.dtype != torch.float32
        self._kept: Tensor | None = None

    def before(self, *_: Any) -> None:
        """As a forward pre-hook."""
        parameter = self._weight.parameter
        self._kept = parameter.data
        parameter.data = self._weight.numbers(parameter.data, in_place=self._copied)

    def after(self, *_: Any) -> None:
        """As a forward hook."""
        if self._kept is not None:
            self._weight.parameter.data = self._kept
        self._kept = None
