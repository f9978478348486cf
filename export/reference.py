"""torch's side: a base run whole and without tricks, over any prefix, with its weights as they are or as a bundle rounds them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from edgeprefix.export.base import Base
from edgeprefix.export.passes.experts import expert_format
from edgeprefix.export.trace import survey_layers
from edgeprefix.runtime.contracts.rounding import FORMATS, SMALLEST_SIDE, WeightFormat, rounded

Array = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
States = Sequence[tuple[Array, Array]]

_TEXT = (
    "The harbour wakes before the town does. At five the first boats come in, low in the water, and the gulls follow them "
    "like a torn sail. Anna counts the crates: 12 of herring, 7 of cod, and one small box of shrimp that nobody ordered. "
    "Her brother writes the numbers on a board with chalk, then adds the price of each: 3.50, 4.20, 11.00. Which of them "
    "will sell by noon? The cook of the Blue Anchor, a family restaurant near the station, wants everything that is fresh; "
    'the man from the market wants everything that is cheap. {"name": "Anna", "crates": 20, "paid": true} says the '
    "receipt, which is printed in a format for machines. Once the trucks are gone, the street is washed, the ropes are "
    "coiled, and the only sound is the slow knocking of the hulls against the wood. It is the best hour of the day, she says. "
)


@dataclass(frozen=True, eq=False)
class Row:
    """A text over a prefix; `states` are keys and values [H, P, D] of each layer, None without a prefix."""

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
        """Logits [V] of every token of the row; with `weights` int8 or int4 the base's own are rounded as in such a bundle."""
        with _rounded_weights(self._model, weights) if weights else contextlib.nullcontext():
            out = self._run(row.tokens, row.states)
        return list(out.logits[0].float().numpy())

    def random_states(self, tokens: Ids, length: int, *, seed: int) -> list[tuple[Array, Array]]:
        """Random keys and values [H, P, D] with mean and spread of the base's own over some text."""
        cache = self._run(tokens[:64], None).past_key_values
        generator = torch.Generator().manual_seed(seed)
        pairs = []
        for index in self._indices:
            layer = cache.layers[index]
            pairs.append(tuple(_like(states[0], length, generator) for states in (layer.keys, layer.values)))
        return [(key, value) for key, value in pairs]

    def own_states(self, tokens: Ids) -> list[tuple[Array, Array]]:
        """The base's own keys and values [H, S, D] of each layer over some tokens."""
        layers = self._run(tokens, None).past_key_values.layers
        return [(layers[index].keys[0].numpy(), layers[index].values[0].numpy()) for index in self._indices]

    def _run(self, tokens: Ids, states: States | None):  # type: ignore[no-untyped-def]  # a transformers output
        cache = DynamicCache()  # without the config: it keeps all positions, and the masks see to windows
        if states is not None:
            for index, (key, value) in zip(self._indices, states, strict=True):
                cache.update(torch.from_numpy(key)[None], torch.from_numpy(value)[None], index)
        with torch.no_grad():
            return self._model(input_ids=torch.from_numpy(tokens)[None], past_key_values=cache, use_cache=True)


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
    ids = [token for token in base.tokenizer.encode(_TEXT, add_special_tokens=False).ids if token < vocabulary]
    return np.array(list(itertools.islice(itertools.cycle(ids), count)), np.int64)


@contextlib.contextmanager
def _rounded_weights(model: PreTrainedModel, precision: str) -> Iterator[None]:
    """Within the block every matrix that the exporter rounds is rounded while its module runs, and only then."""
    form = FORMATS[precision]
    ends = (model.get_output_embeddings(), model.get_input_embeddings())
    handles: list[Any] = []
    for module in model.modules():
        if module in ends or not isinstance(module, nn.Embedding):
            rounding = _Rounding(form.head if module in ends else form.body, columns=isinstance(module, Conv1D))
            handles.append(module.register_forward_pre_hook(rounding.before))
            handles.append(module.register_forward_hook(rounding.after, prepend=True, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Rounding:
    """Rounds a module's matrices before it runs, and puts back its own afterwards. `columns`: they lie as [K, N]."""

    def __init__(self, form: WeightFormat, *, columns: bool) -> None:
        self._form, self._columns = form, columns
        self._kept: dict[str, Tensor] = {}

    def before(self, module: nn.Module, *_: Any) -> None:
        """As a forward pre-hook."""
        for name, parameter in module.named_parameters(recurse=False):
            numbers = self._rounded(parameter.data)
            if numbers is not None:
                self._kept[name] = parameter.data
                parameter.data = numbers

    def after(self, module: nn.Module, *_: Any) -> None:
        """As a forward hook."""
        for name, weight in self._kept.items():
            getattr(module, name).data = weight
        self._kept.clear()

    def _rounded(self, weight: Tensor) -> Tensor | None:
        """[K, N] or [N, K], or experts [E, N, K], as the bundle has them; None when it leaves them as they are."""
        if weight.dim() == 3:
            form = expert_format(self._form, tuple(weight.shape))
            return None if form is None else _by_rows(weight.flatten(0, 1), form).view(weight.shape)
        if weight.dim() != 2 or min(weight.shape) < SMALLEST_SIDE:
            return None
        return _by_rows(weight.T, self._form).T if self._columns else _by_rows(weight, self._form)


def _by_rows(weight: Tensor, form: WeightFormat) -> Tensor:
    """A weight [N, K] rounded along K."""
    return torch.from_numpy(rounded(np.ascontiguousarray(weight.numpy().T), form)).T.contiguous()
