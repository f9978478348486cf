"""The cache as graphs of other exporters want it: handed over for each run, with the attention mask
that belongs to it.

`MaskedCache` hands over the slots' own memory, and the graph writes to it. `GrownCache` hands over
a past that ends with each row's last position, and gets it back longer by the new tokens: shorter
rows are padded on the left, so that in columns as well as in positions every token stands as far
from the next as if its row were alone. Windows and biases that count columns are right that way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edgeprefix.runtime.contracts.manifest import LayerShape
from edgeprefix.runtime.decoding.cache import (
    Array,
    Cache,
    SlotMemory,
    Slots,
    bind_address,
    layer_groups,
    require_memory,
)

Mask = npt.NDArray[np.bool_]


class HandedMemory(SlotMemory, Protocol):
    """A cache that is handed over run by run. B rows, S new tokens each."""

    def hand(self, binding: Any, slots: Sequence[int], starts: Sequence[int], count: int) -> Mask:
        """Binds past and present of every layer for `slots`, whose next `count` tokens stand at
        `starts` ….

        Gives the attention mask [B, columns]: true where a row has a token.
        """
        ...

    def take(self, slots: Sequence[int], starts: Sequence[int], count: int) -> None:
        """Takes over what the run has added."""
        ...


class MaskedCache(Cache):
    """For graphs that work in place: a row's tokens come first, a mask says how many there are."""

    def hand(self, binding: Any, slots: Sequence[int], starts: Sequence[int], count: int) -> Mask:
        """Binds the slots' own memory; they must follow one another. As HandedMemory.hand."""
        self.bind(binding, Slots(slots[0], slots[-1] + 1))
        ends = np.asarray(starts) + count  # [B]
        mask: Mask = np.arange(ends.max())[None] < ends[:, None]
        return mask

    def take(self, slots: Sequence[int], starts: Sequence[int], count: int) -> None:
        """Nothing is to be done: the graph has written to the slots."""


class GrownCache(Cache):
    """For graphs that give back a longer past. The slots hold what is true; the pasts of the latest
    rows are kept as they came back, so that a row's next token costs no copy.
    """

    def __init__(
        self, layers: Sequence[LayerShape], *, batch: int, capacity: int, dtype: np.dtype[Any]
    ) -> None:
        super().__init__(layers, batch=batch, capacity=capacity, dtype=dtype)
        self._layer_members = list(layer_groups(layers).values())
        self._single = _Pasts(self._groups, rows=1)  # of a prompt that is being fed
        self._several = _Pasts(self._groups, rows=batch)  # of those that decode
        self.nbytes += self._single.nbytes + self._several.nbytes
        require_memory(self.nbytes, batch=batch, capacity=capacity)

    def hand(self, binding: Any, slots: Sequence[int], starts: Sequence[int], count: int) -> Mask:
        """Binds pasts [B, H, T, D] and presents [B, H, T + count, D], T the longest row's. As
        HandedMemory.hand.
        """
        width = max(starts)
        padding = width - np.asarray(starts)  # [B]
        pasts = self._pasts(slots)
        if not pasts.holds(slots, starts):
            self._gather(pasts.past(len(slots), width), slots, starts)
        self._bind(binding.bind_input, "past_key_values", pasts.past(len(slots), width))
        self._bind(binding.bind_output, "present", pasts.present(len(slots), width + count))
        mask: Mask = np.arange(width + count)[None] >= padding[:, None]
        return mask

    def take(self, slots: Sequence[int], starts: Sequence[int], count: int) -> None:
        """Copies the new columns to the slots, and keeps the presents as the next pasts."""
        width, pasts = max(starts), self._pasts(slots)
        presents = pasts.present(len(slots), width + count)
        for group, present in zip(self._groups, presents, strict=True):
            for row, (slot, start) in enumerate(zip(slots, starts, strict=True)):
                group[:, :, slot, :, start : start + count] = present[:, :, row, :, width:]
        self._forget(slots)
        pasts.keep(slots, [start + count for start in starts])

    def write(self, slot: int, packed: Sequence[Array]) -> None:
        """As Cache.write."""
        super().write(slot, packed)
        self._forget([slot])

    def copy(self, source: int, target: int, *, start: int, stop: int) -> None:
        """As Cache.copy."""
        super().copy(source, target, start=start, stop=stop)
        self._forget([target])

    def gather(
        self, sources: Sequence[int], targets: Sequence[int], *, start: int, stop: int
    ) -> None:
        """As Cache.gather."""
        super().gather(sources, targets, start=start, stop=stop)
        self._forget(targets)

    def _pasts(self, slots: Sequence[int]) -> _Pasts:
        return self._single if len(slots) == 1 else self._several

    def _forget(self, slots: Sequence[int]) -> None:
        """The pasts that were kept for these slots are no longer what the slots hold."""
        for pasts in (self._single, self._several):
            pasts.forget(slots)

    def _gather(self, pasts: Sequence[Array], slots: Sequence[int], starts: Sequence[int]) -> None:
        """Builds pasts out of the slots: each row at the right end, zeros before it."""
        for past, group in zip(pasts, self._groups, strict=True):
            width = past.shape[4]
            for row, (slot, start) in enumerate(zip(slots, starts, strict=True)):
                past[:, :, row, :, : width - start] = 0
                past[:, :, row, :, width - start :] = group[:, :, slot, :, :start]

    def _bind(self, bind: Any, name: str, arrays: Sequence[Array]) -> None:
        for array, members in zip(arrays, self._layer_members, strict=True):
            for row, layer in enumerate(members):
                for half, kind in enumerate(("key", "value")):
                    part = array[row, half]  # [B, H, T, D], contiguous
                    bind_address(
                        bind,
                        f"{name}.{layer}.{kind}",
                        "cpu",
                        self.dtype,
                        part.shape,
                        part.ctypes.data,
                    )


