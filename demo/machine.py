"""The machine card of a report: what it was measured on, and with which versions."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgeprefix.runtime.decoding.machine import physical_cores
from edgeprefix.runtime.version import __version__

_PACKAGES = ("torch", "transformers", "onnxruntime", "onnx", "numpy", "tokenizers", "safetensors", "sacrebleu")


def machine_card() -> dict[str, Any]:
    """Processor, cores that may be used, memory in bytes (None when unknown) and system."""
    return {
        "processor": _processor(),
        "cores": physical_cores(),
        "memory_bytes": _memory_bytes(),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
    }


def versions() -> dict[str, str]:
    """edgeprefix and the packages that its numbers depend on; those not installed are left out."""
    found = {"edgeprefix": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


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


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
