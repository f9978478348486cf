"""How far a base's keys and values reach, channel by channel: the steps of an int8 cache.

A channel's largest number over some text, with a margin for what other texts hold, is 127 steps;
what lies beyond is cut off. Trained prefixes reach further than any text (up to nine times on the
embedded base), each in channels of its own. So the steps are widened for the prefixes that are
given, and only where these need it: every channel wide enough for any prefix would be coarse for
all text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeprefix.base import Base
from edgeprefix.base.quiet import quiet_transformers
from edgeprefix.export.given_text import row_texts
from edgeprefix.export.reference import Array, Ids, Reference, States, some_tokens
from edgeprefix.runtime.contracts.cache_scales import LARGEST_STEP, LayerScales
from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.errors import ExportError

_TOKENS = 256
_ROW_TOKENS = 4096  # of all rows together: torch reads them one by one
_MARGIN = 1.25
_SMALLEST = 1e-6  # of a channel that is always zero


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the cache of a bundle must hold besides ordinary text."""

    prefixes: tuple[Prefix, ...] = ()
    texts: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def read(cls, paths: Sequence[str | Path]) -> Calibration:
        """From prefix files (*.safetensors), folders of them, and files of rows (JSONL or CSV).

        Raises ExportError when a folder holds no prefix file, PrefixFileError, DataError.
        """
        prefixes: list[Prefix] = []
        texts: list[str] = []
        for path in map(Path, paths):
            if path.is_dir() or path.suffix == ".safetensors":
                prefixes += [Prefix.load(file) for file in _prefix_files(path)]
            else:
                texts += row_texts(path)
        return cls(prefixes=tuple(prefixes), texts=tuple(texts))


def measure_scales(base: Base, calibration: Calibration | None = None) -> tuple[LayerScales, ...]:
    """Scales [H, 1, D] of every layer.

    They hold the base's own keys and values over a text and over the calibration's texts, alone and
    behind each of its prefixes, and the prefixes themselves. Raises BaseMismatchError when a prefix
    belongs to another base.
    """
    given = calibration or Calibration()
    for prefix in given.prefixes:
        base.identity.require_same(prefix.base, what=f"prefix {prefix.name!r}")
    with quiet_transformers():
        reference, reach = Reference(base), _Reach()
        texts = list(_texts(base, given.texts))
        for states in (None, *(prefix.layers for prefix in given.prefixes)):
            for tokens in texts:
                room = base.max_positions - (0 if states is None else states[0][0].shape[1])
                if room > 0:
                    found = reference.own_states(tokens[:room], behind=states)
                    reach.add(found, margin=_MARGIN)
        for prefix in given.prefixes:
            reach.add(prefix.layers, margin=1.0)
    return reach.scales()


class _Reach:
    """The largest numbers seen, [H, 1, D] of each layer's keys and values."""

    def __init__(self) -> None:
        self._largest: list[list[Array]] = []

    def add(self, states: States, *, margin: float) -> None:
        """Widens it to hold `states` times `margin`."""
        found = [
            [np.abs(array).max(axis=1, keepdims=True) * margin for array in pair] for pair in states
        ]
        self._largest = [
            [np.maximum(*arrays) for arrays in zip(old, new, strict=True)]
            for old, new in zip(self._largest or found, found, strict=True)
        ]

    def scales(self) -> tuple[LayerScales, ...]:
        """As steps."""
        return tuple(
            LayerScales(*(np.maximum(array / LARGEST_STEP, _SMALLEST) for array in pair))
            for pair in self._largest
        )


def _texts(base: Base, given: Sequence[str]) -> Iterator[Ids]:
    """Tokens of a text of our own, with the begin token where there is one, then of the given ones,
    up to _ROW_TOKENS in all.
    """
    begin = getattr(base.config, "bos_token_id", None)
    opening = [begin] if isinstance(begin, int) else []
    own = some_tokens(base, min(_TOKENS, base.max_positions - 1))
    yield np.array([*opening, *own], np.int64)
    yield own
    if base.tokenizer is None:
        return
    left = _ROW_TOKENS
    for text in given:
        tokens = np.array(base.tokenizer.encode(text).ids[:left], np.int64)
        left -= len(tokens)
        if len(tokens):
            yield tokens


def _prefix_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = [file for file in sorted(path.glob("*.safetensors")) if not file.name.startswith(".")]
    if not found:
        raise ExportError(f"{path} holds no prefix file (*.safetensors) to calibrate on")
    return found
