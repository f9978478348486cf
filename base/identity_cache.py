"""A base's identity is computed once: hashing gigabytes takes seconds, and every command asks for
it.

What was computed is kept in one small file per checkpoint, with what the file system says of each
file that was read: size, times of change, inode, device. Only when all of that is the same is it
believed; otherwise it is computed anew. Files that changed a moment ago are not remembered, since a
second change could fall into the same tick of the file system's clock. `EDGEPREFIX_CACHE` names
another folder than ~/.cache/edgeprefix; a folder that cannot be written does no harm.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgeprefix.runtime.contracts.files import write_atomic
from edgeprefix.runtime.errors import OutputError

_RULES = 2  # to be raised whenever the same files would give another identity
_SETTLED_S = 2.0  # the coarsest clock of a file system in use (FAT)

Stamps = dict[str, list[int]]
"""File → size in bytes, times of content and of inode change in ns, inode, device."""


def remembered(
    folder: Path, files: Sequence[Path], compute: Callable[[], Mapping[str, str]]
) -> Mapping[str, str]:
    """What `compute` gives for `files` of `folder`, from the cache when none of them has changed
    since.
    """
    before = _stamps(files)
    place = _place(folder)
    known = _recall(place, before)
    if known is not None:
        return known
    values = compute()
    if _stamps(files) == before and _settled(before):
        with contextlib.suppress(OutputError):
            write_atomic(
                place,
                json.dumps({"rules": _RULES, "files": before, "values": dict(values)}).encode(),
            )
    return values


def _recall(place: Path, stamps: Stamps) -> Mapping[str, str] | None:
    try:
        entry = json.loads(place.read_bytes())
        values = entry["values"] if entry["rules"] == _RULES and entry["files"] == stamps else None
    except (OSError, ValueError, KeyError, TypeError):  # missing, unreadable, of another form
        return None
    return (
        values
        if isinstance(values, dict) and all(isinstance(value, str) for value in values.values())
        else None
    )


def _place(folder: Path) -> Path:
    home = os.environ.get("EDGEPREFIX_CACHE")
    root = (
        Path(home)
        if home
        else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "edgeprefix"
    )
    return root / "identities" / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()}.json"


def _stamps(files: Sequence[Path]) -> Stamps:
    """Of the files that exist; links are followed, as the hub's cache is made of them."""
    found = {}
    for file in files:
        with contextlib.suppress(OSError):
            facts = file.stat()
            found[str(file)] = [
                facts.st_size,
                facts.st_mtime_ns,
                facts.st_ctime_ns,
                facts.st_ino,
                facts.st_dev,
            ]
    return found


def _settled(stamps: Stamps) -> bool:
    newest = max((max(mtime, ctime) for _, mtime, ctime, *_ in stamps.values()), default=0)
    return time.time_ns() - newest > _SETTLED_S * 1e9
