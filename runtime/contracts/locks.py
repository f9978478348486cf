"""Locks on files that the operating system releases when their owner ends, however it ends.

So a killed process leaves no lock behind, only files that nobody holds: the next one tells them by
taking their lock.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from edgeprefix.runtime.errors import OutputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)

_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def try_lock(descriptor: int) -> bool:
    """Locks an open file until it is closed; False when somebody else holds it.

    On a file system without locks it counts as free, with a warning.
    """
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno not in _NO_LOCKS:
            raise
        logger.warning("this file system has no locks: two writers of one target go unnoticed")
    return True


@contextlib.contextmanager
def only_writer(target: Path) -> Iterator[None]:
    """Within the block nobody else is the writer of `target`: `.NAME.lock` beside it is held.

    Raises OutputError at once when another process or thread holds it, OSError when the place
    cannot be written.
    """
    path = target.with_name(f".{target.name}.lock")
    descriptor = _locked(path, target)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file; an empty one is left
            path.unlink()
        os.close(descriptor)


def _locked(path: Path, target: Path) -> int:
    """The descriptor of the lock file at `path`, held. Raises OutputError when it is not free."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not try_lock(descriptor):
            owner = _owner(descriptor)
            raise OutputError(
                f"{target} is being written by another edgeprefix{owner}; wait for it, or choose "
                "another --out"
            )
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)  # its owner removed it before we held it: make a new one


def _owner(descriptor: int) -> str:
    """Names the process that holds a lock file, and closes it."""
    try:
        found = os.read(descriptor, 32).decode(errors="replace")
    except OSError:  # Windows locks the bytes, too
        found = ""
    finally:
        os.close(descriptor)
    return f" (process {found})" if found.isdecimal() else ""


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
