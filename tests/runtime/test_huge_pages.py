"""Memory that is taken while a graph is opened goes into huge pages; memory that was there stays as
it is.

pytest tests/runtime/test_huge_pages.py
"""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeprefix.runtime.decoding.huge_pages import _without, new_memory_in_huge_pages

_MIB = 1 << 20
_MODES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
needs_huge_pages = pytest.mark.skipif(
    sys.platform != "linux" or not _MODES.exists() or "[never]" in _MODES.read_text(),
    reason="this system gives no huge pages",
)


def test_only_what_is_new_is_advised() -> None:
    ranges = [(0, 10), (20, 30), (40, 60)]
    assert list(_without(ranges, [])) == ranges
    assert list(_without(ranges, ranges)) == []
    assert list(_without(ranges, [(0, 10), (22, 25), (50, 70)])) == [(20, 22), (25, 30), (40, 50)]


def test_numbers_stay_what_they_are() -> None:
    with new_memory_in_huge_pages():
        memory = mmap.mmap(-1, 8 * _MIB)
        numbers = np.frombuffer(memory, np.uint32)
        numbers[:] = np.arange(len(numbers))
    assert np.array_equal(numbers, np.arange(len(numbers)))


@needs_huge_pages
def test_new_memory_is_marked_and_old_memory_is_not() -> None:
    # A kind that is never touched
    before = mmap.mmap(-1, 8 * _MIB, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    with new_memory_in_huge_pages():
        memory = mmap.mmap(-1, 8 * _MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory[:] = b"\1" * (8 * _MIB)
    assert "hg" in _flags(memory)
    assert "hg" not in _flags(before)


def test_an_error_inside_passes_through() -> None:
    with pytest.raises(ValueError, match="inside"), new_memory_in_huge_pages():
        raise ValueError("inside")


def _flags(memory: mmap.mmap) -> list[str]:
    """The kernel's flags of the mapping that `memory` lies in."""
    address = np.frombuffer(memory, np.uint8).ctypes.data + 4 * _MIB
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            start, stop = (int(part, 16) for part in first.split("-"))
            inside = start <= address < stop
        elif inside and first == "VmFlags:":
            return line.split()[1:]
    return []
