"""Files that are written whole or not at all.

A file is written beside its target, flushed to the disk and renamed over it; a folder is built
beside its target and swapped in when it is complete. So a reader never sees half a file, and a full
disk or Ctrl-C leaves the old one intact.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeprefix.runtime.errors import EdgePrefixError, OutputError

_CHUNK_BYTES = 1 << 20


@contextlib.contextmanager
def output_errors(target: Path) -> Iterator[None]:
    """Turns the operating system's refusals (read-only, full disk, …) into an OutputError that
    names the target.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}; the previous content is untouched"
        ) from error


def read_json(path: Path, error: type[EdgePrefixError], *, missing: str, remedy: str = "") -> Any:
    """The JSON value in a file.

    Raises `error`: with the text `missing` when there is no such file, else with the reason,
    `remedy` behind it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as problem:
        raise error(missing) from problem
    except (OSError, ValueError) as problem:
        raise error(f"{path} cannot be read: {problem}{remedy}") from problem


def write_atomic(path: str | Path, data: bytes) -> None:
    """Writes `data` to `path` whole or not at all (temporary file, fsync, rename).

    Raises OutputError when the place cannot be written; an existing file is then as it was.
    """
    target = Path(path)
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(
            prefix=f".{target.name}.", suffix=".tmp", dir=target.parent
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, _default_mode())
            os.replace(name, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
        _sync_folder(target.parent)


@contextlib.contextmanager
def atomic_folder(path: str | Path, *, force: bool = False) -> Iterator[Path]:
    """Yields an empty folder beside `path` that takes its place when the block ends without an
    error.

    Raises OutputError when `path` exists and `force` is false, or when it cannot be written. With
    `force` the old folder stays in place until the new one is whole.
    """
    target = Path(path)
    if target.exists() and not force:
        raise OutputError(
            f"{target} exists already; choose another --out, or pass --force to replace it"
        )
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        building = Path(
            tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        )
    try:
        with output_errors(target):
            yield building
            for file in building.rglob("*"):
                if file.is_file():
                    _sync_file(file)
            os.chmod(building, 0o777 & ~_umask())
            _swap_in(building, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def sha256_of_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits, read in chunks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _swap_in(building: Path, target: Path) -> None:
    """Renames `building` to `target`; a folder cannot be renamed over a full one, so the old one
    steps aside first.
    """
    if not target.exists():
        os.replace(building, target)
    else:
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
        os.replace(target, aside / "old")
        try:
            os.replace(building, target)
        except BaseException:
            os.replace(aside / "old", target)
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    _sync_folder(target.parent)


def _sync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Makes a rename durable; Windows has no handle for folders, and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _default_mode() -> int:
    """mkstemp makes files for their owner only; a prefix file should have the permissions of any
    new file.
    """
    return 0o666 & ~_umask()
