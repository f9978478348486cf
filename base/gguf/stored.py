"""A GGUF file's own numbers, kept as the integer steps that they are: what a bundle can hold as it
stands, without rounding anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgeprefix.base.gguf.kinds import rounded_matrix
from edgeprefix.base.gguf.layout import Place, places
from edgeprefix.base.gguf.reader import GgufFile, is_gguf
from edgeprefix.base.loader import Base
from edgeprefix.base.rounding import RoundedMatrix
from edgeprefix.runtime.errors import CheckpointError


def stored_matrices(base: Base) -> Mapping[str, RoundedMatrix]:
    """Every quantised matrix of a base's GGUF file by the name of its parameter in torch, as
    [N, K] whichever way the module keeps it; each is unpacked when it is asked for.

    A tied embedding stands under both its names. What is not in it, the file holds in fp32, fp16 or
    bf16. Raises CheckpointError when the base is no GGUF file, or when one of its kinds is not of
    integer steps.
    """
    if not is_gguf(base.folder):
        raise CheckpointError(
            f"base {base.identity.name} is no GGUF file, so it has no quantised numbers of its "
            "own; choose the precision int8 or int4"
        )
    model: Any = base.model
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    file = GgufFile.open(base.folder)
    found = {
        name: place
        for name, place in places(file, model.config, shapes).items()
        if not place.tensor.kind.plain
    }
    for place in found.values():
        if place.tensor.kind.steps is None:
            raise CheckpointError(
                f"{file.path}: {place.name} is of kind {place.tensor.kind.name}, whose numbers are "
                "no even steps; choose the precision int8 or int4, or take a file of another kind, "
                "Q4_K_M or Q8_0 say"
            )
    return _StoredMatrices(found)


class _StoredMatrices(Mapping[str, RoundedMatrix]):
    """Unpacks a matrix when it is asked for, and keeps none."""

    def __init__(self, found: Mapping[str, Place]) -> None:
        self._places = found

    def __getitem__(self, name: str) -> RoundedMatrix:
        place = self._places[name]
        found = rounded_matrix(place.tensor.kind, place.tensor.data)
        assert found is not None  # others were refused
        place.tensor.give_back()
        return found if place.rows is None else found.rows(place.rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places
