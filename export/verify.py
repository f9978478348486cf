"""Does the bundle compute what torch computes? Every way in which the runtime feeds it is tried,
with a prefix in the cache.

torch runs each text once, whole, over the prefix; the graph gets the same text in one piece, in
chunks, token by token, and with several rows of different prefixes and lengths in one batch. All
logits are compared. A bundle of int8 or int4 weights is compared with torch on the same rounded
weights, too: what differs there is no rounding of weights, so that bound is narrow.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprefix.base import Base, load_base
from edgeprefix.base.quiet import quiet_transformers
from edgeprefix.base.rounding import FORMATS
from edgeprefix.export.parity import ParityReport, bounds_of, compare
from edgeprefix.export.reference import Array, Reference, Row, States, some_tokens
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.decoding.decoder import SlotDecoder
from edgeprefix.runtime.decoding.opening import Room, open_decoder
from edgeprefix.runtime.errors import BaseMismatchError

_DECODE_STEPS = 4
_PREFIX_LENGTH, _OTHER_LENGTH = 12, 7
_LONG = 160  # tokens
_WIDE = 2048  # windows from here on are not exceeded: torch would take minutes


def verify(
    bundle: str | Path,
    base: str | Path | Base,
    *,
    revision: str | None = None,
    prefix: Prefix | str | Path | None = None,
) -> ParityReport:
    """Compares a bundle with its base in torch (`revision`: branch, tag or commit of the hub).

    `prefix` is a prefix file to verify with; without one, a random prefix with the scale of the
    base's own keys and values is used. Raises BundleError, CheckpointError, BaseMismatchError (the
    bundle or the prefix belongs to another base). The report says whether the bounds of its
    precision hold; nothing is raised when they do not.
    """
    manifest = Manifest.load(bundle)
    manifest.check_files(bundle)
    loaded = base if isinstance(base, Base) else load_base(base, revision=revision)
    manifest.base.require_same(loaded.identity, what="the given --base")
    given = Prefix.load(prefix) if isinstance(prefix, (str, Path)) else prefix
    if given is not None:
        loaded.identity.require_same(given.base, what=f"prefix {given.name!r}")
    expected = torch_side(loaded, manifest, prefix=given)
    del loaded
    return graph_side(bundle, manifest, expected)


@dataclass(frozen=True, eq=False)
class Expected:
    """Rows of text over prefixes, and torch's logits [V] of every token of each."""

    plain: Row
    prefixed: Row
    mixed: tuple[Row, ...]
    long: Row
    logits: dict[int, list[Array]]
    """By id of the row."""
    rounded: list[Array] | None
    """Logits of the long row with the weights as the bundle rounds them, None when it does not."""

    def of(self, row: Row) -> list[Array]:
        """Torch's logits of a row."""
        return self.logits[id(row)]