class _Rows(NamedTuple):
    slots: tuple[int, ...]
    lengths: tuple[int, ...]


class _Pasts:
    """Two memories that change places: what a run writes, the next one reads."""

    def __init__(self, groups: Sequence[Array], *, rows: int) -> None:
        """`groups` are the cache's own, [layers, 2, B, H, C, D]."""
        self._shapes = [
            (group.shape[0], group.shape[3], group.shape[5]) for group in groups
        ]  # layers, H, D
        capacity = groups[0].shape[4]
        self._sides = [
            [
                np.empty(layers * 2 * rows * H * capacity * D, groups[0].dtype)
                for layers, H, D in self._shapes
            ]
            for _ in range(2)
        ]  # memory that is never touched is never taken
        self.nbytes = sum(flat.nbytes for side in self._sides for flat in side)
        self._kept: _Rows | None = None

    def past(self, rows: int, width: int) -> list[Array]:
        """What the run reads: [layers, 2, B, H, width, D] for each shape of layer."""
        return self._views(0, rows, width)

    def present(self, rows: int, width: int) -> list[Array]:
        """What the run writes."""
        return self._views(1, rows, width)

    def holds(self, slots: Sequence[int], lengths: Sequence[int]) -> bool:
        """Whether `past` is already that of these rows."""
        return self._kept == _Rows(tuple(slots), tuple(lengths))

    def keep(self, slots: Sequence[int], lengths: Sequence[int]) -> None:
        """What was written is the next past."""
        self._sides.reverse()
        self._kept = _Rows(tuple(slots), tuple(lengths))

    def forget(self, slots: Sequence[int]) -> None:
        """Keeps nothing when one of these slots is in it."""
        if self._kept is not None and not set(slots).isdisjoint(self._kept.slots):
            self._kept = None

    def _views(self, side: int, rows: int, width: int) -> list[Array]:
        views = []
        for flat, (layers, H, D) in zip(self._sides[side], self._shapes, strict=True):
            views.append(
                flat[: layers * 2 * rows * H * width * D].reshape(layers, 2, rows, H, width, D)
            )
        return views
