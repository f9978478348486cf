"""What Linux allows this process: memory and processor time of its control groups, version 1 and 2.

A limit of any group above holds as well, so each is looked at from the process' own group up to the
one that is mounted as the root (a container sees no higher). The hierarchies are found by
/proc/self/mountinfo, the own groups by /proc/self/cgroup.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 1 << 60  # version 1 writes a huge number where there is no limit


@dataclass(frozen=True)
class ControlGroups:
    """The groups of this process, read anew at each question; `root` is `/` but in tests."""

    root: Path = Path("/")

    def memory_left(self) -> int | None:
        """Bytes until the tightest limit; None when there is none. Page cache that nobody has used
        lately can be had back and counts as free.
        """
        left = [
            limit - used
            for folder in self._folders("memory")
            for limit, used in [(_memory_limit(folder), _memory_used(folder))]
            if limit is not None and used is not None
        ]
        return max(0, min(left)) if left else None

    def processors(self) -> float | None:
        """Processors' worth of time that the tightest quota allows; None when there is none."""
        shares = [_processors(folder) for folder in self._folders("cpu")]
        return min((share for share in shares if share is not None), default=None)

    def _folders(self, controller: str) -> Iterator[Path]:
        """Folders of this process' groups that have limits of a controller, its own first."""
        for kind, mounted, mount in self._mounts():
            group = self._own_group(kind)
            if group is None or (kind and controller not in kind.split(",")):
                continue
            folder = self.root / mount.lstrip("/") / _below(group, mounted)
            for _ in Path(_below(group, mounted)).parts:
                yield folder
                folder = folder.parent
            yield folder

    def _mounts(self) -> Iterator[tuple[str, str, str]]:
        """(controllers, group that is mounted, where) of each hierarchy; version 2 has no list of
        controllers.
        """
        for line in _lines(self.root / "proc/self/mountinfo"):
            before, _, after = line.partition(" - ")
            fields, kind = before.split(), after.split()
            if len(fields) >= 5 and kind and kind[0] in ("cgroup", "cgroup2"):
                controllers = kind[-1] if kind[0] == "cgroup" else ""
                yield controllers, _unescaped(fields[3]), _unescaped(fields[4])

    def _own_group(self, controllers: str) -> str | None:
        """This process' group in the hierarchy with these controllers."""
        wanted = set(controllers.split(","))
        for line in _lines(self.root / "proc/self/cgroup"):
            _, names, group = f"{line}::".split(":", 2)
            if wanted & set(names.split(",")):  # version 2: both are empty
                return group.removesuffix("::")
        return None


def _below(group: str, mounted: str) -> str:
    """A group's path within what is mounted; "" for the mount itself, and for a group that lies
    outside of it (a container without a namespace of its own sees its group as the root).
    """
    if mounted.rstrip("/") and group != mounted and not group.startswith(mounted.rstrip("/") + "/"):
        return ""
    inner = group[len(mounted.rstrip("/")) :].strip("/")
    return "" if ".." in inner.split("/") else inner


def _memory_limit(folder: Path) -> int | None:
    """Version 2 slows a group down at memory.high, and ends it at memory.max."""
    names = ("memory.max", "memory.high", "memory.limit_in_bytes")
    limits = [_number(folder / name) for name in names]
    return min((limit for limit in limits if limit is not None), default=None)


def _memory_used(folder: Path) -> int | None:
    """What is used and cannot be had back."""
    used = _number(folder / "memory.current")
    if used is None:
        used = _number(folder / "memory.usage_in_bytes")
    if used is None:
        return None
    # total_…: version 1 counts the groups below apart
    for name in ("total_inactive_file", "inactive_file"):
        for line in _lines(folder / "memory.stat"):
            if line.startswith(f"{name} "):
                return max(0, used - int(line.split()[1]))
    return used


def _processors(folder: Path) -> float | None:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    for line in _lines(folder / "cpu.max"):
        with contextlib.suppress(ValueError):
            quota, period = map(int, line.split())
    return quota / period if quota and period and quota > 0 and period > 0 else None


def _number(path: Path) -> int | None:
    """None when the file is missing, or says "max" or something as large."""
    with contextlib.suppress(OSError, ValueError):
        number = int(path.read_text())
        return number if number < _UNLIMITED else None
    return None


def _lines(path: Path) -> list[str]:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text().splitlines()
    return []


def _unescaped(text: str) -> str:
    """mountinfo writes spaces and the like as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
