"""What this machine offers: cores to compute with and memory to hold caches in.

Containers limit both below what the operating system shows, so the limits of control groups are
read too (control_groups.py).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from edgeprefix.runtime.decoding.control_groups import ControlGroups


def physical_cores() -> int:
    """Physical cores (hyper-threads share their units) within this process' limits."""
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = ControlGroups().processors() or allowed
    return max(1, min(allowed, _cores_in_cpuinfo() or allowed, int(quota)))


def available_bytes() -> int | None:
    """Memory that can be taken without swapping; None where the system does not tell."""
    known = [
        amount
        for amount in (_meminfo_available(), ControlGroups().memory_left())
        if amount is not None
    ]
    return min(known, default=None)


def resident_bytes() -> int | None:
    """This process' resident memory; None where the operating system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return None


def _cores_in_cpuinfo() -> int | None:
    pairs, socket = set(), "0"
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = (part.strip() for part in line.partition(":"))
            if key == "physical id":
                socket = value
            elif key == "core id":
                pairs.add((socket, value))
    return len(pairs) or None


def _meminfo_available() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None
