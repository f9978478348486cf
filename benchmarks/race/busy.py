"""How much of the machine others took while a turn ran: two processes on two cores may well be ten
times slower than one.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

# Of /proc/stat's first line: user, nice, system, irq, softirq, steal
_BUSY_FIELDS = (
    0,
    1,
    2,
    5,
    6,
    7,
)


class Others:
    """Counts from its making on. Children must have been waited for when it is asked."""

    def __init__(self) -> None:
        self._started, self._busy, self._own = time.perf_counter(), _busy_seconds(), _own_seconds()

    def cores(self) -> float:
        """Cores that neither this process nor its children kept busy, in the mean."""
        busy, own = _busy_seconds() - self._busy, _own_seconds() - self._own
        return max(0.0, (busy - own) / (time.perf_counter() - self._started))


def _busy_seconds() -> float:
    ticks = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(ticks[field]) for field in _BUSY_FIELDS) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    return sum(os.times()[:4])
