"""A task's prefix as a slot of the cache takes it."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprefix.runtime.decoding.cache import Packed


@dataclass(frozen=True, kw_only=True, eq=False)
class ResidentPrefix:
    """A verified prefix in the form that is copied into a slot."""

    name: str
    length: int
    packed: tuple[Packed, ...]

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return sum(part.nbytes for part in self.packed)
