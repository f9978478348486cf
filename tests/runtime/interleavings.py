"""Requests that join, leave, are cancelled and have their task replaced at chosen runs of the
graph: every time the same.

Threads and clocks would make each trial another one. So the decoder itself counts its runs and,
before the run that the script names, acts on the engine's own thread: submits, cancels, replaces.
What cannot come up that way any more (the engine ran dry) is submitted from outside.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from bundles import TASKS, make_prefix

from edgeprefix.runtime import Completion, Engine, Request, ScoreRequest
from edgeprefix.runtime.contracts.manifest import TOKENIZER_FILE, Manifest
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.decoding.cache import Cache
from edgeprefix.runtime.decoding.decoder import Decoder
from edgeprefix.runtime.decoding.session import open_graph
from edgeprefix.runtime.errors import RequestCancelled
from edgeprefix.runtime.work.ticket import Ticket

KINDS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sample": {"temperature": 1.0, "seed": 5},
    "several": {"temperature": 1.0, "seed": 6, "n": 3},
    "beams": {"beams": 3, "n": 2},
    "lookup": {"lookup": 4},
}
LENGTHS, NEW = (1, 4, 9, 20, 40), (1, 3, 6)
OPTIONS = ["a", "b", "cat", "the dog"]
VERSIONS = 2


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request of a script."""

    kind: str
    task: str | None
    length: int
    """Tokens of its prompt."""
    new: int
    content: int = 0
    """Which prompt of that length."""


@dataclass(frozen=True, kw_only=True)
class Act:
    """Something that happens before run number `run` of the graph."""

    run: int
    ask: Ask | None = None
    replaced: str | None = None
    cancel_after: int | None = None
    """Runs until it is cancelled."""


class CountingDecoder(Decoder):
    """Tells a listener before each run of the graph."""

    def __init__(self, graph: Any, cache: Any, **options: Any) -> None:
        super().__init__(graph, cache, **options)
        self.runs = 0
        self.before: Callable[[int], None] = lambda run: None

    def step(self, tokens: Sequence[int], lengths: Sequence[int]) -> Any:
        self.runs += 1
        self.before(self.runs)
        return super().step(tokens, lengths)

    def feed(
        self, slot: int, tokens: Any, *, start: int, wanted: Sequence[int] | None = None
    ) -> Any:
        self.runs += 1
        self.before(self.runs)
        return super().feed(slot, tokens, start=start, wanted=wanted)


def scripted_engine(
    bundle: Path,
    *,
    cache: type[Cache] = Cache,
    decoder: type[CountingDecoder] = CountingDecoder,
    rows: int = 4,
    steady: bool = False,
) -> Engine:
    """An engine whose decoder counts; other classes of cache and decoder stand for broken code."""
    manifest = Manifest.load(bundle)
    graph = open_graph(bundle, manifest, threads=1)
    memory = cache(graph.layers, batch=rows + steady, capacity=96, dtype=graph.cache_dtype)
    tokenizer = TextTokenizer.from_file(bundle / TOKENIZER_FILE, end_ids=manifest.end_ids)
    return Engine(manifest, tokenizer, decoder(graph, memory, steady=steady), chunk_tokens=8)


