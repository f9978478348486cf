"""Files that are written whole or not at all.

A file is written beside its target, flushed to the disk and renamed over it; a folder is built
beside its target and swapped in when it is complete. So a reader never sees half a file, and a full
disk or Ctrl-C leaves the old one intact. What a killed process leaves beside its target, the next
writer of that target removes.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from edgeprefix.runtime.contracts.locks import only_writer, try_lock
from edgeprefix.runtime.contracts.regular_file import open_regular
from edgeprefix.runtime.errors import EdgePrefixError, OutputError

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_CLUTTER = (".DS_Store", "Thumbs.db", "desktop.ini")  # what file managers leave in any folder

Ours = Callable[[Path], Collection[str]]
"""Given a folder, the files in it that its writer makes, relative and with slashes; `NAME/` stands
for a whole subfolder. Empty when the folder is none of its own.
"""


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
    """The JSON value in a file of another program, which may hold what strict_json.py refuses (a
    key twice, NaN).

    Raises `error`: with the text `missing` when there is no such file, else with the reason,
    `remedy` behind it.
    """
    try:
        with open_regular(path) as (file, size):
            return json.loads(file.read(size).decode("utf-8"))
    except FileNotFoundError as problem:
        raise error(missing) from problem
    except RecursionError as problem:
        raise error(f"{path} cannot be read: it is nested too deep{remedy}") from problem
    except (OSError, ValueError) as problem:
        raise error(f"{path} cannot be read: {problem}{remedy}") from problem


def write_atomic(path: str | Path, data: bytes) -> None:
    """Writes `data` to `path` whole or not at all (temporary file, fsync, rename).

    Raises OutputError when the place cannot be written, or is no file (a device, say); an existing
    file is then as it was.
    """
    target = Path(path)
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_file():
            raise OutputError(f"cannot write {target}: it is no file; choose another name")
        remove_abandoned(target)
        descriptor, name = _temporary(target)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                if os.name != "nt":
                    os.replace(name, target)
            if os.name == "nt":  # which renames no open file
                os.replace(name, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
        _sync_folder(target.parent)


@contextlib.contextmanager
def atomic_folder(path: str | Path, *, ours: Ours, force: bool = False) -> Iterator[Path]:
    """Yields an empty folder beside `path` that takes its place when the block ends without an
    error.

    Raises OutputError when `path` exists and `force` is false, when it holds files that `ours` does
    not name, when somebody else is writing it, or when it cannot be written. With `force` the old
    folder stays in place until the new one is whole.
    """
    shown, target = Path(path), _named(Path(path))
    with contextlib.ExitStack() as stack:
        with output_errors(shown):
            target.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(only_writer(target))
            _clear_leftovers(target)
            require_replaceable(shown, force=force, ours=ours)
            building = _beside(target, "tmp")
            building.mkdir()
        stack.callback(shutil.rmtree, building, ignore_errors=True)
        with output_errors(shown):
            yield building
            for file in building.rglob("*"):
                if file.is_file():
                    _sync_file(file)
            require_replaceable(shown, force=force, ours=ours)  # hours may have passed
            _swap_in(building, target)


def require_replaceable(folder: Path, *, force: bool, ours: Ours) -> None:
    """Raises OutputError when something stands at `folder` that must not be replaced.

    Without `force` nothing may stand there; with it, only a folder of nothing but `ours`.
    """
    if not os.path.lexists(folder):
        return
    if not force:
        raise OutputError(
            f"{folder} exists already; choose another --out, or pass --force to replace it"
        )
    if not folder.is_dir():
        raise OutputError(f"{folder} is no folder, so it is not replaced; choose another --out")
    known = ours(folder)
    foreign = sorted(name for name in _files_in(folder) if not _is_known(name, known))
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise OutputError(
            f"{folder} holds {', '.join(foreign[:3])}{more}, which this command does not write: "
            "--force replaces only what it wrote itself; choose another --out, or move them away"
        )


def sha256_of_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits, read in chunks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _files_in(folder: Path) -> Iterator[str]:
    """Relative names of everything below a folder that is no folder itself; links are not
    followed.
    """
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in (*files, *links):
            yield Path(place, name).relative_to(folder).as_posix()


def _is_known(name: str, known: Collection[str]) -> bool:
    last = name.rpartition("/")[2]
    inside = (f"{name[:end]}/" for end, letter in enumerate(name) if letter == "/")
    return (
        name in known
        or any(folder in known for folder in inside)
        or last in _CLUTTER
        or last.startswith("._")
    )


def _named(target: Path) -> Path:
    """A path whose last part is the folder's own name, so that something can stand beside it."""
    return target.resolve() if target.name in ("", "..") else target


def _beside(target: Path, ending: str) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.{ending}")


def _temporary(target: Path) -> tuple[int, Path]:
    """A new file beside the target, with the permissions of any new file, locked while it is open:
    so the next writer knows what nobody writes any more.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        name = _beside(target, "tmp")
        descriptor = os.open(name, flags, 0o666)
        # Between these two calls another writer may have taken it for abandoned.
        if try_lock(descriptor) and os.fstat(descriptor).st_nlink:
            return descriptor, name
        os.close(descriptor)


def _leftovers(target: Path) -> Iterator[Path]:
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-z_]{{8}}\.(tmp|old)")
    yield from (path for path in target.parent.iterdir() if pattern.fullmatch(path.name))


def remove_abandoned(target: Path) -> None:
    """Removes temporary files of writers of this target that were killed. `write_atomic` does it as
    well; this is for who may never write the target again.
    """
    for path in _leftovers(target):
        with contextlib.suppress(OSError):  # removed by another writer, or none of our business
            if path.is_file():
                descriptor = os.open(path, os.O_RDWR)
                try:
                    if try_lock(descriptor):
                        path.unlink()
                finally:
                    os.close(descriptor)


def _clear_leftovers(target: Path) -> None:
    """Removes what a killed writer of this folder left beside it; one that was killed between the
    two renames has its old folder put back. The caller is the only writer.
    """
    for path in _leftovers(target):
        if path.is_dir():
            if (path / "old").exists() and not target.exists():
                os.replace(path / "old", target)
                logger.warning("%s was put back: its replacement had been cut short", target)
            shutil.rmtree(path, ignore_errors=True)


def _swap_in(building: Path, target: Path) -> None:
    """Renames `building` to `target`; what was there is then at `building`, or removed."""
    if not target.exists():
        os.replace(building, target)
    elif not _exchanged(building, target):
        _step_aside(building, target)
    _sync_folder(target.parent)


def _exchanged(first: Path, second: Path) -> bool:
    """Lets two folders take each other's names at once, so that a kill finds either the old or the
    new one at its place. False where the system or file system cannot (Linux's renameat2 can).
    """
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if os.name != "nt" else None
    if renameat2 is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of linux/fs.h
    names = (os.fsencode(first), os.fsencode(second))
    return bool(renameat2(here, names[0], here, names[1], ctypes.c_uint(exchange)) == 0)


def _step_aside(building: Path, target: Path) -> None:
    """A folder cannot be renamed over a full one, so the old one steps aside first."""
    aside = _beside(target, "old")
    aside.mkdir()
    os.replace(target, aside / "old")
    try:
        os.replace(building, target)
    except BaseException:
        os.replace(aside / "old", target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


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
