"""How long a task takes to change: a resident prefix put in place, a prefix file read, verified and
made resident.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeprefix.runtime.contracts.cache_scales import load_scales
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.decoding.cache import Cache, SlotMemory
from edgeprefix.runtime.decoding.device_cache import DeviceCache
from edgeprefix.runtime.decoding.session import CUDA
from edgeprefix.runtime.tasks.prefix_store import PrefixStore

_SLOTS, _CAPACITY = 8, 512


class SwapMeter:
    """Prefix files over a cache of their base, without the graph. Loads each file once, untimed."""

    def __init__(
        self, bundle: str | Path, files: Sequence[str | Path], *, providers: Sequence[str] = ()
    ) -> None:
        manifest = Manifest.load(bundle)
        self._cache = _cache(bundle, manifest, providers)
        self._store = PrefixStore(manifest, self._cache)
        self._files = files
        self._names = [self._store.load(file).name for file in files]

    def load_ms(self, count: int) -> list[float]:
        """Reads every file `count` times: hash and base verified, keys and values packed for the
        cache.
        """
        times = []
        for _ in range(count):
            for file in self._files:
                began = time.perf_counter()
                self._store.load(file)
                times.append(_passed_ms(began))
        return times

    def swap_ms(self, count: int) -> list[float]:
        """Puts a prefix in place `count` times, each time another task and row: looked up, copied
        into the cache.
        """
        times = []
        for index in range(count):
            began = time.perf_counter()
            loaded = self._store.use(self._names[index % len(self._names)])
            self._cache.write(index % _SLOTS, loaded.prefix.packed)
            times.append(_passed_ms(began))
        return times


def _cache(bundle: str | Path, manifest: Manifest, providers: Sequence[str]) -> SlotMemory:
    capacity, dtype = min(_CAPACITY, manifest.max_positions), np.dtype(manifest.cache_dtype)
    if providers and providers[0] == CUDA:
        return DeviceCache(
            manifest.layers,
            batch=_SLOTS,
            capacity=capacity,
            dtype=dtype,
            device="cuda",
            providers=providers,
        )
    scales = load_scales(bundle, manifest.layers) if manifest.cache_dtype == "int8" else None
    return Cache(manifest.layers, batch=_SLOTS, capacity=capacity, dtype=dtype, scales=scales)


def _passed_ms(began: float) -> float:
    return 1000 * (time.perf_counter() - began)
