"""Does the bundle compute what torch computes? Every way in which the runtime feeds it is tried,
with a prefix in the cache.

torch runs each text once, whole, over the prefix; the graph gets the same text in one piece, in
chunks, token by token, and with several rows of different prefixes and lengths in one batch. All
logits are compared. Where weights or cache are rounded, the same graph is run with products and
cache in fp32, too, and compared with torch on the bundle's own weights: what differs there is no
rounding, and its bound is that of fp32. What the rounding costs is judged on text.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprefix.base import Base, load_base
from edgeprefix.base.quiet import quiet_transformers
from edgeprefix.base.rounding import FORMATS
from edgeprefix.export.comparison import CaseReport, compare
from edgeprefix.export.fed_rows import Rows, make_rows, tokens_needed
from edgeprefix.export.given_text import given_texts
from edgeprefix.export.left_out import Errors, errors_without, layers_left_out
from edgeprefix.export.own_numbers import computing_with, planned_numbers
from edgeprefix.export.parity import ParityReport, bounds_of
from edgeprefix.export.perplexity import graph_reading, torch_reading
from edgeprefix.export.reference import Array, Reference, Row, some_tokens
from edgeprefix.export.sampled_text import sampled_texts
from edgeprefix.export.stored import find_stored
from edgeprefix.export.text_quality import (
    TextExpected,
    TextReport,
    allowed_loss,
    judge,
    read_expected,
)
from edgeprefix.export.trace import survey_layers
from edgeprefix.export.twin import open_twin
from edgeprefix.export.windows import window_faults
from edgeprefix.runtime.contracts.cache_scales import (
    cut_share,
    load_scales,
)
from edgeprefix.runtime.contracts.manifest import AS_STORED, LayerShape, Manifest
from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.decoding.decoder import SlotDecoder
from edgeprefix.runtime.decoding.opening import CacheSize, open_decoder

_DECODE_STEPS = 4
_NAME = 24  # characters of a task's name in the report

Logits = dict[int, list[Array]]
"""By id of a row, logits [V] of each of its tokens."""


def verify(
    bundle: str | Path,
    base: str | Path | Base,
    *,
    revision: str | None = None,
    prefix: Prefix | str | Path | None = None,
    text: str | Path | None = None,
    allow_loss: float | None = None,
) -> ParityReport:
    """Compares a bundle with its base in torch (`revision`: branch, tag or commit of the hub).

    `prefix` is a prefix file to verify with; without one, a random prefix is used, in an int8 cache
    one as large as trained ones are, as far as the cache takes those. `text` is a text file, or
    rows (JSONL or CSV), on which the bundle's perplexity is compared with torch's; without it, the
    base draws some texts itself. `allow_loss` is the factor on torch's perplexity that the bundle
    may cost; by default that of its precision (ALLOWED_LOSS). Raises BundleError, CheckpointError,
    BaseMismatchError (the bundle or the prefix belongs to another base), DataError (no text). The
    report says whether the bounds of its precision hold, and whether an int8 cache cuts the prefix;
    nothing is raised when they do not.
    """
    manifest = Manifest.load(bundle)
    manifest.check_files(bundle)
    loaded = base if isinstance(base, Base) else load_base(base, revision=revision)
    manifest.base.require_same(loaded.identity, what="the given --base")
    given = Prefix.load(prefix) if isinstance(prefix, (str, Path)) else prefix
    if given is not None:
        loaded.identity.require_same(given.base, what=f"prefix {given.name!r}")
    expected = torch_side(bundle, manifest, loaded, prefix=given, text=text)
    del loaded  # the graph is opened beside the logits, not beside the whole model
    return graph_side(bundle, manifest, expected, allow_loss=allow_loss)


@dataclass(frozen=True, eq=False, kw_only=True)
class Expected:
    """Rows of text over prefixes, and what torch makes of them."""

    rows: Rows
    logits: Logits
    stored: Logits | None
    """Of `rows.exact` and `rows.mixed`, with the weights as the bundle holds them; None when they
    are not rounded, or how is not known.
    """
    without: Errors
    """What torch lacks without each layer, where `stored` is not known."""
    strangers: tuple[str, ...]
    """Weights of the graph that are none of the base's, in words."""
    layers: tuple[LayerShape, ...]
    """As torch has them."""
    cut: float | None
    """Share of the given prefix that an int8 cache cuts off."""
    text: TextExpected
    """What torch makes of ordinary text."""

    def of(self, row: Row) -> list[Array]:
        """Torch's logits of a row."""
        return self.logits[id(row)]


