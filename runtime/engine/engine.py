"""The engine: one base in memory, many tasks, requests from any thread mixed in one batch.

A thin front: requests are prepared on the caller's thread (prepare.py), run by the scheduler's
(scheduler.py) and delivered through tickets. Each of those layers can be used alone.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar, Unpack

import numpy as np

from edgeprefix.runtime.contracts.manifest import TOKENIZER_FILE, Manifest
from edgeprefix.runtime.contracts.prefix_file import Prefix, PrefixLayer
from edgeprefix.runtime.contracts.signature import KeySource, TrustedKeys
from edgeprefix.runtime.contracts.task_pack import BEGINS, TaskPack
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.decoding.cache import Array
from edgeprefix.runtime.decoding.cache_plan import CachePlan
from edgeprefix.runtime.decoding.decoder import SlotDecoder
from edgeprefix.runtime.decoding.freed_memory import give_back_freed_memory
from edgeprefix.runtime.decoding.opening import Room, open_decoder
from edgeprefix.runtime.decoding.session import Provider
from edgeprefix.runtime.engine.prepare import AS_IT_IS, Preparer
from edgeprefix.runtime.engine.requests import Prompt, Request
from edgeprefix.runtime.engine.scorer import Scorer, ScoreSettings, Scoring
from edgeprefix.runtime.engine.stream import PieceStream
from edgeprefix.runtime.errors import RequestError
from edgeprefix.runtime.generation.options import Settings
from edgeprefix.runtime.generation.sampled import OnPiece
from edgeprefix.runtime.scheduling.scheduler import CHUNK_TOKENS, Scheduler
from edgeprefix.runtime.scoring.scores import Scores, TextLogprobs
from edgeprefix.runtime.scoring.text_probes import CompileProbe
from edgeprefix.runtime.tasks.chat import Message, bundle_chat
from edgeprefix.runtime.tasks.prefix_store import PrefixInfo, PrefixStore
from edgeprefix.runtime.tasks.watcher import FolderWatcher
from edgeprefix.runtime.work.completion import Completion, Piece
from edgeprefix.runtime.work.slot import Logits
from edgeprefix.runtime.work.ticket import Ticket

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Engine:
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
        cache = decoder.cache
        self._cache, self._decoder = cache, decoder
        self._store = PrefixStore(
            manifest,
            cache,
            capacity=decoder.capacity,
            budget_bytes=prefix_bytes,
            trusted_keys=trusted_keys,
        )
        self._scheduler = Scheduler(decoder, max_waiting=max_waiting, chunk_tokens=chunk_tokens)
        self._preparer = Preparer(
            tokenizer,
            self._store,
            vocabulary=manifest.vocabulary,
            capacity=decoder.capacity,
            max_batch=decoder.slots,
        )
        self._scorer = Scorer(self._preparer, self._scheduler.submit)
        self._watchers: list[FolderWatcher] = []
        self._watchers_lock = threading.Lock()
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
        the base has. `threads`: default the physical cores. `providers`: ONNX Runtime execution
        providers, default CPU. `max_waiting`: requests that may wait for a slot. `chunk_tokens`:
        prompt tokens fed between two decoding steps. `prefix_bytes`: memory for resident prefixes,
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
        room = Room(rows=plan.rows, capacity=plan.capacity, steady=steady)
        decoder = open_decoder(bundle, manifest, room, threads=threads, providers=providers)
        tokenizer = TextTokenizer.from_file(Path(bundle) / TOKENIZER_FILE, end_ids=manifest.end_ids)
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
        """Stops the engine. What still runs or waits is finished first, or fails with
        EngineClosedError. May be called twice.
        """
        if self._scheduler.here:
            # A watcher that is being made comes first, or finds the engine closed
            with self._watchers_lock:
                self._scheduler.stop_taking()
        _shut_down(self._scheduler, self._watchers, finish=finish)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Facts ----------------------------------------------------------------------------------------

    @property
    def max_batch(self) -> int:
        """Sequences that run at once."""
        return self._decoder.slots

    @property
    def max_length(self) -> int:
        """Positions of a sequence: prefix, prompt and new tokens."""
        return self._decoder.capacity

    @property
    def cache_bytes(self) -> int:
        """Memory of the cache."""
        return self._cache.nbytes

    @property
    def load_now(self) -> tuple[int, int]:
        """(sequences that run, requests that wait) at this moment."""
        return self._scheduler.load

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
        """Loads every prefix file of a folder, all or none. Raises like `load_prefix`, also for two
        files of one task.
        """
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

    def compile(
        self,
        text: Prompt,
        *,
        name: str,
        prefix: str | None = None,
        pack: TaskPack | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Prefix:
        """Turns a text (or token ids, of a conversation, say) into a prefix: the base's own keys
        and values over it.

        With `prefix` the text stands behind that task's prefix, and both become one. The result is
        not loaded: `save` it, or give it to `load_prefix`. `pack` may add a prompt template, labels
        and the like. A prompt behind the result gets no begin-of-text token, as if both were one
        text. `progress` is told, on the engine's thread, how many tokens are done. Raises
        RequestError, PromptTooLongError.
        """
        self._scheduler.require_open()
        task = self._preparer.task(prefix)
        tokens = self._preparer.prompt_ids(text, task, template=AS_IT_IS)
        self._preparer.require_room(task, len(tokens), "the text")
        ticket: Ticket[list[Array]] = Ticket()
        before = None if task is None else task.prefix
        self._scheduler.submit(
            CompileProbe(tokens=tokens, prefix=before, ticket=ticket, progress=progress)
        )
        pairs = self._cache.unpack(ticket.wait())
        layers = [
            PrefixLayer(key.astype(np.float32), value.astype(np.float32)) for key, value in pairs
        ]
        begins = (
            int(tokens[0]) == self.manifest.begin_id
            if task is None
            else bool(task.pack.recipe.get(BEGINS))
        )
        recipe = {"method": "compile", "tokens": len(tokens), "behind": prefix, BEGINS: begins}
        return Prefix(
            name=name,
            base=self.manifest.base,
            layers=tuple(layers),
            pack=dataclasses.replace(pack or TaskPack(), recipe=recipe, continues_text=True),
        )

    # Text -----------------------------------------------------------------------------------------

    def generate(
        self,
        prompt: Prompt,
        *,
        prefix: str | None = None,
        template: str | None = None,
        timeout_s: float | None = None,
        **settings: Unpack[Settings],
    ) -> Completion:
        """Generates a text. `settings` are the fields of GenerationOptions; they override the
        task's own defaults.

        Raises RequestError, PromptTooLongError, UnknownTaskError, TemplateError, QueueFullError,
        RequestTimeout, NumericalError, EngineClosedError.
        """
        return self.submit(
            Request(prompt, prefix=prefix, template=template, timeout_s=timeout_s, **settings)
        ).wait()

    def submit(self, request: Request) -> Ticket[Completion]:
        """Starts a generation and returns at once; the ticket waits for it or cancels it."""
        return self._submit(request)

    def stream(
        self,
        prompt: Prompt,
        *,
        prefix: str | None = None,
        template: str | None = None,
        timeout_s: float | None = None,
        **settings: Unpack[Settings],
    ) -> PieceStream:
        """Generates a text piece by piece. Leaving the iterator early cancels the request."""
        request = Request(prompt, prefix=prefix, template=template, timeout_s=timeout_s, **settings)
        return PieceStream(lambda on_piece: self._submit(request, on_piece=on_piece))

    def generate_many(self, requests: Iterable[Request]) -> list[Completion]:
        """Generates for many requests, of different tasks if need be, in one mixed batch. Results
        come in the requests' order.

        When one fails its error is raised, and the others are cancelled.
        """
        results = dict(self.generate_each(requests))
        return [results[index] for index in range(len(results))]

    def generate_each(self, requests: Iterable[Request]) -> Iterator[tuple[int, Completion]]:
        """Like `generate_many`, but yields (index, completion) in order, and takes requests only as
        slots become free.
        """
        return _in_order(
            (self._submit(request, wait=True) for request in requests), ahead=4 * self.max_batch
        )

    async def agenerate(self, request: Request) -> Completion:
        """`generate` for asyncio; cancelling the task cancels the request."""
        from edgeprefix.runtime.engine.awaiting import result_of

        return await result_of(self._submit(request))

    def astream(
        self,
        prompt: Prompt,
        *,
        prefix: str | None = None,
        template: str | None = None,
        timeout_s: float | None = None,
        **settings: Unpack[Settings],
    ) -> AsyncIterator[Piece]:
        """`stream` for asyncio: `async for piece in engine.astream(...)`."""
        request = Request(prompt, prefix=prefix, template=template, timeout_s=timeout_s, **settings)
        from edgeprefix.runtime.engine.awaiting import stream_pieces

        return stream_pieces(lambda on_piece: self._submit(request, on_piece=on_piece))

    def chat_prompt(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True
    ) -> list[int]:
        """Token ids of a conversation in the base's own chat template, to be given to `generate` or
        `stream`.

        Raises RequestError when the base has none or refuses the messages, MissingExtraError
        without Jinja.
        """
        text = bundle_chat(
            self.manifest, self.tokenizer, messages, add_generation_prompt=add_generation_prompt
        )
        return self.tokenizer.encode_piece(text)  # the template writes the special tokens itself

    # Scores ---------------------------------------------------------------------------------------

    def score(
        self,
        prompt: Prompt,
        options: Sequence[str] | None = None,
        *,
        prefix: str | None = None,
        template: str | None = None,
        include_end: bool = True,
        normalise: bool = False,
        calibrate: bool = False,
        timeout_s: float | None = None,
    ) -> Scores:
        """Log-probability of each option as the continuation of the prompt; the options default to
        the task's labels.

        `include_end` counts the end-of-text token, as in training. `normalise` divides by the
        number of tokens. `calibrate` subtracts what the option gets for a content-free prompt
        (every field "N/A"), so that an option that is likely anyway does not win by that. Raises
        RequestError, PromptTooLongError, UnknownTaskError.
        """
        self._scheduler.require_open()
        settings = ScoreSettings(
            options=options, prefix=prefix, template=template, include_end=include_end,
            normalise=normalise, calibrate=calibrate, timeout_s=timeout_s,
        )  # fmt: skip
        scoring = self._scorer.start(prompt, settings)
        return scoring.scores(scoring.ticket.wait())

    def score_each(
        self,
        prompts: Iterable[Prompt],
        options: Sequence[str] | None = None,
        *,
        prefix: str | None = None,
        template: str | None = None,
        include_end: bool = True,
        normalise: bool = False,
        calibrate: bool = False,
    ) -> Iterator[tuple[int, Scores]]:
        """`score` for many prompts, which share the batch: yields (index, scores) in order, and
        takes prompts only as they can be served. When one fails its error is raised, and the others
        are cancelled.
        """
        settings = ScoreSettings(
            options=options, prefix=prefix, template=template, include_end=include_end,
            normalise=normalise, calibrate=calibrate,
        )  # fmt: skip
        started: deque[Scoring] = deque()

        def start(prompt: Prompt) -> Ticket[list[float]]:
            self._scheduler.require_open()
            started.append(self._scorer.start(prompt, settings, wait=True))
            return started[-1].ticket

        for index, sums in _in_order(map(start, prompts), ahead=4 * self.max_batch):
            yield index, started.popleft().scores(sums)

    def logprobs(
        self,
        prompt: Prompt,
        *,
        prefix: str | None = None,
        template: str | None = None,
        timeout_s: float | None = None,
    ) -> TextLogprobs:
        """Log-probability of every token of a text; `.perplexity` follows. A text without a
        template is used as it is.
        """
        self._scheduler.require_open()
        return self._scorer.logprobs(prompt, prefix=prefix, template=template, timeout_s=timeout_s)

    def next_logprobs(
        self, prompt: Prompt, *, prefix: str | None = None, template: str | None = None
    ) -> Logits:
        """Log-probabilities of the whole vocabulary after each token of a text, fp32 [S, V]."""
        return self._scorer.next_logprobs(prompt, prefix=prefix, template=template)

    def perplexity(
        self, prompt: Prompt, *, prefix: str | None = None, template: str | None = None
    ) -> float:
        """exp of the mean negative log-probability of a text's tokens."""
        return self.logprobs(prompt, prefix=prefix, template=template).perplexity

    # Within ---------------------------------------------------------------------------------------

    def _submit(
        self, request: Request, *, on_piece: OnPiece | None = None, wait: bool = False
    ) -> Ticket[Completion]:
        self._scheduler.require_open()
        work, ticket = self._preparer.generation(request, on_piece=on_piece)
        self._scheduler.submit(work, wait=wait)
        return ticket

    def _load_all(self, prefixes: str | Path | Iterable[str | Path] | None) -> None:
        if prefixes is None:
            return
        for source in [prefixes] if isinstance(prefixes, str | Path) else prefixes:
            if Path(source).is_file():
                self.load_prefix(source)
            else:
                self.load_prefixes(source)


def _in_order(tickets: Iterator[Ticket[T]], *, ahead: int) -> Iterator[tuple[int, T]]:
    """(index, result) of each ticket in order; at most `ahead` of them are out beyond the next
    result.
    """
    running: deque[tuple[int, Ticket[T]]] = deque()
    try:
        for index, ticket in enumerate(tickets):
            running.append((index, ticket))
            while len(running) > ahead or (running and running[0][1].done):
                first, oldest = running.popleft()
                yield first, oldest.wait()
        while running:
            first, oldest = running.popleft()
            yield first, oldest.wait()
    finally:
        for _, ticket in running:
            ticket.cancel()


def _shut_down(
    scheduler: Scheduler, watchers: Sequence[FolderWatcher], *, finish: bool = False
) -> None:
    """Ends all threads of an engine; no method, since it also runs when an engine is let go of."""
    if not scheduler.here:
        return
    for watcher in watchers:
        watcher.stop()
    scheduler.close(finish=finish)


def _require_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise RequestError(f"{name}={number}: expected at least 1")
