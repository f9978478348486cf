"""The cache on a device: same operations as `Cache`, but keys and values never cross the bus.

Resident prefixes lie on the device too, so writing one into a slot is a copy from device to device.
Only `pack` (loading a prefix) and `read` (compiling a text) move data between main memory and
device. Everything here also runs with the device "cpu", which is how it is tested on machines
without a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from edgeprefix.runtime.contracts.cache_scales import LayerScales
from edgeprefix.runtime.contracts.manifest import LayerShape
from edgeprefix.runtime.decoding.cache import Array, Slots, bind_address, cache_bytes
from edgeprefix.runtime.decoding.quiet_ort import ort
from edgeprefix.runtime.decoding.session import Provider
from edgeprefix.runtime.decoding.strip_copier import Place, StripCopier


class DeviceLayers(NamedTuple):
    """Keys and values of all layers on the device: one value [2, H, P, D] a layer."""

    values: list[Any]
    length: int
    nbytes: int


class DeviceCache:
    """Cache of `batch` slots on `device`: for each layer one value [2, B, H, C, D]."""

    def __init__(
        self,
        layers: Sequence[LayerShape],
        *,
        batch: int,
        capacity: int,
        dtype: np.dtype[Any],
        device: str,
        providers: Sequence[Provider],
    ) -> None:
        self.batch, self.capacity, self.dtype = batch, capacity, dtype
        self.scales: Sequence[LayerScales] | None = None  # no device has an int8 cache
        self.nbytes = cache_bytes(layers, batch=batch, capacity=capacity, dtype=dtype)
        self._layers, self._device = list(layers), device
        self._memory = [
            self._allocate((2, batch, layer.kv_heads, capacity, layer.head_size))
            for layer in layers
        ]
        # All strips of a run are of one length, so layers are grouped by head size.
        self._sizes = sorted({layer.head_size for layer in layers})
        self._copiers = {
            size: StripCopier(self._strip_count(size), dtype, providers) for size in self._sizes
        }

    def bind(self, binding: ort.IOBinding, slots: Slots) -> None:
        """Binds the slots' memory as past and as present of every layer."""
        for index, (layer, value) in enumerate(zip(self._layers, self._memory, strict=True)):
            shape = (slots.stop - slots.start, layer.kv_heads, self.capacity, layer.head_size)
            for half, kind in enumerate(("key", "value")):
                address = self._address(
                    layer, value, half, slots.start, 0, 0, self.capacity, self.batch
                )
                for bind, name in (
                    (binding.bind_input, "past_key_values"),
                    (binding.bind_output, "present"),
                ):
                    bind_address(
                        bind, f"{name}.{index}.{kind}", self._device, self.dtype, shape, address
                    )

    def pack(self, layers: Sequence[tuple[Array, Array]]) -> list[DeviceLayers]:
        """Moves keys and values ([H, P, D] pairs) to the device, for `write`."""
        arrays = [np.ascontiguousarray(np.stack(pair), self.dtype) for pair in layers]
        values = [ort.OrtValue.ortvalue_from_numpy(array, self._device, 0) for array in arrays]
        return [DeviceLayers(values, arrays[0].shape[2], sum(array.nbytes for array in arrays))]

    def unpack(self, packed: Sequence[Array]) -> list[tuple[Array, Array]]:
        """The reverse of `pack` for what `read` gave: one array [2, H, P, D] a layer."""
        return [(array[0], array[1]) for array in packed]

    def write(self, slot: int, packed: Sequence[DeviceLayers]) -> None:
        """Copies a packed prefix into the first positions of a slot."""
        (prefix,) = packed
        for size in self._sizes:
            source = Place(self._device, self._strips(size, prefix.values, 0, 0, prefix.length, 1))
            target = Place(
                self._device, self._strips(size, self._memory, slot, 0, self.capacity, self.batch)
            )
            self._copiers[size].copy(source, target, prefix.length * size)

    def read(self, slot: int, length: int) -> list[Array]:
        """A copy of a slot's first `length` positions in main memory: [2, H, length, D] a layer."""
        arrays = [
            np.empty((2, layer.kv_heads, length, layer.head_size), self.dtype)
            for layer in self._layers
        ]
        for size in self._sizes:
            source = Place(
                self._device, self._strips(size, self._memory, slot, 0, self.capacity, self.batch)
            )
            target = Place("cpu", self._strips(size, arrays, 0, 0, length, 1))
            self._copiers[size].copy(source, target, length * size)
        return arrays

    def copy(self, source: int, target: int, *, start: int, stop: int) -> None:
        """Copies positions `start` … `stop - 1` of one slot to another."""
        for size in self._sizes:
            places = [
                Place(
                    self._device,
                    self._strips(size, self._memory, slot, start, self.capacity, self.batch),
                )
                for slot in (source, target)
            ]
            self._copiers[size].copy(places[0], places[1], (stop - start) * size)

    def gather(
        self, sources: Sequence[int], targets: Sequence[int], *, start: int, stop: int
    ) -> None:
        """Copies several slots at once: all sources are read before any target is written."""
        count, length = len(sources), stop - start
        if not length:
            return
        aside = [
            self._allocate((2, count, layer.kv_heads, length, layer.head_size))
            for layer in self._layers
        ]
        for size in self._sizes:
            held = [
                Place(self._device, self._strips(size, aside, row, 0, length, count))
                for row in range(count)
            ]
            for row, slot in enumerate(sources):
                place = Place(
                    self._device,
                    self._strips(size, self._memory, slot, start, self.capacity, self.batch),
                )
                self._copiers[size].copy(place, held[row], length * size)
            for row, slot in enumerate(targets):
                place = Place(
                    self._device,
                    self._strips(size, self._memory, slot, start, self.capacity, self.batch),
                )
                self._copiers[size].copy(held[row], place, length * size)

    def _allocate(self, shape: tuple[int, ...]) -> Any:
        """Zeroed memory on the device."""
        return ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, self.dtype), self._device, 0)

    def _strip_count(self, size: int) -> int:
        return sum(2 * layer.kv_heads for layer in self._layers if layer.head_size == size)

    def _strips(
        self, size: int, values: Sequence[Any], slot: int, position: int, capacity: int, batch: int
    ) -> list[int]:
        """Addresses of a slot's strips from `position` on, in values [2, batch, H, capacity, D]: by
        layer, half and head.
        """
        return [
            self._address(layer, value, half, slot, head, position, capacity, batch)
            for layer, value in zip(self._layers, values, strict=True)
            if layer.head_size == size
            for half in range(2)
            for head in range(layer.kv_heads)
        ]

    def _address(
        self,
        layer: LayerShape,
        value: Any,
        half: int,
        slot: int,
        head: int,
        position: int,
        capacity: int,
        batch: int,
    ) -> int:
        begin: int = value.ctypes.data if isinstance(value, np.ndarray) else value.data_ptr()
        strip = (half * batch + slot) * layer.kv_heads + head
        return begin + (strip * capacity + position) * layer.head_size * self.dtype.itemsize
