"""Opens whatever graph a bundle has as something that decodes in slots: the one place that knows
the kinds.

Everything above (engine, scheduler, verify) sees a `SlotDecoder`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.past_graph import GROWN, IN_PLACE
from edgeprefix.runtime.decoding.cache import Cache, SlotMemory
from edgeprefix.runtime.decoding.decoder import Decoder, SlotDecoder
from edgeprefix.runtime.decoding.device_cache import DeviceCache
from edgeprefix.runtime.decoding.past_decoder import PastDecoder
from edgeprefix.runtime.decoding.past_memory import GrownCache, MaskedCache
from edgeprefix.runtime.decoding.past_session import open_past_graph
from edgeprefix.runtime.decoding.session import Graph, Provider, open_graph

_HANDED: Mapping[str, type[GrownCache] | type[MaskedCache]] = {
    GROWN: GrownCache,
    IN_PLACE: MaskedCache,
}


@dataclass(frozen=True, kw_only=True)
class CacheSize:
    """What a decoder's cache is to hold."""

    rows: int
    capacity: int
    """Positions of each row."""
    steady: bool = False
    """Whether a row's logits must not depend on the others."""


def open_decoder(
    bundle: str | Path,
    manifest: Manifest,
    size: CacheSize,
    *,
    threads: int | None = None,
    providers: Sequence[Provider] | None = None,
    config: Mapping[str, str] | None = None,
) -> SlotDecoder:
    """Opens a bundle's graph over a cache of its kind. `config` are session settings of ONNX
    Runtime's, by its names.

    Raises BundleError, ProviderError, and CapacityError when the cache does not fit the memory.
    """
    if manifest.graph is None:
        graph = open_graph(bundle, manifest, threads=threads, providers=providers, config=config)
        return Decoder(
            graph, make_cache(graph, batch=size.rows, capacity=size.capacity), steady=size.steady
        )
    graph = open_past_graph(
        bundle, manifest, manifest.graph, threads=threads, providers=providers, config=config
    )
    handed = _HANDED[manifest.graph.cache]
    cache = handed(graph.layers, batch=size.rows, capacity=size.capacity, dtype=graph.cache_dtype)
    return PastDecoder(graph, manifest.graph, cache, steady=size.steady)


def make_cache(graph: Graph, *, batch: int, capacity: int) -> SlotMemory:
    """The cache of edgeprefix's own graph, where it wants it. Raises CapacityError."""
    if graph.on_cpu:
        return Cache(
            graph.layers,
            batch=batch,
            capacity=capacity,
            dtype=graph.cache_dtype,
            scales=graph.scales,
        )
    return DeviceCache(
        graph.layers,
        batch=batch,
        capacity=capacity,
        dtype=graph.cache_dtype,
        device=graph.device,
        providers=graph.providers,
    )