def torch_side(base: Base, manifest: Manifest, *, prefix: Prefix | None = None) -> Expected:
    """Runs the texts through torch. The base is not needed afterwards."""
    with quiet_transformers():
        reference, limit = Reference(base), manifest.max_positions
        windows = [layer.window for layer in manifest.layers if layer.window is not None]
        long = min(
            limit - _PREFIX_LENGTH,
            max([_LONG, *(window + 40 for window in windows if window < _WIDE)]),
        )
        tokens = some_tokens(base, long)
        states = (
            _fitting(prefix, limit)
            if prefix
            else reference.random_states(tokens, _PREFIX_LENGTH, seed=1)
        )
        other = reference.random_states(tokens, _OTHER_LENGTH, seed=2)
        prompt = tokens[: min(40, limit // 3)]
        plain, prefixed = Row(prompt, None), Row(prompt, states)
        mixed = (Row(tokens[3:12], other), Row(tokens[3:20], None), Row(tokens[3:26], states))
        whole = Row(tokens[: limit - states[0][0].shape[1]], states)
        logits = {id(row): reference.logits(row) for row in (plain, prefixed, *mixed, whole)}
        ours = manifest.graph is None  # how another exporter rounds is not known
        weights = manifest.precision if ours and manifest.precision in FORMATS else None
        rounded = reference.logits(whole, weights=weights) if weights else None
        return Expected(plain, prefixed, mixed, whole, logits, rounded)


def graph_side(bundle: str | Path, manifest: Manifest, expected: Expected) -> ParityReport:
    """Feeds the same texts to the bundle's graph in every way that the engine has, and compares."""
    longest = max(row.prefix_length + len(row.tokens) for row in (expected.long, *expected.mixed))
    decoder = open_decoder(bundle, manifest, Room(rows=3, capacity=longest))
    cases = tuple(
        compare(name, actual, wanted) for name, actual, wanted in _cases(decoder, expected)
    )
    rounded = None
    if expected.rounded is not None:
        rounded = compare(
            "rounded",
            _fed(decoder, expected.long, _chunks(len(expected.long.tokens))),
            expected.rounded,
        )
    return ParityReport(
        precision=manifest.precision,
        cache=manifest.cache_dtype,
        bounds=bounds_of(manifest.precision, manifest.cache_dtype, rounded=rounded is not None),
        cases=cases,
        rounded=rounded,
    )


def _cases(
    decoder: SlotDecoder, expected: Expected
) -> Iterator[tuple[str, list[Array], list[Array]]]:
    """Name, the graph's logits, torch's logits."""
    plain, mixed, size = expected.plain, expected.mixed, len(expected.plain.tokens)
    one_by_one = [size - _DECODE_STEPS, *[1] * _DECODE_STEPS]
    yield "prefill", _fed(decoder, plain, [size]), expected.of(plain)
    yield "chunks", _fed(decoder, plain, [size // 3, size - size // 3]), expected.of(plain)
    yield "decode", _fed(decoder, plain, one_by_one), expected.of(plain)
    yield "prefix", _fed(decoder, expected.prefixed, one_by_one), expected.of(expected.prefixed)
    wanted = [logits for row in mixed for logits in expected.of(row)[-_DECODE_STEPS:]]
    yield "rows", _batched(decoder, mixed), wanted
    yield (
        "long",
        _fed(decoder, expected.long, _chunks(len(expected.long.tokens))),
        expected.of(expected.long),
    )


def _fed(decoder: SlotDecoder, row: Row, sizes: Sequence[int]) -> list[Array]:
    """Feeds a row in pieces of these sizes through slot 0; gives the logits [V] of every
    position.
    """
    start = _fill_prefix(decoder, 0, row)
    found: list[Array] = []
    for piece in np.split(row.tokens, np.cumsum(sizes)[:-1]):
        found += list(decoder.feed(0, piece, start=start))
        start += len(piece)
    return found


def _batched(decoder: SlotDecoder, rows: Sequence[Row]) -> list[Array]:
    """Prefills each row alone into its own slot, then decodes all rows together; logits of the
    decoded steps, row by row.
    """
    lengths = []
    for slot, row in enumerate(rows):
        start = _fill_prefix(decoder, slot, row)
        decoder.feed(slot, row.tokens[:-_DECODE_STEPS], start=start, wanted=[])
        lengths.append(start + len(row.tokens) - _DECODE_STEPS)
    found: list[list[Array]] = [[] for _ in rows]
    for index in range(-_DECODE_STEPS, 0):
        lengths = [length + 1 for length in lengths]
        logits = decoder.step([int(row.tokens[index]) for row in rows], lengths)
        for slot in range(len(rows)):
            found[slot].append(logits[slot].copy())
    return list(itertools.chain(*found))


def _fill_prefix(decoder: SlotDecoder, slot: int, row: Row) -> int:
    """Writes the row's prefix into a slot; gives the position at which the text starts."""
    if row.states is not None:
        decoder.cache.write(slot, decoder.cache.pack(row.states))
    return row.prefix_length


def _fitting(prefix: Prefix, limit: int) -> States:
    if prefix.length >= limit - 1:
        raise BaseMismatchError(
            f"prefix {prefix.name!r} has {prefix.length} positions, the base only {limit}"
        )
    return [(layer.key, layer.value) for layer in prefix.layers]


def _chunks(length: int) -> list[int]:
    """One large piece, one small, then single tokens."""
    steps = min(_DECODE_STEPS, length - 2)
    first = (length - steps) * 2 // 3
    return [first, length - steps - first, *[1] * steps]
