"""May the attention node rotate queries and keys itself? Found out by rehearsal, not by the model's
name.

The attention node can rotate with one table of cosines and sines, [positions, R/2], over the first
R numbers of each head, in halves or interleaved. Architectures differ in rope type, in which part
they rotate, in layers that do not rotate at all and in what happens after rotation. So the model
runs twice on a few tokens at low and at high positions: once as it is, once with its own rotation
bypassed. A layer's rotation is left to the node only when some table of the model's, applied to the
bypassed queries and keys, gives exactly what the model itself gave, at every position tried.
Otherwise the model's own rotation is traced into the graph: slower, and as exact.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from edgeprefix.export.calls import AttentionCall
from edgeprefix.export.interception import intercepted

_TOLERANCE = 1e-5  # relative; both sides compute the same products in fp32
_TOKENS = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class RotaryTable:
    """Cosines and sines of every position, each [positions, R/2]."""

    cos: Tensor
    sin: Tensor
    interleaved: bool
    frequencies: Tensor | None = None
    """[R/2], when cosines and sines are those of position times frequency, times `factor`."""
    factor: float = 1.0


@dataclass(frozen=True, kw_only=True)
class RotaryPlan:
    """Tables for the attention nodes. `layers[i]` indexes `tables`, None for a layer that does not
    rotate.
    """

    tables: tuple[RotaryTable, ...]
    layers: dict[int, int | None]

    def table(self, layer: int) -> RotaryTable | None:
        """The table of a layer, None when it does not rotate."""
        index = self.layers.get(layer)
        return None if index is None else self.tables[index]


@dataclass(frozen=True)
class _Source:
    """Where a table comes from: a rotary module, for one kind of layer where it has several."""

    module: nn.Module
    layer_type: str | None
    interleaved: bool

    def table(self, positions: Tensor) -> RotaryTable | None:
        """The table's rows at `positions` [n]; None when the module's output has another form."""
        options = {} if self.layer_type is None else {"layer_type": self.layer_type}
        try:
            output = self.module(torch.zeros(1, dtype=torch.float32), positions[None], **options)
        except KeyError:  # layers of this kind do not rotate
            return None
        if not (isinstance(output, tuple) and len(output) == 2 and output[0].dim() == 3):
            return None
        cos, sin = (_halved(part[0].float()) for part in output)
        return RotaryTable(cos=cos, sin=sin, interleaved=self.interleaved)


def plan_rotary(model: PreTrainedModel, max_positions: int) -> RotaryPlan | None:
    """Tables that let the attention nodes rotate exactly as the model does; None when the rotation
    must be traced.
    """
    sources = _sources(model)
    if not sources or not _rotation_functions(model):
        return None
    low = torch.arange(min(_TOKENS, max_positions))
    high = torch.arange(max(0, max_positions - _TOKENS), max_positions)
    chosen = _rehearse(model, sources, low)
    if chosen is None or _rehearse(model, sources, high) != chosen:
        return None
    order = list(dict.fromkeys(source for source in chosen.values() if source is not None))
    with torch.no_grad():
        if not all(_fixed(source, (low, high), max_positions) for source in order):
            return None
        tables = tuple(
            _with_frequencies(_table(source, torch.arange(max_positions)), source.module)
            for source in order
        )
    return RotaryPlan(
        tables=tables,
        layers={layer: order.index(source) if source else None for layer, source in chosen.items()},
    )


@contextlib.contextmanager
def rotation_bypassed(model: PreTrainedModel) -> Iterator[None]:
    """Makes the model's own rotation an identity within the block."""
    functions = _rotation_functions(model)
    for module, name, function in functions:
        setattr(module, name, _identity(function))
    try:
        yield
    finally:
        for module, name, function in functions:
            setattr(module, name, function)


def rotate(states: Tensor, table: RotaryTable) -> Tensor:
    """What the attention node does with `do_rotary`: states [B, heads, S, D] at the table's S
    positions.
    """
    cos, sin = table.cos, table.sin  # [S, R/2]
    half = cos.shape[-1]
    part, rest = states[..., : 2 * half], states[..., 2 * half :]
    if table.interleaved:
        first, second = part[..., ::2], part[..., 1::2]
    else:
        first, second = part[..., :half], part[..., half:]
    turned = (first * cos - second * sin, second * cos + first * sin)
    joined = torch.stack(turned, -1).flatten(-2) if table.interleaved else torch.cat(turned, -1)
    return torch.cat((joined, rest), -1)


