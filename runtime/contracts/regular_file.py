"""Files that come from elsewhere, opened so that none of them can hang its reader."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# Without it a FIFO would wait for its writer for ever; Windows has neither.
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)


@contextmanager
def open_regular(path: str | Path) -> Iterator[tuple[BinaryIO, int]]:
    """The file and its size in bytes. Raises OSError, also for what is no regular file (a FIFO, a
    device) and for a path with a NUL character.
    """
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NONBLOCK))  # noqa: SIM115
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        yield file, status.st_size


def require_regular_files(folder: Path) -> None:
    """Raises OSError when something in a folder is neither a file nor a folder: libraries that are
    given its path would wait for a FIFO for ever. Links are followed; a dangling one is nobody's.
    """
    for path in sorted(folder.iterdir()):
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(errno.EINVAL, f"{path.name} is no regular file", str(path))
