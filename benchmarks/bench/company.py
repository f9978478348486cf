"""How much of the machine others used: a measurement beside a busy neighbour is no measurement.

/proc/stat counts what every core did. What our own processes used is taken off; the rest belongs to
others, or was never given to this machine (steal). Elsewhere than on Linux nothing is known, and
the report says so.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")
BUSY_SHARE = 0.05
"""Above this share of the cores a warning is due."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Shares of the cores' time, 0 to 1."""

    others: float
    steal: float


@dataclass(frozen=True, kw_only=True)
class _Ticks:
    busy_s: float
    steal_s: float
    own_s: float
    at: float


class CompanyWatch:
    """Counts from its making on. `shares` needs every child process to have ended, as only then its
    time is known.
    """

    def __init__(self) -> None:
        self._start = _now()

    def shares(self) -> Shares | None:
        """What others took since the start; None where the system does not tell."""
        end = _now()
        if self._start is None or end is None:
            return None
        capacity = max((end.at - self._start.at) * _cores(), 1e-9)
        others = end.busy_s - self._start.busy_s - (end.own_s - self._start.own_s)
        steal = end.steal_s - self._start.steal_s
        return Shares(
            others=min(max(others / capacity, 0.0), 1.0), steal=min(max(steal / capacity, 0.0), 1.0)
        )


def shares_for(seconds: float) -> Shares | None:
    """What others use while this process waits."""
    watch = CompanyWatch()
    time.sleep(seconds)
    return watch.shares()


def _now() -> _Ticks | None:
    """Seconds that the allowed cores were busy, lost to the hypervisor, and used by this process
    and its ended children.
    """
    if not _STAT.is_file():
        return None
    busy = steal = 0.0
    names = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    for line in _STAT.read_text().splitlines():
        name, *counts = line.split()
        if name in names:
            user, nice, system, _idle, _wait, irq, soft, stolen = map(int, counts[:8])
            busy += user + nice + system + irq + soft
            steal += stolen
    per_s, own = os.sysconf("SC_CLK_TCK"), os.times()
    used = own.user + own.system + own.children_user + own.children_system
    return _Ticks(busy_s=busy / per_s, steal_s=steal / per_s, own_s=used, at=time.perf_counter())


def _cores() -> int:
    return len(os.sched_getaffinity(0))
