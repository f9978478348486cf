"""Does the bundle compute what torch computes? Every way in which the runtime feeds it is tried, with a prefix in the cache.

torch runs each text once, whole, over the prefix; the graph gets the same text in one piece, in chunks, token by token, and
with several rows of different prefixes and lengths in one batch. All logits are compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache

from edgeprefix.export.base import Base, load_base, quiet_transformers
from edgeprefix.export.parity import BOUNDS, ParityReport, compare
from edgeprefix.export.trace import survey_layers
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.decoding.cache import Cache
from edgeprefix.runtime.decoding.decoder import Decoder
from edgeprefix.runtime.decoding.session import open_graph
from edgeprefix.runtime.errors import BaseMismatchError

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
_DECODE_STEPS = 4
_PREFIX_LENGTH, _OTHER_LENGTH = 12, 7
_LONG = 160  # tokens
_WIDE = 2048  # windows from here on are not exceeded: torch would take minutes


@dataclass(frozen=True, eq=False)
class _Row:
    """A text over a prefix; `states` are keys and values [H, P, D] of each layer, None without a prefix."""

    tokens: Ids
    states: States | None

    @property
    def prefix_length(self) -> int:
        return 0 if self.states is None else self.states[0][0].shape[1]


def verify(bundle: str | Path, base: str | Path | Base, *, prefix: Prefix | str | Path | None = None) -> ParityReport:
    """Compares a bundle with its base in torch.

    `prefix` is a prefix file to verify with; without one, a random prefix with the scale of the base's own keys and
    values is used.
    Raises BundleError, CheckpointError, BaseMismatchError (the bundle or the prefix belongs to another base).
    The report says whether the bounds of its precision hold; nothing is raised when they do not.
    """
    manifest = Manifest.load(bundle)
    manifest.check_files(bundle)
    loaded = base if isinstance(base, Base) else load_base(base)
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

    plain: _Row
    prefixed: _Row
    mixed: tuple[_Row, ...]
    long: _Row
    logits: dict[int, list[Array]]
    """By id of the row."""

    def of(self, row: _Row) -> list[Array]:
        """Torch's logits of a row."""
        return self.logits[id(row)]


def torch_side(base: Base, manifest: Manifest, *, prefix: Prefix | None = None) -> Expected:
    """Runs the texts through torch. The base is not needed afterwards."""
    with quiet_transformers():
        reference, limit = _Reference(base), manifest.max_positions
        windows = [layer.window for layer in manifest.layers if layer.window is not None]
        long = min(limit - _PREFIX_LENGTH, max([_LONG, *(window + 40 for window in windows if window < _WIDE)]))
        tokens = _tokens(base, long)
        states = _fitting(prefix, limit) if prefix else reference.random_states(tokens, _PREFIX_LENGTH, seed=1)
        other = reference.random_states(tokens, _OTHER_LENGTH, seed=2)
        prompt = tokens[: min(40, limit // 3)]
        plain, prefixed = _Row(prompt, None), _Row(prompt, states)
        mixed = (_Row(tokens[3:12], other), _Row(tokens[3:20], None), _Row(tokens[3:26], states))
        whole = _Row(tokens[: limit - states[0][0].shape[1]], states)
        logits = {id(row): reference.logits(row) for row in (plain, prefixed, *mixed, whole)}
        return Expected(plain, prefixed, mixed, whole, logits)


def graph_side(bundle: str | Path, manifest: Manifest, expected: Expected) -> ParityReport:
    """Feeds the same texts to the bundle's graph in every way that the engine has, and compares."""
    longest = max(row.prefix_length + len(row.tokens) for row in (expected.long, *expected.mixed))
    graph = open_graph(bundle, manifest)
    decoder = Decoder(graph, Cache(graph.layers, batch=3, capacity=longest, dtype=graph.cache_dtype))
    cases = tuple(compare(name, actual, wanted) for name, actual, wanted in _cases(decoder, expected))
    return ParityReport(precision=manifest.precision, bounds=BOUNDS[manifest.precision], cases=cases)


def _cases(decoder: Decoder, expected: Expected) -> Iterator[tuple[str, list[Array], list[Array]]]:
    """Name, the graph's logits, torch's logits."""
    plain, mixed, size = expected.plain, expected.mixed, len(expected.plain.tokens)
    one_by_one = [size - _DECODE_STEPS, *[1] * _DECODE_STEPS]
    yield "prefill", _fed(decoder, plain, [size]), expected.of(plain)
    yield "chunks", _fed(decoder, plain, [size // 3, size - size // 3]), expected.of(plain)
    yield "decode", _fed(decoder, plain, one_by_one), expected.of(plain)
    yield "prefix", _fed(decoder, expected.prefixed, one_by_one), expected.of(expected.prefixed)
    wanted = [logits for row in mixed for logits in expected.of(row)[-_DECODE_STEPS:]]
    yield "rows", _batched(decoder, mixed), wanted
    yield "long", _fed(decoder, expected.long, _chunks(len(expected.long.tokens))), expected.of(expected.long)


def _fed(decoder: Decoder, row: _Row, sizes: Sequence[int]) -> list[Array]:
    """Feeds a row in pieces of these sizes through slot 0; gives the logits [V] of every position."""
    start = _fill_prefix(decoder, 0, row)
    found: list[Array] = []
    for piece in np.split(row.tokens, np.cumsum(sizes)[:-1]):
        found += list(decoder.feed(0, piece, start=start))
        start += len(piece)
    return found


def _batched(decoder: Decoder, rows: Sequence[_Row]) -> list[Array]:
    """Prefills each row alone into its own slot, then decodes all rows together; logits of the decoded steps, row by row."""
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


def _fill_prefix(decoder: Decoder, slot: int, row: _Row) -> int:
    """Writes the row's prefix into a slot; gives the position at which the text starts."""
    if row.states is not None:
        decoder.cache.write(slot, decoder.cache.pack(row.states))
    return row.prefix_length


class _Reference:
    """The base in torch, run whole and without tricks."""

    def __init__(self, base: Base) -> None:
        self._model = base.model
        self._indices = [layer.index for layer in survey_layers(base.model)]

    def logits(self, row: _Row) -> list[Array]:
        """Logits [V] of every token of the row."""
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


def _tokens(base: Base, count: int) -> Ids:
    """Ids of a text, repeated as often as it takes; random ids for a base without a tokenizer."""
    vocabulary = int(base.config.vocab_size)
    if base.tokenizer is None:
        return np.random.default_rng(0).integers(0, vocabulary, count)
    ids = [token for token in base.tokenizer.encode(_TEXT, add_special_tokens=False).ids if token < vocabulary]
    return np.array(list(itertools.islice(itertools.cycle(ids), count)), np.int64)


def _fitting(prefix: Prefix, limit: int) -> States:
    if prefix.length >= limit - 1:
        raise BaseMismatchError(f"prefix {prefix.name!r} has {prefix.length} positions, the base only {limit}")
    return [(layer.key, layer.value) for layer in prefix.layers]


def _chunks(length: int) -> list[int]:
    """One large piece, one small, then single tokens."""
    steps = min(_DECODE_STEPS, length - 2)
    first = (length - steps) * 2 // 3
    return [first, length - steps - first, *[1] * steps]
