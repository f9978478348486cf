"""The tasks that an engine can run: prefixes verified, packed for the cache, kept within a byte
budget.

Loading is a transaction: everything is verified first, then one assignment under a lock makes the
task known. A request keeps the prefix it was submitted with, so replacing one never touches what
runs or waits.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprefix.runtime.contracts.cache_scales import require_fit
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.prefix_file import LARGEST_HEADER_BYTES, Prefix
from edgeprefix.runtime.contracts.signature import TrustedKeys
from edgeprefix.runtime.contracts.task_pack import TaskPack
from edgeprefix.runtime.decoding.cache import SlotMemory
from edgeprefix.runtime.errors import (
    BaseMismatchError,
    CapacityError,
    EngineClosedError,
    PrefixFileError,
    UnknownTaskError,
)
from edgeprefix.runtime.work.process_lock import ProcessLock
from edgeprefix.runtime.work.resident import ResidentPrefix

logger = logging.getLogger(__name__)

PREFIX_PATTERN = "*.safetensors"


@dataclass(frozen=True, kw_only=True)
class PrefixInfo:
    """What `load_prefix` and `tasks` tell about a task."""

    name: str
    length: int
    """P, positions."""
    bytes: int
    """Memory that its keys and values take."""
    pack: TaskPack
    path: str | None
    """The file it came from; None for one given as bytes or as a Prefix."""
    hits: int
    """Requests that used it."""
    pinned: bool
    """Never evicted."""
    resident: bool
    """In memory. One that was evicted is read again from its file when it is asked for."""
    version: int = 0
    """Of the load: one that replaces a task has a higher number, one that reads it again keeps
    its own.
    """


@dataclass(kw_only=True, eq=False)
class _Entry:
    """A known task. `resident` is None after eviction."""

    name: str
    length: int
    bytes: int
    pack: TaskPack
    path: Path | None
    pinned: bool
    resident: ResidentPrefix | None
    file_task: str
    """The name in its file, which `name` may override."""
    trusted_keys: TrustedKeys | None
    """Whose signature the file must have whenever it is read."""
    hits: int = 0
    used: int = 0  # the store's clock at the last use
    version: int = 0

    def info(self) -> PrefixInfo:
        return PrefixInfo(
            name=self.name,
            length=self.length,
            bytes=self.bytes,
            pack=self.pack,
            path=None if self.path is None else str(self.path),
            hits=self.hits,
            pinned=self.pinned,
            resident=self.resident is not None,
            version=self.version,
        )


@dataclass(frozen=True)
class Loaded:
    """A task ready to be used by a request."""

    prefix: ResidentPrefix
    pack: TaskPack


class PrefixStore:
    """Tasks by name. Safe to use from many threads; in a process forked from its own every method
    raises EngineClosedError.
    """

    def __init__(
        self,
        manifest: Manifest,
        cache: SlotMemory,
        *,
        capacity: int | None = None,
        budget_bytes: int | None = None,
        trusted_keys: TrustedKeys | None = None,
    ) -> None:
        """`trusted_keys`: files and bytes are refused unless one of them signed them."""
        self._manifest, self._budget = manifest, budget_bytes
        self._cache: SlotMemory | None = cache
        self._trusted_keys = trusted_keys
        self._capacity = cache.capacity if capacity is None else capacity
        self._entries: dict[str, _Entry] = {}
        self._clock, self._changes = 0, 0
        self._lock = ProcessLock()

    @property
    def cache(self) -> SlotMemory:
        """What the prefixes are packed for. Raises EngineClosedError after `close`."""
        if self._cache is None:
            raise EngineClosedError("the engine is closed; load it again")
        return self._cache

    def close(self) -> None:
        """Gives all memory back; what is known about the tasks stays."""
        with self._lock:
            self._cache = None
            for entry in self._entries.values():
                entry.resident = None

    def load(
        self,
        source: str | Path | bytes | Prefix,
        *,
        name: str | None = None,
        pinned: bool = False,
        trusted_keys: TrustedKeys | None = None,
    ) -> PrefixInfo:
        """Makes a task known from a file, a file's bytes or a Prefix; one of the same name is
        replaced. Returns its PrefixInfo.

        `name` overrides the name in the file, `trusted_keys` the store's own. Raises
        PrefixFileError, SignatureError, BaseMismatchError or CapacityError; the store is then as it
        was.
        """
        entry = self._verified(source, name, pinned=pinned, trusted_keys=trusted_keys)
        with self._lock:
            self._commit(entry)
        return entry.info()

    def load_folder(self, folder: str | Path) -> list[PrefixInfo]:
        """Loads every prefix file of a folder, all or none. Raises like `load`; PrefixFileError
        when it is no folder, or when two files are of one task.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise PrefixFileError(
                f"{folder} is no folder; give a folder of prefix files, or a file to load_prefix"
            )
        try:
            paths = prefix_files(folder)
        except OSError as error:
            raise PrefixFileError(f"{folder} cannot be read: {error.strerror or error}") from error
        entries = [self._verified(path, None, pinned=False) for path in paths]
        _require_different(entries)
        with self._lock:
            before = {name: (entry, entry.resident) for name, entry in self._entries.items()}
            try:
                for entry in entries:
                    self._commit(entry)
            except CapacityError:
                self._entries = {name: entry for name, (entry, _) in before.items()}
                for entry, resident in before.values():  # those that were evicted for nothing
                    entry.resident = resident
                raise
        return [entry.info() for entry in entries]

    def use(self, name: str) -> Loaded:
        """The task for a request, counted as a hit; an evicted one is read again from its file, as
        that is now.

        Raises UnknownTaskError offering the nearest names, and what `load` raises when the file is
        gone, damaged, or of another task by now.
        """
        with self._lock:
            entry = self._entry(name)
            if entry.resident is not None:
                return self._used(entry, entry.resident)
        assert entry.path is not None  # only tasks with a file are evicted
        # Read without the lock: a slow disk keeps only those waiting who asked for this task.
        fresh = self._read_again(entry, entry.path)
        with self._lock:
            now = self._entry(name)
            if now is entry and entry.resident is None:
                self._commit(fresh)
                now = fresh
            # Replaced meanwhile: the newer one holds, unless it was evicted at once.
            resident = now.resident or fresh.resident
            assert resident is not None
            return self._used(now, resident)

    def tasks(self) -> list[PrefixInfo]:
        """All known tasks by name."""
        with self._lock:
            return [entry.info() for _, entry in sorted(self._entries.items())]

    def info(self, name: str) -> PrefixInfo:
        """One task. Raises UnknownTaskError."""
        with self._lock:
            return self._entry(name).info()

    def unload(self, name: str) -> None:
        """Forgets a task; requests that run or wait with it go on. Raises UnknownTaskError."""
        with self._lock:
            self._entry(name)
            del self._entries[name]
            self._changes += 1

    def pin(self, name: str, *, pinned: bool = True) -> None:
        """Keeps a task from eviction, or allows it again. Raises UnknownTaskError."""
        with self._lock:
            self._entry(name).pinned = pinned
            self._changes += 1

    def version(self, name: str) -> int | None:
        """`PrefixInfo.version` of a task; None when it is unknown."""
        with self._lock:
            entry = self._entries.get(name)
            return None if entry is None else entry.version

    @property
    def changes(self) -> int:
        """Counts whatever may have made room in the budget."""
        with self._lock:
            return self._changes

    @property
    def resident_bytes(self) -> int:
        """Memory that the resident prefixes take."""
        with self._lock:
            return sum(
                entry.bytes for entry in self._entries.values() if entry.resident is not None
            )

    def _entry(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            raise UnknownTaskError(_unknown(name, list(self._entries)))
        return entry

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def _used(self, entry: _Entry, resident: ResidentPrefix) -> Loaded:
        entry.hits += 1
        entry.used = self._tick()
        return Loaded(resident, entry.pack)

    def _read_again(self, entry: _Entry, path: Path) -> _Entry:
        """An evicted task out of its file. Raises PrefixFileError when that is of another task by
        now.
        """
        fresh = self._verified(
            path, entry.name, pinned=entry.pinned, trusted_keys=entry.trusted_keys
        )
        if fresh.file_task != entry.file_task:
            raise PrefixFileError(
                f"task {entry.name!r} was evicted, and its file {path} now holds task "
                f"{fresh.file_task!r}, not {entry.file_task!r}; put the file back, or load "
                f"{entry.name!r} from another with load_prefix"
            )
        fresh.version = entry.version
        return fresh

    def _verified(
        self,
        source: str | Path | bytes | Prefix,
        name: str | None,
        *,
        pinned: bool,
        trusted_keys: TrustedKeys | None = None,
    ) -> _Entry:
        """A task ready to be committed; nothing has changed yet."""
        path = Path(source) if isinstance(source, str | Path) else None
        trusted = trusted_keys or self._trusted_keys
        prefix = self._read(source, trusted)
        file_task = prefix.name
        if name is not None:
            prefix = dataclasses.replace(prefix, name=name)  # the same rules for names hold
        resident = self._pack(prefix, prefix.name, where=str(path or prefix.name))
        return _Entry(
            name=resident.name,
            length=resident.length,
            bytes=resident.nbytes,
            pack=prefix.pack,
            path=None if path is None else path.resolve(),
            pinned=pinned,
            resident=resident,
            file_task=file_task,
            trusted_keys=trusted,
        )

    def _read(self, source: str | Path | bytes | Prefix, trusted: TrustedKeys | None) -> Prefix:
        """A Prefix in memory is the application's own and needs no signature."""
        if isinstance(source, Prefix):
            return source
        if isinstance(source, bytes):
            return Prefix.from_bytes(source, trusted_keys=trusted)
        if not isinstance(source, str | Path):
            raise PrefixFileError(
                f"a prefix is a file, its bytes or a Prefix, not {type(source).__name__}"
            )
        return Prefix.load(source, trusted_keys=trusted, largest_bytes=self._largest_file())

    def _largest_file(self) -> int:
        """Twice what fills the cache, in fp32: longer prefixes get a message about their length,
        and nothing much larger is read.
        """
        position = sum(layer.kv_heads * layer.head_size for layer in self._manifest.layers)
        return LARGEST_HEADER_BYTES + 2 * self._capacity * position * 2 * 4

    def _commit(self, entry: _Entry) -> None:
        """Makes a verified task known, in the place of one of its name; others may be evicted. The
        caller holds the lock.
        """
        self._make_room(entry.bytes, replacing=entry.name)
        old = self._entries.get(entry.name)
        if old is not None:
            entry.hits, entry.pinned = old.hits, entry.pinned or old.pinned
        entry.used = self._tick()
        entry.version = entry.version or self._clock
        self._changes += 1
        self._entries[entry.name] = entry

    def _pack(self, prefix: Prefix, name: str, *, where: str) -> ResidentPrefix:
        self._manifest.base.require_same(prefix.base, what=f"prefix {where}")
        expected = [(layer.kv_heads, layer.head_size) for layer in self._manifest.layers]
        found = [(layer.key.shape[0], layer.key.shape[2]) for layer in prefix.layers]
        if found != expected or any(
            layer.key.shape != layer.value.shape for layer in prefix.layers
        ):
            raise BaseMismatchError(
                f"prefix {where} has {len(found)} layers of (heads, size) {sorted(set(found))}, "
                "the base has "
                f"{len(expected)} of {sorted(set(expected))}; export the prefix again"
            )
        if prefix.length >= self._capacity:
            raise CapacityError(
                f"prefix {where} takes {prefix.length} positions, the cache has {self._capacity} "
                "a row; "
                f"load the engine with max_length above {prefix.length}"
            )
        window = min(
            (layer.window for layer in self._manifest.layers if layer.window),
            default=self._capacity,
        )
        if window < self._capacity:
            logger.warning(
                "task %s: layers with a sliding window of %d positions lose sight of its prefix "
                "of %d "
                "from the text's token %d on",
                name, window, prefix.length, max(0, window - prefix.length),
            )  # fmt: skip
        if self._manifest.cache_dtype == "float16":
            _require_fp16(prefix, where)
        if self.cache.scales is not None:
            require_fit(prefix.layers, self.cache.scales, where=where)
        packed = self.cache.pack([(layer.key, layer.value) for layer in prefix.layers])
        return ResidentPrefix(name=name, length=prefix.length, packed=tuple(packed))

    def _make_room(self, need: int, *, replacing: str) -> None:
        """Evicts the least recently used tasks until `need` bytes fit the budget; decides first,
        then acts.
        """
        if self._budget is None:
            return
        others = [
            entry
            for name, entry in self._entries.items()
            if name != replacing and entry.resident is not None
        ]
        excess = sum(entry.bytes for entry in others) + need - self._budget
        victims = []
        for entry in sorted(others, key=lambda entry: entry.used):
            if excess > 0 and not entry.pinned and entry.path is not None:
                victims.append(entry)
                excess -= entry.bytes
        if excess > 0:
            raise CapacityError(
                f"{need} bytes for prefix {replacing!r} do not fit the budget of {self._budget} "
                f"bytes: {excess} too many, and "
                "nothing more can be evicted (pinned tasks, and those without a file, stay); "
                "unload tasks or raise prefix_bytes"
            )
        for entry in victims:
            logger.info("evicting task %s (%d bytes)", entry.name, entry.bytes)
            entry.resident = None


def prefix_files(folder: Path) -> list[Path]:
    """A folder's prefix files by name, without hidden ones (`._*` of macOS, half-copied ones).
    Raises OSError.
    """
    return sorted(
        path
        for path in folder.iterdir()
        if path.match(PREFIX_PATTERN) and not path.name.startswith(".")
    )


def _require_fp16(prefix: Prefix, where: str) -> None:
    """Numbers beyond fp16 would become infinity in the cache, and every text behind them
    nonsense.
    """
    largest = max(float(np.abs(array).max()) for layer in prefix.layers for array in layer)
    if largest > np.finfo(np.float16).max:
        raise CapacityError(
            f"prefix {where} reaches {largest:.0f}, more than this bundle's fp16 cache holds "
            "(65504); use a bundle with an "
            f"fp32 cache, or train the prefix again with a smaller learning rate"
        )


def _require_different(entries: Sequence[_Entry]) -> None:
    """Two files of one task in a folder: which of them is meant, nobody could say."""
    places: dict[str, Path | None] = {}
    for entry in entries:
        if entry.name in places:
            raise PrefixFileError(
                f"{places[entry.name]} and {entry.path} are both of task {entry.name!r}; keep one "
                "of them, or load them "
                f"one by one with load_prefix(file, name=…)"
            )
        places[entry.name] = entry.path


def _unknown(name: str, known: Sequence[str]) -> str:
    if not known:
        return (
            f"task {name!r} is unknown: no prefix is loaded; load one with engine.load_prefix(file)"
        )
    near = difflib.get_close_matches(name, known, n=3)
    hint = (
        f"did you mean {', '.join(near)}?"
        if near
        else f"loaded are {', '.join(sorted(known)[:10])}"
    )
    return f"task {name!r} is unknown; {hint}"
