"""The key/value memory of all running sequences, allocated once.

Layers of one shape share one array [layers, 2, B, H, C, D], so writing a prefix into a slot, moving
a slot or copying a slot is one array assignment for all of them. The graph reads and writes this
memory in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edgeprefix.runtime.contracts.cache_scales import LARGEST_STEP, SMALLEST_STEP, LayerScales
from edgeprefix.runtime.contracts.manifest import LayerShape
from edgeprefix.runtime.decoding.machine import available_bytes
from edgeprefix.runtime.errors import CapacityError

Array = npt.NDArray[Any]
_MIB = 1 << 20


class Packed(Protocol):
    """Keys and values in the form that a cache copies into a slot; what it is, only that cache
    knows.
    """

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        ...


class Slots(NamedTuple):
    """The slots `start` … `stop - 1`."""

    start: int
    stop: int


class SlotMemory(Protocol):
    """What decoder and scheduler need of a cache, wherever it lies."""

    batch: int
    capacity: int
    nbytes: int
    scales: Sequence[LayerScales] | None
    """Of an int8 cache: what lies beyond them is cut off by `pack`."""

    def bind(self, binding: Any, slots: Slots) -> None:
        """Binds the slots' memory as past and as present of every layer."""
        ...

    def pack(self, layers: Sequence[tuple[Array, Array]]) -> Sequence[Packed]:
        """Keys and values of each layer ([H, P, D] pairs) for `write`."""
        ...

    def unpack(self, packed: Sequence[Array]) -> list[tuple[Array, Array]]:
        """Keys and values of each layer out of what `read` gave."""
        ...

    def write(self, slot: int, packed: Sequence[Any]) -> None:
        """Copies a packed prefix into the first positions of a slot."""
        ...

    def read(self, slot: int, length: int) -> list[Array]:
        """A copy of a slot's first `length` positions in main memory."""
        ...

    def copy(self, source: int, target: int, *, start: int, stop: int) -> None:
        """Copies positions `start` … `stop - 1` of one slot to another."""
        ...

    def gather(
        self, sources: Sequence[int], targets: Sequence[int], *, start: int, stop: int
    ) -> None:
        """Copies several slots at once: all sources are read before any target is written."""
        ...


class CacheView(NamedTuple):
    """Keys and values of one layer for some slots: views [B, H, C, D] of the cache's memory."""

    key: Array
    value: Array


def bind_address(
    bind: Callable[..., None],
    name: str,
    device: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    address: int,
) -> None:
    """Binds memory by address, without a copy: it must be contiguous and outlive the run."""
    bind(name, device, 0, dtype.type, shape, address)


