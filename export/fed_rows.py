"""The rows of text, over prefixes and over none, by which a bundle is compared with torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edgeprefix.export.large_prefix import STRETCH, large_prefix
from edgeprefix.export.reference import Array, Ids, Reference, Row, States
from edgeprefix.export.windows import LONGEST_TEXT, rows_beyond
from edgeprefix.runtime.contracts.cache_scales import LARGEST_STEP, LayerScales
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.errors import BaseMismatchError

_PREFIX_LENGTH, _OTHER_LENGTH = 12, 7
_LONG = 160  # tokens
_PAST_WINDOW = 40  # tokens of the long text behind a window


class Rows(NamedTuple):
    """Everything that is fed to both sides."""

    plain: Row
    prefixed: Row
    mixed: tuple[Row, ...]
    tasks: tuple[tuple[str, Row], ...]
    """Trained prefixes that the bundle is made for, by name."""
    long: Row
    large: Row
    """Behind a prefix as large as trained ones are, as far as the base bears it."""
    beyond: tuple[Row, ...]
    """Behind prefixes that reach beyond the widest windows."""

    @property
    def exact(self) -> tuple[Row, ...]:
        """What the graph is fed once more, row by row, when nothing is rounded on the way."""
        return (self.long, self.large, *self.beyond)

    @property
    def all(self) -> tuple[Row, ...]:
        """Every one of them."""
        trained = (row for _, row in self.tasks)
        return (self.plain, self.prefixed, *self.mixed, *trained, *self.exact)


def make_rows(
    reference: Reference,
    manifest: Manifest,
    tokens: Ids,
    scales: Sequence[LayerScales] | None,
    *,
    prefix: Prefix | None,
    tasks: Sequence[Prefix],
) -> Rows:
    """Rows over `tokens`, as many as `tokens_needed` says. Raises BaseMismatchError when a prefix
    leaves no room for text.
    """
    limit, stretch = manifest.max_positions, 1.0 if scales is None else STRETCH
    states, other = (
        _within(scales, reference.random_states(tokens, length, seed=seed, stretch=stretch))
        for length, seed in ((_PREFIX_LENGTH, 1), (_OTHER_LENGTH, 2))
    )
    if prefix is not None:
        states = _fitting(prefix, limit)
    prompt = tokens[: min(40, limit // 3)]
    return Rows(
        plain=Row(prompt, None),
        prefixed=Row(prompt, states),
        mixed=(Row(tokens[3:12], other), Row(tokens[3:20], None), Row(tokens[3:26], states)),
        tasks=tuple((task.name, Row(prompt, _fitting(task, limit))) for task in tasks),
        long=Row(tokens[: limit - states[0][0].shape[1]], states),
        large=Row(prompt, large_prefix(reference, prompt, _PREFIX_LENGTH)),
        beyond=tuple(rows_beyond(reference, manifest.layers, limit, tokens)),
    )


def tokens_needed(manifest: Manifest) -> int:
    """Tokens of a text that passes every window but the widest."""
    windows = [layer.window for layer in manifest.layers if layer.window is not None]
    passed = [window + _PAST_WINDOW for window in windows if window < LONGEST_TEXT]
    return min(manifest.max_positions - _PREFIX_LENGTH, max([_LONG, *passed]))


def _within(scales: Sequence[LayerScales] | None, states: States) -> States:
    """States cut to what an int8 cache holds: the engine loads no others."""
    if scales is None:
        return states

    def cut(array: Array, scale: Array) -> Array:
        return np.clip(array, -LARGEST_STEP * scale, LARGEST_STEP * scale)

    return [
        (cut(key, layer.key), cut(value, layer.value))
        for (key, value), layer in zip(states, scales, strict=True)
    ]


def _fitting(prefix: Prefix, limit: int) -> States:
    if prefix.length >= limit - 1:
        raise BaseMismatchError(
            f"prefix {prefix.name!r} has {prefix.length} positions, the base only {limit}"
        )
    return [(layer.key, layer.value) for layer in prefix.layers]
