"""How a base marks positions in its keys: what it takes to move a prefix to another place.
Specified in docs/bundle.md.

A rotary base turns pairs of numbers of each key by an angle that grows with the position. So a key
that was computed at one position becomes the key of another by turning it further. A base with
learned positions has no such rule.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprefix.runtime.contracts.fields import Fields, whole

Array = npt.NDArray[np.float32]

RELATIVE, ABSOLUTE, BY_LENGTH, UNKNOWN = "relative", "absolute", "by-length", "unknown"
KINDS = {
    RELATIVE: "keys are turned by their position, or do not depend on it: they can be moved",
    ABSOLUTE: (
        "positions are added to the text (learned or sinusoidal): keys and values of another "
        "position are other numbers"
    ),
    BY_LENGTH: "the angles of all keys depend on how long the text is (longrope)",
    UNKNOWN: "what positions do to its keys is not a rotation that could be turned further",
}
"""What `kind` may be, and what it means."""


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """Turns the first 2·len(frequencies) numbers of a key, pair i by `frequencies[i]` radians for
    each position.

    Pair i is (i, i + R/2) of the R turned numbers, or (2i, 2i + 1) when `interleaved`.
    """

    frequencies: tuple[float, ...]
    interleaved: bool = False

    def turn(self, key: Array, positions: int) -> Array:
        """Keys [H, P, D], each moved `positions` further; negative is back. Computed in fp64."""
        angles = np.asarray(self.frequencies, np.float64) * positions  # [R/2]
        cos, sin = np.cos(angles), np.sin(angles)
        first, second = self._pairs()
        moved = key.astype(np.float64)
        one, other = moved[..., first], moved[..., second]
        moved[..., first], moved[..., second] = one * cos - other * sin, other * cos + one * sin
        return moved.astype(np.float32)

    def _pairs(self) -> tuple[slice, slice]:
        half = len(self.frequencies)
        if self.interleaved:
            return slice(0, 2 * half, 2), slice(1, 2 * half, 2)
        return slice(0, half), slice(half, 2 * half)


@dataclass(frozen=True, kw_only=True)
class Positions:
    """Of one base. `layers[i]` is the entry of `rotations` that layer i uses, None for a layer that
    does not rotate.
    """

    kind: str
    rotations: tuple[Rotation, ...] = ()
    layers: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(
                f"positions of kind {self.kind!r} are unknown; known are {', '.join(KINDS)}"
            )
        if any(index is not None and not 0 <= index < len(self.rotations) for index in self.layers):
            raise ValueError(
                f"a layer uses a rotation that is not there ({len(self.rotations)} are)"
            )

    def rotation(self, layer: int) -> Rotation | None:
        """The rotation of a layer, None when it does not rotate."""
        index = self.layers[layer]
        return None if index is None else self.rotations[index]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Positions:
        """Reads `to_json`'s form. Raises ValueError for anything else."""
        fields = Fields(data, "positions ")
        rotations = tuple(
            _rotation(Fields(rotation, "rotation ")) for rotation in fields.values("rotations")
        )
        layers = tuple(
            None if index is None else whole(index, "positions: a layer's rotation")
            for index in fields.values("layers")
        )
        return cls(kind=fields.text("kind"), rotations=rotations, layers=layers)


def _rotation(fields: Fields) -> Rotation:
    numbers = fields.values("frequencies")
    if not all(isinstance(number, float | int) and number is not True for number in numbers):
        raise ValueError("positions: 'frequencies' of a rotation hold something that is no number")
    return Rotation(frequencies=tuple(map(float, numbers)), interleaved=fields.truth("interleaved"))