def layer_groups(layers: Sequence[LayerShape]) -> dict[tuple[int, int], list[int]]:
    """Layer numbers by (H, D), in order: layers of one shape are kept together."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, layer in enumerate(layers):
        groups.setdefault((layer.kv_heads, layer.head_size), []).append(index)
    return groups


def cache_bytes(
    layers: Sequence[LayerShape], *, batch: int, capacity: int, dtype: np.dtype[Any]
) -> int:
    """Memory that a cache of `batch` slots of `capacity` positions takes."""
    numbers = sum(2 * layer.kv_heads * layer.head_size for layer in layers)
    return numbers * batch * capacity * dtype.itemsize


def require_memory(need: int, *, batch: int, capacity: int) -> None:
    """Raises CapacityError with the numbers when `need` bytes are not there."""
    left = available_bytes()
    if left is not None and need > left:
        fits = int(batch * capacity * left / need)
        raise CapacityError(
            f"a cache of {batch} rows x {capacity} positions needs {need / _MIB:.0f} MiB, "
            f"{left / _MIB:.0f} MiB are free; "
            f"lower max_batch or max_length (their product may be {fits} at most)"
        )


class Cache:
    """Cache of `batch` slots in main memory. `groups` hold [layers, 2, B, H, C, D] by shape."""

    def __init__(
        self,
        layers: Sequence[LayerShape],
        *,
        batch: int,
        capacity: int,
        dtype: np.dtype[Any],
        scales: Sequence[LayerScales] | None = None,
    ) -> None:
        """`scales` are those of an int8 cache."""
        need = cache_bytes(layers, batch=batch, capacity=capacity, dtype=dtype)
        require_memory(need, batch=batch, capacity=capacity)
        self.batch, self.capacity, self.dtype, self.nbytes = batch, capacity, dtype, need
        self.scales = scales
        self._members = layer_groups(layers)
        self._groups = [
            np.zeros((len(members), 2, batch, heads, capacity, size), dtype)
            for (heads, size), members in self._members.items()
        ]
        self._scales = [  # [layers, 2, H, 1, D] by shape
            None if scales is None else np.stack([np.stack(scales[index]) for index in members])
            for members in self._members.values()
        ]

    def bind(self, binding: Any, slots: Slots) -> None:
        """Binds the slots' memory as every layer's past and present: the graph works in place."""
        for index, view in enumerate(self.views(slots)):
            for kind, array in zip(("key", "value"), view, strict=True):
                for bind, name in (
                    (binding.bind_input, "past_key_values"),
                    (binding.bind_output, "present"),
                ):
                    bind_address(
                        bind,
                        f"{name}.{index}.{kind}",
                        "cpu",
                        self.dtype,
                        array.shape,
                        array.ctypes.data,
                    )

    def views(self, slots: Slots) -> Iterator[CacheView]:
        """The slots' memory layer by layer."""
        where = {
            index: (group, row)
            for group, members in zip(self._groups, self._members.values(), strict=True)
            for row, index in enumerate(members)
        }
        for index in range(len(where)):
            group, row = where[index]
            yield CacheView(
                group[row, 0, slots.start : slots.stop], group[row, 1, slots.start : slots.stop]
            )

    def pack(self, layers: Sequence[tuple[Array, Array]]) -> list[Array]:
        """Keys and values of each layer, [H, P, D] pairs, as [layers, 2, H, P, D] by shape."""
        return [
            self._rounded(np.stack([np.stack(layers[index]) for index in members]), scale)
            for members, scale in zip(self._members.values(), self._scales, strict=True)
        ]

    def _rounded(self, states: Array, scale: Array | None) -> Array:
        """As the cache holds them: in steps of their channel's scale when it is an int8 cache."""
        if scale is not None:
            states = np.clip(np.rint(states / scale), SMALLEST_STEP, LARGEST_STEP)
        return np.ascontiguousarray(states, self.dtype)

    def unpack(self, packed: Sequence[Array]) -> list[tuple[Array, Array]]:
        """The reverse of `pack`."""
        numbers = [
            group if scale is None else group * scale
            for group, scale in zip(packed, self._scales, strict=True)
        ]
        layers = {
            index: (group[row, 0], group[row, 1])
            for group, members in zip(numbers, self._members.values(), strict=True)
            for row, index in enumerate(members)
        }
        return [layers[index] for index in sorted(layers)]

    def write(self, slot: int, packed: Sequence[Array]) -> None:
        """Copies a packed prefix into the first positions of a slot."""
        for group, part in zip(self._groups, packed, strict=True):
            group[:, :, slot, :, : part.shape[3]] = part

    def read(self, slot: int, length: int) -> list[Array]:
        """A packed copy of a slot's first `length` positions."""
        return [group[:, :, slot, :, :length].copy() for group in self._groups]

    def copy(self, source: int, target: int, *, start: int, stop: int) -> None:
        """Copies positions `start` … `stop - 1` of one slot to another."""
        for group in self._groups:
            group[:, :, target, :, start:stop] = group[:, :, source, :, start:stop]

    def gather(
        self, sources: Sequence[int], targets: Sequence[int], *, start: int, stop: int
    ) -> None:
        """Copies several slots at once: all sources are read before any target is written."""
        for group in self._groups:
            group[:, :, list(targets), :, start:stop] = group[:, :, list(sources), :, start:stop]