def _rehearse(
    model: PreTrainedModel, sources: list[_Source], positions: Tensor
) -> dict[int, _Source | None] | None:
    """For each layer the source whose rotation equals the model's at `positions`; None when a layer
    has no such source.
    """
    rotated: list[tuple[Tensor, Tensor]] = []  # in the order of the calls: layers may share keys

    def record(call: AttentionCall) -> Tensor:
        rotated.append((call.query, call.key))
        return _plain_attention(call, call.query, call.key)

    chosen: dict[int, _Source | None] = {}
    left = iter(rotated)
    candidates = [
        (source, table) for source in sources if (table := source.table(positions)) is not None
    ]

    def compare(call: AttentionCall) -> Tensor:
        query, key = next(left)
        match = None
        if not (_same(call.query, query) and _same(call.key, key)):
            match = next(
                (source for source, table in candidates if _explains(table, call, query, key)), None
            )
            if match is None:
                raise _NoMatchError
        if chosen.setdefault(call.layer, match) != match:
            raise _NoMatchError
        # With the model's own, so that no error carries on to the next layer
        return _plain_attention(call, query, key)

    ids = torch.arange(len(positions))[None] % int(
        model.config.get_text_config(decoder=True).vocab_size
    )
    with torch.no_grad():
        with intercepted(model, record) as cache:
            model(
                input_ids=ids, position_ids=positions[None], past_key_values=cache, use_cache=True
            )
        try:
            with rotation_bypassed(model), intercepted(model, compare) as cache:
                model(
                    input_ids=ids,
                    position_ids=positions[None],
                    past_key_values=cache,
                    use_cache=True,
                )
        except _NoMatchError:
            return None
    return chosen


def _explains(table: RotaryTable, call: AttentionCall, query: Tensor, key: Tensor) -> bool:
    """Whether the node, rotating with `table`, gives the model's own query and key; its kernels
    want multiples of 16.
    """
    if (
        call.query.shape[-1] % 16
        or table.cos.shape[-1] % 8
        or 2 * table.cos.shape[-1] > call.query.shape[-1]
    ):
        return False
    return _same(rotate(call.query, table), query) and _same(rotate(call.key, table), key)


class _NoMatchError(Exception):
    """A layer rotates in a way that the attention node cannot."""


def _fixed(source: _Source, samples: Iterable[Tensor], max_positions: int) -> bool:
    """Whether a position's angles are the same however long the text is (longrope's are not)."""
    whole = _table(source, torch.arange(max_positions))
    rows = [(positions, _table(source, positions)) for positions in samples]
    return all(
        torch.equal(whole.cos[at], part.cos) and torch.equal(whole.sin[at], part.sin)
        for at, part in rows
    )


def _table(source: _Source, positions: Tensor) -> RotaryTable:
    table = source.table(positions)
    if table is None:
        raise TypeError(
            f"{type(source.module).__name__} gave cosines and sines before, and does not now"
        )
    return table


def _with_frequencies(table: RotaryTable, module: nn.Module) -> RotaryTable:
    """The table with the frequencies that it is made of, where the module has such."""
    positions = torch.arange(len(table.cos), dtype=torch.float32)
    factor = float(table.cos[0, 0])  # the cosine of no angle
    for frequencies in module.buffers():
        if frequencies.shape != table.cos.shape[1:]:
            continue
        angles = positions[:, None] * frequencies.float()
        if _same(angles.cos() * factor, table.cos) and _same(angles.sin() * factor, table.sin):
            return replace(table, frequencies=frequencies.float().clone(), factor=factor)
    return table


def _sources(model: PreTrainedModel) -> list[_Source]:
    """Rotary modules of the model: those with `forward(x, position_ids[, layer_type])`."""
    found = []
    kinds = sorted(
        set(getattr(model.config.get_text_config(decoder=True), "layer_types", None) or [])
    )
    for module in model.modules():
        parameters = list(inspect.signature(module.forward).parameters)
        if parameters[:2] != ["x", "position_ids"]:
            continue
        for kind in kinds if "layer_type" in parameters else [None]:
            found += [_Source(module, kind, interleaved) for interleaved in (False, True)]
    return found


def _rotation_functions(model: PreTrainedModel) -> list[tuple[Any, str, Callable[..., Any]]]:
    """(module, name, function) of every `apply_…rotary…(…, cos, sin, …)` that the model's code can
    call.
    """
    modules = {
        type(part).__module__
        for part in model.modules()
        if type(part).__module__.startswith("transformers.models.")
    }
    found: list[tuple[Any, str, Callable[..., Any]]] = []
    for module in (sys.modules[name] for name in sorted(modules)):
        for name, function in vars(module).items():
            named = name.startswith("apply_") and "rotary" in name and inspect.isfunction(function)
            if named and "cos" in inspect.signature(function).parameters:
                found.append((module, name, function))
    return found


def _identity(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that gives back what stands before the angles in `function`'s signature."""
    signature = inspect.signature(function)
    names = list(signature.parameters)
    names = names[: min(names.index(angle) for angle in ("cos", "sin") if angle in names)]

    def identity(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(*args, **kwargs).arguments
        states = tuple(arguments[name] for name in names)
        return states[0] if len(states) == 1 else states

    return identity


def _halved(angles: Tensor) -> Tensor:
    """[n, R] with every angle twice (in halves or interleaved) → [n, R/2]; already half →
    as it is.
    """
    size = angles.shape[-1]
    if size % 2 == 0 and torch.equal(angles[:, : size // 2], angles[:, size // 2 :]):
        return angles[:, : size // 2].contiguous()
    if size % 2 == 0 and torch.equal(angles[:, ::2], angles[:, 1::2]):
        return angles[:, ::2].contiguous()
    return angles.contiguous()


def _plain_attention(call: AttentionCall, query: Tensor, key: Tensor) -> Tensor:
    """Causal attention without windows and caps: enough to carry a rehearsal on."""
    repeats = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(repeats, 1) for states in (key, call.value))
    out = nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=call.scale
    )
    return out.transpose(1, 2)


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= _TOLERANCE * other.abs().max().clamp(min=1e-30))
