"""What a GGUF file states of its architecture, asked key by key: what nobody asked for is an error,
since a fact that is passed over would change every number in silence.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from edgeprefix.base.gguf.reader import GgufFile
from edgeprefix.runtime.errors import CheckpointError, UnsupportedBaseError

_REQUIRED: Any = object()
_MANY = 1 << 24  # more than any model has of anything, and little enough to try


class ArchitectureFacts:
    """The keys `ARCHITECTURE.…` of a file."""

    def __init__(self, file: GgufFile) -> None:
        self._file, self._prefix = file, f"{file.architecture}."
        self._asked: set[str] = set()

    def integer(self, key: str, default: Any = _REQUIRED) -> Any:
        """A whole number of things; of a list of equal ones (one a layer) that one. Raises
        CheckpointError for anything else, and for a missing one without a default.
        """
        value = self._value(key, default)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is default or (whole and 1 <= value <= _MANY):
            return value
        raise self._wrong(key, value, f"a whole number from 1 to {_MANY:,}")

    def real(self, key: str, default: Any = _REQUIRED) -> Any:
        """A number."""
        value = self._value(key, default)
        if value is default:
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        raise self._wrong(key, value, "a number")

    def text(self, key: str, default: Any = _REQUIRED) -> Any:
        """A text."""
        value = self._value(key, default)
        if value is default or isinstance(value, str):
            return value
        raise self._wrong(key, value, "a text")

    def passed_over(self, keys: Iterable[str]) -> None:
        """Keys that need no answer: they say again what another fact or a tensor says."""
        self._asked.update(keys)

    def require(self, key: str, expected: Any) -> None:
        """Raises UnsupportedBaseError unless a key is missing or has the value that the model has
        anyway.
        """
        value = self._value(key, expected)
        if value != expected:
            raise UnsupportedBaseError(
                f"{self._file.path}: {self._prefix}{key} is {value!r}, and such a model can be "
                f"read with {expected!r} only; give the checkpoint that the file was made of"
            )

    def require_all_asked(self) -> None:
        """Raises UnsupportedBaseError naming what the file states and nobody asked for."""
        stated = {
            key.removeprefix(self._prefix)
            for key in self._file.facts
            if key.startswith(self._prefix)
        }
        if left := sorted(stated - self._asked):
            raise UnsupportedBaseError(
                f"{self._file.path} states {', '.join(self._prefix + key for key in left[:3])}, "
                f"which is not known of {self._file.architecture} models here, and without it "
                "every number might be another; give the checkpoint that the file was made of"
            )

    def _value(self, key: str, default: Any) -> Any:
        self._asked.add(key)
        value = self._file.facts.get(self._prefix + key, default)
        if value is _REQUIRED:
            raise CheckpointError(
                f"{self._file.path} lacks {self._prefix}{key}; convert the model again, or "
                "download another file of it"
            )
        if isinstance(value, np.ndarray):
            kinds = set(value.tolist())
            return kinds.pop() if len(kinds) == 1 else value.tolist()
        return value

    def _wrong(self, key: str, value: Any, expected: str) -> CheckpointError:
        return CheckpointError(
            f"{self._file.path}: {self._prefix}{key} is {str(value)[:60]!r}, expected {expected}"
        )
