"""Memory that was freed goes back to the operating system. pytest
tests/runtime/test_freed_memory.py
"""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

_PROGRAM = """
from pathlib import Path
from edgeprefix.runtime.decoding.freed_memory import give_back_freed_memory

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if "VmRSS" in line)

# 50 MB in pieces too small for mappings of their own
blocks = [bytearray(65_536) for _ in range(800)]
del blocks[:-1]  # the last one holds the heap's end
before = resident()
give_back_freed_memory()
print(before - resident())
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="this C library trims nothing",
)
def test_free_pages_are_released() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 20_000, "kB that went back"