def torch_side(
    bundle: str | Path,
    manifest: Manifest,
    base: Base,
    *,
    prefix: Prefix | None = None,
    tasks: Sequence[Prefix] = (),
    text: str | Path | None = None,
) -> Expected:
    """Runs the texts through torch. The base is not needed afterwards.

    `prefix` stands in the place of a random one; `tasks` are compared besides. `text` is a file of
    the user's to judge quality by.
    """
    with quiet_transformers():
        reference = Reference(base)
        layers = tuple(layer.shape for layer in survey_layers(base.model))
        scales = load_scales(bundle, layers) if manifest.cache_dtype == "int8" else None
        tokens = some_tokens(base, tokens_needed(manifest))
        rows = make_rows(reference, manifest, tokens, scales, prefix=prefix, tasks=tasks)
        logits = {id(row): reference.logits(row) for row in rows.all}
        stored, strangers = _with_own_weights(
            bundle, manifest, base, reference, (*rows.exact, *rows.mixed)
        )
        without: Errors = []
        if stored is None and manifest.precision in FORMATS:
            without = errors_without(base, reference, rows.prefixed, logits[id(rows.prefixed)])
        quality = _torch_quality(base, manifest, text)
    return Expected(
        rows=rows,
        logits=logits,
        stored=stored,
        without=without,
        strangers=strangers,
        layers=layers,
        cut=None if prefix is None or scales is None else cut_share(prefix.layers, scales),
        text=quality,
    )


def _torch_quality(base: Base, manifest: Manifest, text: str | Path | None) -> TextExpected:
    """What torch makes of the user's text, or of one that the base draws itself."""
    return read_expected(
        torch_reading(base.model, manifest.vocabulary),
        sampled_texts(base) if text is None else given_texts(text, base),
        vocabulary=manifest.vocabulary,
        sampled=text is None,
    )


