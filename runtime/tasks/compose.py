"""Several prefixes become one, each behind the other, their keys moved to the positions where they
then stand.

Keys are computed at positions 0 …; behind a prefix of P positions they belong at P …. Where the
base turns keys by their position (rotary embeddings) they are turned further, where positions do
not touch keys they stay, and elsewhere composition is refused. What no composition can give is
attention of the second text to the first while it was computed: see docs/compose.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.positions import KINDS, RELATIVE, Positions
from edgeprefix.runtime.contracts.prefix_file import Prefix, PrefixLayer
from edgeprefix.runtime.contracts.task_pack import BEGINS, TaskPack
from edgeprefix.runtime.errors import RequestError


def compose(
    prefixes: Sequence[Prefix], manifest: Manifest, *, name: str, keep_begin: bool = False
) -> Prefix:
    """One prefix of all `prefixes`, in their order, for the base of `manifest`; the task pack is
    the last one's.

    A compiled prefix that begins with the base's begin token loses it when it does not stand first,
    unless `keep_begin`. Raises RequestError when there are fewer than two, when the base's
    positions do not allow it, or when the result leaves no room for text; BaseMismatchError for a
    prefix of another base.

    >>> both = compose([style, system], Manifest.load("bundle"), name="both")  # doctest: +SKIP
    """
    if len(prefixes) < 2:
        raise RequestError(f"compose takes two prefixes or more, got {len(prefixes)}")
    for prefix in prefixes:
        manifest.base.require_same(prefix.base, what=f"prefix {prefix.name!r}")
    positions = _movable(manifest)
    dropped = [0, *(int(not keep_begin and _begins(prefix)) for prefix in prefixes[1:])]
    lengths = [prefix.length - drop for prefix, drop in zip(prefixes, dropped, strict=True)]
    if sum(lengths) >= manifest.max_positions:
        raise RequestError(
            f"the prefixes have {' + '.join(map(str, lengths))} = {sum(lengths)} positions, and "
            "the base has "
            f"{manifest.max_positions}: none would be left for text; compose shorter ones"
        )
    placed = [
        move(prefix, positions, to=sum(lengths[:place]) - drop, drop=drop)
        for place, (prefix, drop) in enumerate(zip(prefixes, dropped, strict=True))
    ]
    layers = tuple(
        _joined(same) for same in zip(*(prefix.layers for prefix in placed), strict=True)
    )
    return Prefix(
        name=name, base=manifest.base, layers=layers, pack=_pack(placed), dtype=prefixes[0].dtype
    )


def move(prefix: Prefix, positions: Positions, *, to: int, drop: int = 0) -> Prefix:
    """The prefix with its keys moved to positions `to` …, without its first `drop` positions."""
    layers = []
    for index, (key, value) in enumerate(prefix.layers):
        rotation = positions.rotation(index)
        turned = key if rotation is None or to == 0 else rotation.turn(key, to)
        layers.append(PrefixLayer(turned[:, drop:], value[:, drop:]))
    return dataclasses.replace(prefix, layers=tuple(layers))


def _movable(manifest: Manifest) -> Positions:
    """The manifest's word on positions. Raises RequestError when keys cannot be moved."""
    positions = manifest.positions
    if positions is None:
        raise RequestError(
            f"the bundle of {manifest.base.name} does not say what positions do to its keys, so "
            "prefixes cannot be moved; "
            "export it again with `edgeprefix export decoder`"
        )
    if positions.kind != RELATIVE:
        raise RequestError(
            f"prefixes of {manifest.base.name} ({manifest.model_type}) cannot be composed: "
            f"{KINDS[positions.kind]}; "
            "compile the second text behind the first prefix instead: `edgeprefix compile BUNDLE "
            "--prefix FIRST --text …`"
        )
    return positions


def _begins(prefix: Prefix) -> bool:
    """Whether its first position is a begin token, behind which something else stands."""
    return bool(prefix.pack.recipe.get(BEGINS)) and prefix.length > 1


def _joined(parts: Sequence[PrefixLayer]) -> PrefixLayer:
    keys, values = zip(*parts, strict=True)
    return PrefixLayer(np.concatenate(keys, axis=1), np.concatenate(values, axis=1))


def _pack(parts: Sequence[Prefix]) -> TaskPack:
    """The last one's task, since the text stands behind it, with the history of all."""
    sources = [
        {"task": part.name, "positions": part.length, "recipe": dict(part.pack.recipe)}
        for part in parts
    ]
    recipe = {"method": "compose", "of": sources, BEGINS: bool(parts[0].pack.recipe.get(BEGINS))}
    return dataclasses.replace(parts[-1].pack, recipe=recipe, metrics={})