class Stage:
    """Plays scripts on one engine, and knows what each request gives alone."""

    def __init__(self, engine: Engine, *, alone: Stage | None = None) -> None:
        self.engine = engine
        self._decoder: Any = engine._scheduler._decoder
        self._alone = alone or self
        self._files = {
            (name, version): make_prefix(engine.manifest, name, length, seed=10 * length + version)
            for name, length in TASKS.items()
            for version in range(VERSIONS)
        }
        self._known: dict[tuple[Ask, int], Any] = {}
        self._versions: dict[str | None, int] = {}
        self._reset()

    def alone(self, ask: Ask, version: int) -> Any:
        """What a request gives when nothing else runs."""
        if (ask, version) not in self._known:
            if ask.task is not None:
                self._load(ask.task, version)
            self._known[ask, version] = self._result(self._submit(ask))
        return self._known[ask, version]

    def play(self, script: Sequence[Act]) -> list[tuple[Ask, int, Any]]:
        """(request, version of its task, result) of all that were not cancelled."""
        self._reset()
        begun, waiting = self._decoder.runs, sorted(script, key=lambda act: act.run)
        started: list[tuple[Ask, int, Any]] = []
        cancels: list[tuple[int, Ticket[Any]]] = []

        lock = threading.Lock()  # what is submitted here is noted before the engine's thread acts

        def due(run: int) -> None:
            with lock:
                while waiting and waiting[0].run <= run - begun:
                    act(waiting.pop(0), run)
                for when, ticket in cancels:
                    if when <= run:
                        ticket.cancel()

        def act(one: Act, run: int) -> None:
            if one.replaced is not None:
                self._load(one.replaced, (self._versions[one.replaced] + 1) % VERSIONS)
            if one.ask is not None:
                ticket = self._submit(one.ask)
                if one.cancel_after is None:
                    started.append((one.ask, self._versions.get(one.ask.task, 0), ticket))
                else:
                    cancels.append((run + one.cancel_after, ticket))

        self._decoder.before = due
        while True:
            with lock:
                tickets = [ticket for _, _, ticket in started] + [ticket for _, ticket in cancels]
                running = next((ticket for ticket in tickets if not ticket.done), None)
                if running is None and not waiting:
                    break
                if running is None:  # the engine is idle
                    act(waiting.pop(0), self._decoder.runs)
            if running is not None:
                running.future.exception()  # waits
        self._decoder.before = lambda run: None
        return [(ask, version, self._result(ticket)) for ask, version, ticket in started]

    def check(self, script: Sequence[Act]) -> int:
        """Same tokens as alone, log-probabilities within rounding of it. Returns the number of
        results.
        """
        results = self.play(script)
        for ask, version, found in results:
            expected = self._alone.alone(ask, version)
            assert tokens_of(found) == tokens_of(expected), (ask, version, script)
            np.testing.assert_allclose(
                numbers_of(found), numbers_of(expected), atol=2e-5, err_msg=str((ask, script))
            )
        return len(results)

    def _submit(self, ask: Ask) -> Any:
        ids = np.random.default_rng([ask.length, ask.content]).integers(2, 380, ask.length).tolist()
        if ask.kind == "score":
            return self.engine.submit(ScoreRequest(ids, OPTIONS, task=ask.task))
        extra = KINDS[ask.kind]
        return self.engine.submit(
            Request(
                ids, task=ask.task, max_new_tokens=ask.new, ignore_end=True, logprobs=0, **extra
            )
        )

    @staticmethod
    def _result(ticket: Ticket[Any]) -> Any:
        # Pragma: no cover - results of cancelled requests are not asked for
        try:
            return ticket.result(timeout_s=60)
        except RequestCancelled:
            raise AssertionError("a request was cancelled that nobody cancelled") from None

    def _reset(self) -> None:
        for name in TASKS:
            if self._versions.get(name) != 0:
                self._load(name, 0)

    def _load(self, name: str, version: int) -> None:
        self.engine.load_prefix(self._files[name, version])
        self._versions[name] = version


def tokens_of(result: Any) -> Any:
    """All tokens of a completion; nothing of scores."""
    if not isinstance(result, Completion):
        return None
    return [one.tokens for one in (result, *result.alternatives)]


def numbers_of(result: Any) -> list[float]:
    """All log-probabilities of a completion, or the scores."""
    if not isinstance(result, Completion):
        return list(result)
    return [entry.logprob for one in (result, *result.alternatives) for entry in one.logprobs or ()]


def draw_script(
    seed: int, *, kinds: Sequence[str] = (*KINDS, "greedy", "greedy", "score")
) -> list[Act]:
    """2 to 9 acts within the first runs of the graph: mostly requests, some cancelled, some
    replacements.
    """
    chance = random.Random(seed)
    script = []
    for place in range(chance.randint(2, 9)):
        run = 0 if place == 0 else chance.randint(0, 14)
        if place and chance.random() < 0.12:
            script.append(Act(run=run, replaced=chance.choice(list(TASKS))))
            continue
        ask = Ask(
            kind=chance.choice(kinds),
            task=chance.choice([*TASKS, None]),
            length=chance.choice(LENGTHS),
            new=chance.choice(NEW),
        )
        cancelled = place > 0 and chance.random() < 0.2
        script.append(
            Act(run=run, ask=ask, cancel_after=chance.randint(0, 6) if cancelled else None)
        )
    return script


def with_other_content(script: Sequence[Act]) -> list[Act]:
    """The same script, but all requests except the first have other prompts of the same lengths."""
    first, *others = script
    changed = [
        act if act.ask is None else replace(act, ask=replace(act.ask, content=1)) for act in others
    ]
    return [first, *changed]
