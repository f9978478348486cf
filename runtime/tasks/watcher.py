"""A folder of prefix files that is followed while the engine runs: new and changed files are
loaded, removed ones unloaded.

The folder is polled: it costs one directory listing a second, needs no package, and works on
network and container file systems, where notifications do not. A bad file never disturbs the task
that it was to replace.

For each path the watcher keeps what it loaded from it, and it owns only that: a task that the
application loaded itself is never unloaded here. Of several files of one task the newest serves;
when it goes, the one before it takes over.
"""

from __future__ import annotations

import logging
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

from edgeprefix.runtime.contracts.signature import TrustedKeys
from edgeprefix.runtime.errors import CapacityError, EdgePrefixError, PrefixFileError
from edgeprefix.runtime.tasks.prefix_store import PrefixStore, prefix_files
from edgeprefix.runtime.work.process_lock import ProcessLock

logger = logging.getLogger(__name__)

_Stamp = tuple[int, int, int, int, int]
"""Modification and change time in ns, bytes, inode, device."""


@dataclass(kw_only=True)
class _Followed:
    """A path, and what it brought."""

    stamp: _Stamp | None = None
    """Of the content that was last tried; None when it has to be tried again."""
    task: str | None = None
    version: int = 0
    """Of the load in the store; another one's there is not ours."""
    full_at: int | None = None
    """The store's changes when the task did not fit; after the next one it may."""


class FolderWatcher:
    """Keeps a store in step with a folder until `stop`. `errors` has the newest failure of each
    path that is not well. With `trusted_keys` only files that one of them signed are loaded.
    """

    def __init__(
        self,
        store: PrefixStore,
        folder: str | Path,
        *,
        interval_s: float = 1.0,
        trusted_keys: TrustedKeys | None = None,
    ) -> None:
        self._store, self._folder, self._interval_s = store, Path(folder), interval_s
        self._trusted_keys = trusted_keys
        if not self._folder.is_dir():
            raise PrefixFileError(f"{folder} is no folder; create it before it is watched")
        self._followed: dict[Path, _Followed] = {}
        self._errors: dict[str, EdgePrefixError] = {}
        self._scanning = ProcessLock()
        self._stopped = threading.Event()
        self.scan()
        self._thread = threading.Thread(target=self._loop, name="edgeprefix-watcher", daemon=True)
        self._thread.start()

    @property
    def errors(self) -> dict[str, EdgePrefixError]:
        """What could not be loaded or read, by path; empty when all is well."""
        return dict(self._errors)

    def stop(self) -> None:
        """Ends watching; loaded tasks stay."""
        self._stopped.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def scan(self) -> None:
        """Looks once. Raises nothing: problems go to `errors` and to the log."""
        with self._scanning:
            try:
                self._scan()
            except OSError as error:  # the disk is gone: keep what is loaded, it may come back
                reason = error.strerror or error
                gone = f"{self._folder} cannot be read: {reason}; its tasks stay loaded"
                self._report(self._folder, PrefixFileError(gone))
            except Exception as error:  # nothing ends the watching in silence
                self._report(self._folder, _unforeseen(self._folder, error))
            else:
                self._errors.pop(str(self._folder), None)

    def _loop(self) -> None:
        while not self._stopped.wait(self._interval_s):
            self.scan()

    def _scan(self) -> None:
        found = {path: self._stamp(path) for path in prefix_files(self._folder)}
        stamped = [(stamp, path) for path, stamp in found.items() if stamp is not None]
        for stamp, path in sorted(stamped):  # the newest last: it serves
            known = self._followed.setdefault(path, _Followed())
            fits_now = known.full_at is not None and known.full_at != self._store.changes
            if known.stamp != stamp or fits_now:
                known.stamp = stamp
                self._load(path, known)
        for path in self._followed.keys() - found.keys():  # last: a renamed file has no gap
            self._forget(path)

    def _stamp(self, path: Path) -> _Stamp | None:
        """None, and a line in `errors`, for what cannot be looked at or is no file (a dangling
        link, a FIFO): what it brought before stays.
        """
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise PrefixFileError(f"{path} is no regular file")
        except OSError as error:
            reason = error.strerror or error
            self._report(path, PrefixFileError(f"{path} cannot be read: {reason}"))
        except PrefixFileError as error:
            self._report(path, error)
        else:
            return (
                status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino,
                status.st_dev,
            )  # fmt: skip
        self._followed.setdefault(path, _Followed()).stamp = None
        return None

    def _load(self, path: Path, known: _Followed) -> bool:
        """Loads a file; whether that went well."""
        known.full_at = None
        changes = self._store.changes
        try:
            info = self._store.load(path, trusted_keys=self._trusted_keys)
        except EdgePrefixError as error:
            if isinstance(error, CapacityError):
                known.full_at = changes
            elif isinstance(error.__cause__, OSError):  # of the disk, not of the file
                known.stamp = None
            self._report(path, error)
            return False
        except Exception as error:  # memory ran out, say: the next scan tries again
            known.stamp = None
            self._report(path, _unforeseen(path, error))
            return False
        self._errors.pop(str(path), None)
        before, known.task = (known.task, known.version), info.name
        known.version = info.version
        others = [str(other) for other in self._sources(info.name) if other != path]
        if others:
            logger.warning("task %s now comes from %s, not from %s", info.name, path, others[0])
        logger.info("loaded task %s from %s", info.name, path)
        if before[0] not in (None, info.name):  # the file was of another task before
            self._let_go(*before)
        return True

    def _forget(self, path: Path) -> None:
        """A file was removed."""
        known = self._followed.pop(path)
        self._errors.pop(str(path), None)
        self._let_go(known.task, known.version)

    def _let_go(self, task: str | None, version: int) -> None:
        """A path no longer stands for a task: the newest other path of it takes over, else it is
        unloaded; nothing happens when another load has replaced it.
        """
        if task is None or self._store.version(task) != version:
            return
        for path in self._sources(task):
            if self._load(path, self._followed[path]) and self._followed[path].task == task:
                return
        if self._store.version(task) == version:
            self._store.unload(task)
            logger.info("unloaded task %s: its file is gone", task)

    def _sources(self, task: str) -> list[Path]:
        """Paths that brought this task, the newest first."""
        paths = [path for path, known in self._followed.items() if known.task == task]
        return sorted(paths, key=lambda path: -self._followed[path].version)

    def _report(self, path: Path, error: EdgePrefixError) -> None:
        if str(self._errors.get(str(path))) != str(error):
            logger.warning("%s", error)
        self._errors[str(path)] = error


def _unforeseen(path: Path, error: Exception) -> EdgePrefixError:
    if isinstance(error, MemoryError):
        return CapacityError(f"{path} cannot be loaded: the memory does not suffice")
    return PrefixFileError(f"{path} cannot be loaded: {type(error).__name__}: {error}")
