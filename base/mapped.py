"""Giving back the memory of a checkpoint's pages that have been read.

transformers maps a checkpoint's file instead of reading it. Pages that were touched stay resident
until the system wants them back; the exporter touches each tensor, one after the other, and so
would come to hold the whole file. A page that is given back is read from the file again when it is
needed.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

_MAPS = Path("/proc/self/maps")
_LENGTH_BYTES = 8  # of the header's length, with which a safetensors file begins
_PATH_COLUMN = 5  # address, rights, offset, device, inode, path


def give_back(tensor: Tensor) -> None:
    """Lets go of a tensor's resident pages, when they are those of a mapped checkpoint; any other
    memory is left alone.
    """
    advise = _madvise()
    if advise is None or tensor.numel() == 0:
        return
    start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (
        (tensor.data_ptr() + tensor.numel() * tensor.element_size())
        // mmap.PAGESIZE
        * mmap.PAGESIZE
    )
    if start < end and _is_mapped_checkpoint(start, end):
        advise(
            ctypes.c_void_p(start), ctypes.c_size_t(end - start), ctypes.c_int(mmap.MADV_DONTNEED)
        )


def _is_mapped_checkpoint(start: int, end: int) -> bool:
    """Whether these addresses lie in one mapping of a safetensors file: only such pages can be read
    again.
    """
    for line in _MAPS.read_text().splitlines():
        low, _, high = line.partition(" ")[0].partition("-")
        if int(low, 16) <= start and end <= int(high, 16):
            columns = line.split(maxsplit=_PATH_COLUMN)
            return len(columns) > _PATH_COLUMN and _is_safetensors(Path(columns[_PATH_COLUMN]))
    return False


def _is_safetensors(file: Path) -> bool:
    """By what it begins with, not by its name: the hub's cache names files by their hashes, and
    links lead to them.
    """
    try:
        with open(file, "rb") as stream:
            start = stream.read(_LENGTH_BYTES + 1)
        (length,) = struct.unpack("<Q", start[:_LENGTH_BYTES])
        return start[_LENGTH_BYTES:] == b"{" and length <= file.stat().st_size
    except (
        OSError,
        struct.error,
    ):  # no file at all ([heap], /dev/zero (deleted), …), or a short one
        return False


@functools.cache
def _madvise() -> Callable[..., Any] | None:
    """The system call, None where there is none or no list of mappings to check with."""
    if not _MAPS.exists() or not hasattr(mmap, "MADV_DONTNEED"):
        return None
    call: Callable[..., Any] = ctypes.CDLL(None).madvise
    return call
