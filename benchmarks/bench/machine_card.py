"""The machine card of a report: what it was measured on, and with which versions."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgeprefix.runtime.decoding.machine import available_bytes, physical_cores
from edgeprefix.runtime.version import __version__

RUNTIME_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "numpy", "tokenizers", "safetensors")

_CPU = Path("/sys/devices/system/cpu/cpu0")
# Of a processor's flags, those that decide which matrix kernels run.
_FEATURES = (
    "avx2",
    "f16c",
    "fma",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
    "sme",
)


def machine_card() -> dict[str, Any]:
    """Processor with its features, cores, caches, memory and system; what the system does not tell
    is None.
    """
    return {
        "processor": _processor(),
        "features": features(),
        "cores": physical_cores(),
        "logical_cores": os.cpu_count(),
        "last_level_cache_bytes": last_level_cache_bytes(),
        "memory_bytes": _memory_bytes(),
        "memory_available_bytes": available_bytes(),
        "governor": _first_line(_CPU / "cpufreq" / "scaling_governor"),
        "load_average": load_average(),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "architecture": platform.machine(),
    }


def versions(packages: Iterable[str] = RUNTIME_PACKAGES) -> dict[str, str]:
    """edgeprefix and the packages that its numbers depend on; those not installed are left out."""
    found = {"edgeprefix": __version__}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def features() -> list[str]:
    """The vector and matrix extensions that the processor has."""
    for line in _lines(Path("/proc/cpuinfo")):
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags = set(value.split())
            return [name for name in _FEATURES if name in flags]
    return []


def last_level_cache_bytes() -> int | None:
    """The largest cache that a core can use; None where the system does not tell."""
    sizes = [_first_line(path) for path in _CPU.glob("cache/index*/size")]
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    known = [
        int(size[:-1]) * units[size[-1]]
        for size in sizes
        if size and size[-1] in units and size[:-1].isdigit()
    ]
    return max(known, default=None)


def load_average() -> float | None:
    """Processes that want to run, mean of the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _processor() -> str:
    for line in _lines(Path("/proc/cpuinfo")):
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip().replace("(R)", "").replace("(TM)", "")
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def _first_line(path: Path) -> str | None:
    return next(iter(_lines(path)), None)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
