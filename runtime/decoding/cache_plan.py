"""What a cache will take, known before anything is opened, so that it can be said or refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.decoding.cache import cache_bytes
from edgeprefix.runtime.decoding.machine import available_bytes


@dataclass(frozen=True, kw_only=True)
class CachePlan:
    """What an engine's cache will take, known before anything is opened."""

    rows: int
    capacity: int
    """Positions of each row."""
    bytes: int

    @classmethod
    def of(
        cls, manifest: Manifest, *, max_batch: int, max_length: int, steady: bool = False
    ) -> CachePlan:
        """The plan for `Engine.load`'s arguments of these names."""
        rows, capacity = max_batch + steady, min(max_length + steady, manifest.max_positions)
        dtype = np.dtype(manifest.cache_dtype)
        need = cache_bytes(manifest.layers, batch=rows, capacity=capacity, dtype=dtype)
        return cls(rows=rows, capacity=capacity, bytes=need)

    def __str__(self) -> str:
        left = available_bytes()
        free = "" if left is None else f", {left / (1 << 20):,.0f} MiB are free"
        return (
            f"cache: {self.rows} rows x {self.capacity} positions = {self.bytes / (1 << 20):,.1f} "
            f"MiB{free}"
        )
