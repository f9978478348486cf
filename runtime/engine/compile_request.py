"""A text into a prefix: the base's own keys and values over it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np

from edgeprefix.runtime.contracts.prefix_file import Prefix, PrefixLayer
from edgeprefix.runtime.contracts.prompt import border_problem
from edgeprefix.runtime.contracts.task_pack import BEGINS, TaskPack
from edgeprefix.runtime.decoding.cache import Array
from edgeprefix.runtime.engine.prepare import AS_IT_IS, Preparer, Prompt
from edgeprefix.runtime.engine.requests import EngineRequest
from edgeprefix.runtime.scoring.text_probes import CompileProbe
from edgeprefix.runtime.tasks.prefix_store import Loaded
from edgeprefix.runtime.work.callbacks import Callbacks
from edgeprefix.runtime.work.slot import Ids
from edgeprefix.runtime.work.ticket import Ticket
from edgeprefix.runtime.work.work import Work

logger = logging.getLogger(__name__)


class CompileSettings(TypedDict, total=False):
    """What may be given by name to a compiling."""

    task: str | None
    pack: TaskPack | None
    progress: Callable[[int], object] | None
    timeout_s: float | None


@dataclass(frozen=True)
class CompileRequest(EngineRequest[Prefix]):
    """A prefix out of a text; see `Engine.compile`."""

    text: Prompt
    name: str = field(kw_only=True)
    task: str | None = field(default=None, kw_only=True)
    pack: TaskPack | None = field(default=None, kw_only=True)
    progress: Callable[[int], object] | None = field(default=None, kw_only=True)
    timeout_s: float | None = field(default=None, kw_only=True)

    def work(self, preparer: Preparer, ticket: Ticket[Prefix]) -> Work:
        """Feeds the text and reads its keys and values."""
        task = preparer.task(self.task)
        tokens = preparer.prompt_ids(self.text, task, template=AS_IT_IS)
        preparer.require_room(task, len(tokens), "the text")
        prompt = (self.pack or TaskPack()).prompt
        if isinstance(self.text, str) and (problem := border_problem(self.text, prompt)):
            logger.warning("prefix %s: %s", self.name, problem)
        cache = preparer.store.cache

        def finish(packed: Sequence[Array]) -> None:
            ticket.resolve(self._prefix(preparer, task, tokens, cache.unpack(packed)))

        told = None if self.progress is None else _Told(self.progress, ticket)
        return CompileProbe(
            tokens=tokens,
            prefix=None if task is None else task.prefix,
            ticket=ticket,
            progress=None if told is None else told.progress,
            finish=finish if told is None else lambda packed: told.last(lambda: finish(packed)),
        )

    def _prefix(
        self,
        preparer: Preparer,
        task: Loaded | None,
        tokens: Ids,
        pairs: Sequence[tuple[Array, Array]],
    ) -> Prefix:
        layers = [
            PrefixLayer(key.astype(np.float32), value.astype(np.float32)) for key, value in pairs
        ]
        begins = (
            int(tokens[0]) == preparer.manifest.begin_id
            if task is None
            else bool(task.pack.recipe.get(BEGINS))
        )
        recipe = {"method": "compile", "tokens": len(tokens), "behind": self.task, BEGINS: begins}
        return Prefix(
            name=self.name,
            base=preparer.manifest.base,
            layers=tuple(layers),
            pack=dataclasses.replace(self.pack or TaskPack(), recipe=recipe, continues_text=True),
        )


class _Told:
    """A caller's `progress`, called on a thread of its own; when it fails, so does its request."""

    def __init__(self, progress: Callable[[int], object], ticket: Ticket[Prefix]) -> None:
        self._progress, self._ticket, self._callbacks = progress, ticket, Callbacks()
        ticket.when_done(lambda _: self._callbacks.close())

    def progress(self, done: int) -> None:
        """So many tokens are done."""
        self.last(lambda: self._progress(done))

    def last(self, call: Callable[[], object]) -> None:
        """Calls it behind all that `progress` is still to be told."""
        self._callbacks.run(lambda: self._attempt(call))

    def _attempt(self, call: Callable[[], object]) -> None:
        try:
            if not self._ticket.done:
                call()
        except BaseException as error:  # SystemExit too is its caller's
            self._ticket.fail(error)
            self._ticket.cancel()
