"""The engine: one base in memory, many tasks, requests from any thread mixed in one batch.

A thin front: a request becomes work on the caller's thread (requests.py), is run by the scheduler's
and delivered through its ticket. Each of those layers can be used alone.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar, Unpack

from edgeprefix.runtime.contracts.manifest import TOKENIZER_FILE, Manifest
from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.contracts.signature import KeySource, TrustedKeys
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.decoding.cache_plan import CachePlan
from edgeprefix.runtime.decoding.decoder import SlotDecoder
from edgeprefix.runtime.decoding.freed_memory import give_back_freed_memory
from edgeprefix.runtime.decoding.machine import physical_cores
from edgeprefix.runtime.decoding.opening import CacheSize, open_decoder
from edgeprefix.runtime.decoding.session import Provider
from edgeprefix.runtime.engine.prepare import Preparer
from edgeprefix.runtime.engine.requests import EngineRequest
from edgeprefix.runtime.engine.score_verbs import ScoreVerbs
from edgeprefix.runtime.engine.text_verbs import TextVerbs
from edgeprefix.runtime.errors import RequestError
from edgeprefix.runtime.renamed import warn_renamed
from edgeprefix.runtime.scheduling.scheduler import (
    CHUNK_TOKENS,
    ENGINE_THREAD,
    Occupancy,
    Scheduler,
)
from edgeprefix.runtime.tasks.chat import ChatInputs, Message
from edgeprefix.runtime.tasks.prefix_store import PrefixInfo, PrefixStore
from edgeprefix.runtime.tasks.watcher import FolderWatcher
from edgeprefix.runtime.work.process_lock import ProcessLock
from edgeprefix.runtime.work.ticket import Ticket

logger = logging.getLogger(__name__)

R = TypeVar("R")


class Engine(TextVerbs, ScoreVerbs):
    """A loaded bundle. Make one with `Engine.load`; use it as a context manager or call `close`.

    Safe to use from many threads.
    """

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: TextTokenizer,
        decoder: SlotDecoder,
        *,
        max_waiting: int = 256,
        chunk_tokens: int = CHUNK_TOKENS,
        prefix_bytes: int | None = None,
        trusted_keys: TrustedKeys | None = None,
    ) -> None:
        self.manifest, self.tokenizer = manifest, tokenizer
        # Numbers, and nothing that holds memory: `close` gives all of it back
        self._slots, self._capacity = decoder.slots, decoder.capacity
        self._cache_bytes = decoder.cache.nbytes
        self._store = PrefixStore(
            manifest,
            decoder.cache,
            capacity=decoder.capacity,
            budget_bytes=prefix_bytes,
            trusted_keys=trusted_keys,
        )
        self._scheduler = Scheduler(decoder, max_waiting=max_waiting, chunk_tokens=chunk_tokens)
        self._preparer = Preparer(
            manifest, tokenizer, self._store, capacity=self._capacity, max_batch=self._slots
        )
        self._watchers: list[FolderWatcher] = []
        self._watchers_lock = ProcessLock()
        self._finalizer = weakref.finalize(self, _shut_down, self._scheduler, self._watchers)

    @classmethod
    def load(
        cls,
        bundle: str | Path,
        *,
        prefixes: str | Path | Iterable[str | Path] | None = None,
        max_batch: int = 8,
        max_length: int = 1024,
        threads: int | None = None,
        providers: Sequence[Provider] | None = None,
        max_waiting: int = 256,
        chunk_tokens: int = CHUNK_TOKENS,
        prefix_bytes: int | None = None,
        steady: bool = False,
        trusted_keys: TrustedKeys | KeySource | None = None,
    ) -> Engine:
        """Opens a bundle.

        `prefixes`: a folder of prefix files, a file, or several files. `max_batch`: sequences that
        run at once. `max_length`: positions of each (prefix, prompt and new tokens), at most what
        the base has. `threads`: default the physical cores, shared evenly with engines that are
        open already. `providers`: ONNX Runtime execution providers, default CPU. `max_waiting`:
        requests that may wait for a slot. `chunk_tokens`: prompt tokens fed between two decoding
        steps. `prefix_bytes`: memory for resident prefixes,
        least recently used ones are evicted; None is no limit. `steady`: quantised bases give the
        same tokens in any company, too; it costs an idle row beside an odd number of sequences, one
        slot and one position. `trusted_keys`: files of public keys, or folders of `*.pub`; prefix
        files and bytes are then refused, now and later, unless one of these keys signed them.

        Raises BundleError, CapacityError (the cache does not fit the memory), ProviderError, and
        what `load_prefix` raises.
        """
        _require_positive(
            max_batch=max_batch,
            max_length=max_length,
            max_waiting=max_waiting,
            chunk_tokens=chunk_tokens,
        )
        keys = None if trusted_keys is None else TrustedKeys.load(trusted_keys)
        manifest = Manifest.load(bundle)
        manifest.check_files(bundle)
        plan = CachePlan.of(manifest, max_batch=max_batch, max_length=max_length, steady=steady)
        logger.info("%s", plan)
        if plan.capacity - steady < max_length:
            logger.info(
                "max_length %d is more than the base has: %d positions",
                max_length,
                plan.capacity - steady,
            )
        size = CacheSize(rows=plan.rows, capacity=plan.capacity, steady=steady)
        decoder = open_decoder(
            bundle, manifest, size, threads=threads or _share_of_cores(), providers=providers
        )
        tokenizer = TextTokenizer.from_file(
            Path(bundle) / TOKENIZER_FILE, end_ids=manifest.end_ids, vocabulary=manifest.vocabulary
        )
        engine = cls(
            manifest, tokenizer, decoder,
            max_waiting=max_waiting, chunk_tokens=chunk_tokens, prefix_bytes=prefix_bytes,
            trusted_keys=keys,
        )  # fmt: skip
        try:
            engine._load_all(prefixes)
        except BaseException:
            engine.close()
            raise
        give_back_freed_memory()
        return engine

    def close(self, *, finish: bool = False) -> None:
        """Stops the engine and gives its memory back. What still runs or waits is finished first,
        or fails with EngineClosedError. May be called twice.
        """
        if not self._scheduler.in_its_process:
            return
        with self._watchers_lock:  # one that is being made comes first, or finds the engine closed
            self._scheduler.stop_taking()
        _shut_down(self._scheduler, self._watchers, finish=finish)
        self._store.close()
        give_back_freed_memory()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, request: EngineRequest[R], *, wait: bool = False) -> Ticket[R]:
        """Starts a request of any kind and returns at once; its ticket waits for the result or
        cancels it. With `wait` it blocks while too many requests wait, for as long as the request
        has time.

        Raises what is wrong with the request, QueueFullError, RequestTimeout, EngineClosedError.
        """
        self._scheduler.require_open()
        ticket: Ticket[R] = Ticket(timeout_s=request.timeout_s, callbacks=self._scheduler.callbacks)
        self._scheduler.submit(request.work(self._preparer, ticket), wait=wait)
        return ticket

    # Facts ----------------------------------------------------------------------------------------

    @property
    def max_batch(self) -> int:
        """Sequences that run at once."""
        return self._slots

    @property
    def max_length(self) -> int:
        """Positions of a sequence: prefix, prompt and new tokens."""
        return self._capacity

    @property
    def cache_bytes(self) -> int:
        """Memory of the cache."""
        return self._cache_bytes

    @property
    def occupancy(self) -> Occupancy:
        """(sequences that are running, requests that are waiting) at this moment."""
        return self._scheduler.occupancy

    @property
    def load_now(self) -> tuple[int, int]:
        """Deprecated: `occupancy`."""
        warn_renamed("Engine.load_now", "Engine.occupancy")
        return self.occupancy

    def chat_prompt(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        **inputs: Unpack[ChatInputs],
    ) -> list[int]:
        """Token ids of a conversation in the base's own chat template, as `chat` makes them.

        Control tokens in what messages, tools and documents say are letters like any. Raises
        RequestError when the base has no template or it refuses the messages, TemplateError when
        the template is at fault, MissingExtraError without Jinja.
        """
        return self._preparer.chat_ids(
            messages, add_generation_prompt=add_generation_prompt, **inputs
        )

    # Tasks ----------------------------------------------------------------------------------------

    def load_prefix(
        self, source: str | Path | bytes | Prefix, *, name: str | None = None, pin: bool = False
    ) -> PrefixInfo:
        """Makes a task known, or replaces the one of that name: all or nothing, while requests run
        (they end on the old one).

        `source`: a prefix file, its bytes, or a Prefix. Raises PrefixFileError, BaseMismatchError
        or CapacityError; the engine is then as it was.
        """
        self._scheduler.require_open()
        return self._store.load(source, name=name, pinned=pin)

    def load_prefixes(self, folder: str | Path) -> list[PrefixInfo]:
        """Loads all prefix files of a folder or none. Raises too for two files of one task."""
        self._scheduler.require_open()
        return self._store.load_folder(folder)

    def unload(self, name: str) -> None:
        """Forgets a task. Raises UnknownTaskError."""
        self._store.unload(name)

    def pin(self, name: str, *, pinned: bool = True) -> None:
        """Keeps a task from eviction, or allows it again. Raises UnknownTaskError."""
        self._store.pin(name, pinned=pinned)

    def tasks(self) -> list[PrefixInfo]:
        """All known tasks with their sizes and hits, by name."""
        return self._store.tasks()

    def task(self, name: str) -> PrefixInfo:
        """One task. Raises UnknownTaskError, offering the nearest names."""
        return self._store.info(name)

    def watch(
        self,
        folder: str | Path,
        *,
        interval_s: float = 1.0,
        trusted_keys: TrustedKeys | KeySource | None = None,
    ) -> FolderWatcher:
        """Follows a folder of prefix files from now on: new and changed ones are loaded, removed
        ones unloaded.

        `trusted_keys` are as in `load`, for this folder; None: the engine's. Raises PrefixFileError
        when it is no folder, SignatureError for keys that cannot be read, EngineClosedError.
        """
        keys = None if trusted_keys is None else TrustedKeys.load(trusted_keys)
        with self._watchers_lock:
            self._scheduler.require_open()
            watcher = FolderWatcher(self._store, folder, interval_s=interval_s, trusted_keys=keys)
            self._watchers.append(watcher)
        return watcher

    def _load_all(self, prefixes: str | Path | Iterable[str | Path] | None) -> None:
        if prefixes is None:
            return
        for source in [prefixes] if isinstance(prefixes, str | Path) else prefixes:
            if Path(source).is_file():
                self.load_prefix(source)
            else:
                self.load_prefixes(source)


def _shut_down(
    scheduler: Scheduler, watchers: Sequence[FolderWatcher], *, finish: bool = False
) -> None:
    """Ends all threads of an engine; no method, since it also runs when an engine is let go of."""
    if not scheduler.in_its_process:
        return
    for watcher in watchers:
        watcher.stop()
    scheduler.close(finish=finish)


def _share_of_cores() -> int:
    """Compute threads of one more engine in this process."""
    engines = 1 + sum(thread.name == ENGINE_THREAD for thread in threading.enumerate())
    share = max(1, physical_cores() // engines)
    if engines > 1:
        logger.info("%d engines are open: this one gets %d compute threads", engines, share)
    return share


def _require_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise RequestError(f"{name}={number}: expected at least 1")
