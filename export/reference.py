"""torch's side: a base run whole and without tricks, over any prefix, with its weights as they are
or as a bundle rounds them.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from edgeprefix.base.rounding import FORMATS, SMALLEST_SIDE, WeightFormat, rounded
from edgeprefix.export.base import Base
from edgeprefix.export.passes.experts import expert_format
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


_AT_ONCE = 1 << 24  # numbers


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

    def logits(self, row: Row, *, weights: str | None = None) -> list[Array]:
        """Logits [V] of every token of the row; with `weights` int8 or int4 the base's own are
        rounded as in such a bundle.
        """
        with _rounded_weights(self._model, weights) if weights else contextlib.nullcontext():
            out = self._run(row.tokens, row.states)
        return list(out.logits[0].float().numpy())

    def random_states(self, tokens: Ids, length: int, *, seed: int) -> list[tuple[Array, Array]]:
        """Random keys and values [H, P, D] with mean and spread of the base's own over some
        text.
        """
        cache = self._run(tokens[:64], None).past_key_values
        generator = torch.Generator().manual_seed(seed)
        pairs = []
        for index in self._indices:
            layer = cache.layers[index]
            pairs.append(
                tuple(_like(states[0], length, generator) for states in (layer.keys, layer.values))
            )
        return [(key, value) for key, value in pairs]

    def own_states(self, tokens: Ids) -> list[tuple[Array, Array]]:
        """The base's own keys and values [H, S, D] of each layer over some tokens."""
        layers = self._run(tokens, None).past_key_values.layers
        return [
            (layers[index].keys[0].numpy(), layers[index].values[0].numpy())
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


def _like(states: torch.Tensor, length: int, generator: torch.Generator) -> Array:
    """[H, S, D] of real states → random [H, length, D] with their mean and spread."""
    mean, spread = states.mean(dim=1, keepdim=True), states.std(dim=1, keepdim=True)
    H, _, D = states.shape
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
def _rounded_weights(model: PreTrainedModel, precision: str) -> Iterator[None]:
    """Within the block every matrix that the exporter rounds is rounded while its module runs, and
    only then.
    """
    form, whole = FORMATS[precision], cast(Any, model)
    head, embedding = whole.get_output_embeddings(), whole.get_input_embeddings()
    handles: list[Any] = [embedding.register_forward_hook(_RoundingRows(form.head))]
    for module in model.modules():
        if module is head or not isinstance(module, nn.Embedding):
            rounding = _Rounding(module, form.head if module is head else form.body)
            handles.append(module.register_forward_pre_hook(rounding.before))
            handles.append(
                module.register_forward_hook(rounding.after, prepend=True, always_call=True)
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
        return _by_rows(
            rows.flatten(0, -2), self._form, torch.empty_like(rows).flatten(0, -2)
        ).view(rows.shape)


class _Rounding:
    """Rounds a module's matrices before it runs, and puts back its own afterwards."""

    def __init__(self, module: nn.Module, form: WeightFormat) -> None:
        self._form, self._columns = form, isinstance(module, Conv1D)  # whose weight lies as [K, N]
        # A big base's module makes an fp32 copy for each run; nobody else sees what is written into
        # it.
        self._copies = {
            name
            for name, weight in module.named_parameters(recurse=False)
            if weight.dtype != torch.float32
        }
        self._kept: dict[str, Tensor] = {}

    def before(self, module: nn.Module, *_: Any) -> None:
        """As a forward pre-hook."""
        for name, parameter in module.named_parameters(recurse=False):
            if form := self._format(parameter):
                self._kept[name] = parameter.data
                # [N, K]
                weight = parameter.data.T if self._columns else parameter.data.flatten(0, -2)
                numbers = _by_rows(
                    weight, form, weight if name in self._copies else torch.empty_like(weight)
                )
                parameter.data = numbers.T if self._columns else numbers.view(parameter.shape)

    def after(self, module: nn.Module, *_: Any) -> None:
        """As a forward hook."""
        for name, weight in self._kept.items():
            getattr(module, name).data = weight
        self._kept.clear()

    def _format(self, weight: Tensor) -> WeightFormat | None:
        """How a matrix, or experts [E, N, K], are rounded; None for what stays as it is."""
        if weight.dim() == 3:
            return expert_format(self._form, tuple(weight.shape))
        return self._form if weight.dim() == 2 and min(weight.shape) >= SMALLEST_SIDE else None


def _by_rows(weight: Tensor, form: WeightFormat, out: Tensor) -> Tensor:
    """Rounds a weight [N, K] along K into `out`, some rows at a time."""
    count = max(1, _AT_ONCE // weight.shape[1])
    for start in range(0, len(weight), count):
        rows = weight[start : start + count].numpy()
        out[start : start + count] = torch.from_numpy(rounded(np.ascontiguousarray(rows.T), form)).T
    return out
