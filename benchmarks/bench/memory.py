"""Peak memory of the process that asks. Numbers of a process that did nothing but the job are the
honest ones.
"""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path


def peak_bytes() -> int | None:
    """The most memory that this process ever held; None where the system does not tell.

    Linux: VmHWM, which begins anew with a program; ru_maxrss would inherit what the parent had
    before the fork.
    """
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) * 1024
    try:
        import resource  # POSIX only
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
