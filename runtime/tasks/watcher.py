"""A folder of prefix files that is followed while the engine runs: new and changed files are
loaded, removed ones unloaded.

The folder is polled: it costs one directory listing a second, needs no package, and works on
network and container file systems, where notifications do not. A bad file never disturbs the task
that it was to replace.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from edgeprefix.runtime.errors import EdgePrefixError, PrefixFileError, UnknownTaskError
from edgeprefix.runtime.tasks.prefix_store import PREFIX_PATTERN, PrefixStore

logger = logging.getLogger(__name__)

_Stamp = tuple[int, int, int]  # modification time in ns, bytes, inode


class FolderWatcher:
    """Keeps a store in step with a folder until `stop`. `errors` has the newest failure of each
    path that is not well.
    """

    def __init__(self, store: PrefixStore, folder: str | Path, *, interval_s: float = 1.0) -> None:
        self._store, self._folder, self._interval_s = store, Path(folder), interval_s
        if not self._folder.is_dir():
            raise PrefixFileError(f"{folder} is no folder; create it before it is watched")
        self._seen: dict[Path, _Stamp] = {}
        self._names: dict[Path, str] = {}
        self._errors: dict[str, EdgePrefixError] = {}
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
        try:
            found = {
                path: _stamp(path)
                for path in sorted(self._folder.iterdir())
                if path.match(PREFIX_PATTERN)
            }
        except OSError as error:  # the disk is gone: keep what is loaded, it may come back
            gone = (
                f"{self._folder} cannot be read: {error.strerror or error}; its tasks stay loaded"
            )
            self._report(self._folder, PrefixFileError(gone))
            return
        self._errors.pop(str(self._folder), None)
        for path, stamp in found.items():
            if self._seen.get(path) != stamp:
                self._load(path)
                self._seen[path] = stamp
        for path in self._seen.keys() - found.keys():
            self._forget(path)

    def _loop(self) -> None:
        while not self._stopped.wait(self._interval_s):
            self.scan()

    def _load(self, path: Path) -> None:
        try:
            info = self._store.load(path)
        except EdgePrefixError as error:
            self._report(path, error)
            return
        self._errors.pop(str(path), None)
        others = [
            other.name for other, name in self._names.items() if name == info.name and other != path
        ]
        if others:
            logger.warning(
                "task %s now comes from %s, not from %s", info.name, path, ", ".join(others)
            )
        self._names[path] = info.name
        logger.info("loaded task %s from %s", info.name, path)

    def _forget(self, path: Path) -> None:
        del self._seen[path]
        self._errors.pop(str(path), None)
        name = self._names.pop(path, None)
        others = [other for other, known in self._names.items() if known == name]
        if name is None or others:
            for other in others[-1:]:  # it served this task before, or does so now
                self._load(other)
            return
        try:
            self._store.unload(name)
            logger.info("unloaded task %s: %s was removed", name, path)
        except UnknownTaskError:
            logger.debug("task %s was unloaded already", name)

    def _report(self, path: Path, error: EdgePrefixError) -> None:
        if str(self._errors.get(str(path))) != str(error):
            logger.warning("%s", error)
        self._errors[str(path)] = error


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