def _with_own_weights(
    bundle: str | Path, manifest: Manifest, base: Base, reference: Reference, rows: Sequence[Row]
) -> tuple[Logits | None, tuple[str, ...]]:
    """Torch's logits with the weights as the bundle rounds them, and what is wrong with those."""
    if manifest.precision not in FORMATS:
        return None, ()
    ours = manifest.graph is None
    own = (planned_numbers if ours else find_stored)(bundle, base.model, base.state)
    if own is None:  # another exporter's way of rounding, and not known
        return None, ()
    strangers = tuple(
        f"its weight {name} is none of the base's: the graph itself is wrong"
        for name in own.strangers
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(computing_with(own))
        if ours:
            stack.enter_context(reference.rounded_weights(manifest.precision, but=own.readers))
        return {id(row): reference.logits(row) for row in rows}, strangers


def graph_side(
    bundle: str | Path, manifest: Manifest, expected: Expected, *, allow_loss: float | None = None
) -> ParityReport:
    """Feeds the same texts to the bundle's graph in every way that the engine has, and compares."""
    rows = expected.rows
    trained = (row for _, row in rows.tasks)
    decoder = open_decoder(
        bundle, manifest, CacheSize(rows=3, capacity=_longest([*rows.mixed, rows.long, *trained]))
    )
    cases = tuple(
        compare(name, actual, wanted) for name, actual, wanted in _cases(decoder, expected)
    )
    long = _fed(decoder, rows.long, _chunks(len(rows.long.tokens)))
    prefixed = _fed(decoder, rows.prefixed, [len(rows.prefixed.tokens)])
    lacking = layers_left_out(expected.without, prefixed, expected.of(rows.prefixed))
    del decoder  # before its weights are opened once more
    rounded, exact = None, _exact(bundle, manifest, expected)
    if expected.stored is not None:
        rounded = compare("rounded", long, expected.stored[id(rows.long)])
    if exact is None and rows.beyond:
        size = CacheSize(rows=1, capacity=_longest(rows.beyond))
        got = _one_by_one(open_decoder(bundle, manifest, size), rows.beyond)
        cases += (compare("window", got, [row for r in rows.beyond for row in expected.of(r)]),)
    return ParityReport(
        precision=manifest.precision,
        cache=manifest.cache_dtype,
        bounds=bounds_of(manifest.precision, manifest.cache_dtype, rounded=rounded is not None),
        cases=cases,
        rounded=rounded,
        exact=exact,
        faults=(
            *(window_faults(bundle, expected.layers) if manifest.graph is None else ()),
            *expected.strangers,
            *lacking,
        ),
        cut=expected.cut,
        text=_graph_quality(bundle, manifest, expected.text, allow_loss),
    )


def _graph_quality(
    bundle: str | Path, manifest: Manifest, expected: TextExpected, allow_loss: float | None
) -> TextReport:
    longest = max(map(len, expected.texts))
    decoder = open_decoder(bundle, manifest, CacheSize(rows=1, capacity=longest))
    return judge(
        graph_reading(decoder, manifest.vocabulary),
        expected,
        precision=manifest.precision,
        allowed=allowed_loss(manifest) if allow_loss is None else allow_loss,
        ours=manifest.graph is None,
    )


def _exact(bundle: str | Path, manifest: Manifest, expected: Expected) -> CaseReport | None:
    """The graph with nothing rounded on the way, beside torch on the same weights. None for fp16,
    which rounds throughout, and where the weights are not known.
    """
    opened, wanted = open_twin, expected.stored
    if manifest.precision in ("fp32", AS_STORED):  # the base's own numbers
        wanted = expected.logits
        plain = manifest.precision == "fp32" and manifest.cache_dtype != "int8"
        opened = open_decoder if plain else open_twin
    if wanted is None:
        return None
    rows, mixed = expected.rows.exact, expected.rows.mixed
    size = CacheSize(rows=len(mixed), capacity=_longest([*rows, *mixed]))
    decoder = opened(bundle, manifest, size)
    got = [*_one_by_one(decoder, rows), *_batched(decoder, mixed)]
    last = [logits for row in mixed for logits in wanted[id(row)][-_DECODE_STEPS:]]
    return compare("exact", got, [*(logits for row in rows for logits in wanted[id(row)]), *last])


def _one_by_one(decoder: SlotDecoder, rows: Sequence[Row]) -> list[Array]:
    """The graph's logits [V] of every token of some rows."""
    return [logits for row in rows for logits in _fed(decoder, row, _chunks(len(row.tokens)))]


def _longest(rows: Sequence[Row]) -> int:
    return max(row.prefix_length + len(row.tokens) for row in rows)


def _cases(
    decoder: SlotDecoder, expected: Expected
) -> Iterator[tuple[str, list[Array], list[Array]]]:
    """Name, the graph's logits, torch's logits."""
    rows, of = expected.rows, expected.of
    size = len(rows.plain.tokens)
    one_by_one = [size - _DECODE_STEPS, *[1] * _DECODE_STEPS]
    yield "prefill", _fed(decoder, rows.plain, [size]), of(rows.plain)
    yield "chunks", _fed(decoder, rows.plain, [size // 3, size - size // 3]), of(rows.plain)
    yield "decode", _fed(decoder, rows.plain, one_by_one), of(rows.plain)
    yield "prefix", _fed(decoder, rows.prefixed, one_by_one), of(rows.prefixed)
    for name, row in rows.tasks:
        yield f"task {name}"[:_NAME], _fed(decoder, row, one_by_one), of(row)
    wanted = [logits for row in rows.mixed for logits in of(row)[-_DECODE_STEPS:]]
    yield "rows", _batched(decoder, rows.mixed), wanted
    yield "long", _fed(decoder, rows.long, _chunks(len(rows.long.tokens))), of(rows.long)


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


def _chunks(length: int) -> list[int]:
    """One large piece, one small, then single tokens."""
    steps = min(_DECODE_STEPS, length - 2)
    first = (length - steps) * 2 // 3
    return [first, length - steps - first, *[1] * steps]
