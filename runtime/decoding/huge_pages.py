"""Weights in huge pages, where the operating system lets a process ask for them (Linux).

A decoding step reads every weight once. In pages of 4 KiB that is tens of thousands of address
translations for each token, and they, not the memory, set the pace: the same step over pages of 2
MiB was a tenth to a quarter faster (benchmarks/engine_session.py). ONNX Runtime has no option for
it, so the memory that it took while a graph was opened is looked up and the kernel asked to move
it.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

_MAPS = Path("/proc/self/maps")
_HUGE = 2 << 20
_PIECE = 16 << 20
# Usually 30 ms; where free memory is in small pieces, the kernel does the rest when it has time
_MOST_S = 0.5
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25  # linux/mman.h; a kernel before 6.1 refuses the second

Range = tuple[int, int]
"""Addresses from the first up to, not with, the second."""


@contextmanager
def new_memory_in_huge_pages() -> Iterator[None]:
    """Moves the private memory taken inside the block into huge pages, if there are some."""
    before = _private_memory()
    yield
    deadline = time.perf_counter() + _MOST_S
    moved = sum(
        _advise(start, stop, deadline) for start, stop in _without(_private_memory(), before)
    )
    logger.debug("%d MiB were moved into huge pages", moved >> 20)


def _private_memory() -> list[Range]:
    """Writable memory of this process that is in no file, in order; nothing if unknown."""
    if sys.platform != "linux":
        return []
    try:
        lines = _MAPS.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        addresses, rights, _, _, _, *name = line.split()
        if rights.startswith("rw") and (not name or name[0] == "[heap]"):
            start, stop = (int(address, 16) for address in addresses.split("-"))
            found.append((start, stop))
    return found


def _without(ranges: list[Range], taken: list[Range]) -> Iterator[Range]:
    """What of `ranges` is not in `taken`; both are in order."""
    for start, stop in ranges:
        for other_start, other_stop in taken:
            if other_stop <= start or other_start >= stop:
                continue
            if start < other_start:
                yield start, other_start
            start = max(start, other_stop)
        if start < stop:
            yield start, stop


def _advise(start: int, stop: int, deadline: float) -> int:
    """Asks for huge pages in whole ones of a range; gives the bytes that were moved at once."""
    start, stop = -(-start // _HUGE) * _HUGE, stop // _HUGE * _HUGE
    if start >= stop:
        return 0
    madvise = ctypes.CDLL(None).madvise
    # A refusal changes nothing but speed
    madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), _MADV_HUGEPAGE)
    moved = 0
    while start < stop and time.perf_counter() < deadline:
        size = min(_PIECE, stop - start)
        moved += (
            size
            if madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _MADV_COLLAPSE) == 0
            else 0
        )
        start += size
    return moved
