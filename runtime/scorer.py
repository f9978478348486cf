"""Scores for texts: options and labels into tokens, calibration, normalisation. The engine's text layer over scoring.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from edgeprefix.runtime.contracts.prompt import template_fields
from edgeprefix.runtime.errors import RequestError
from edgeprefix.runtime.prefix_store import Loaded
from edgeprefix.runtime.prepare import AS_IT_IS, Preparer
from edgeprefix.runtime.request import Prompt
from edgeprefix.runtime.scheduling.ticket import Ticket
from edgeprefix.runtime.scheduling.work import ResidentPrefix, Work
from edgeprefix.runtime.scoring import OptionProbe, Scores, TextLogprobs, TextProbe

CONTENT_FREE = "N/A"  # Zhao et al. 2021, "Calibrate Before Use"

_Known = dict[tuple[object, ...], Sequence[float]]


class Scorer:
    """Scores options and texts; `submit` hands work to the scheduler."""

    def __init__(self, preparer: Preparer, submit: Callable[[Work], None]) -> None:
        self._preparer, self._submit = preparer, submit
        self._content_free_bare: _Known = {}
        # By prefix object: a replaced task is another object, and its numbers go away with it.
        self._content_free_tasks: WeakKeyDictionary[ResidentPrefix, _Known] = WeakKeyDictionary()

    def score(
        self,
        prompt: Prompt,
        options: Sequence[str] | None,
        *,
        prefix: str | None,
        template: str | None,
        include_end: bool,
        normalise: bool,
        calibrate: bool,
        timeout_s: float | None,
    ) -> Scores:
        """See Engine.score."""
        task = self._preparer.task(prefix)
        names = tuple(options) if options is not None else () if task is None else task.pack.labels
        ids = self._option_ids(names, include_end=include_end)
        sums: Sequence[float] = self._sums(prompt, task, ids, template, timeout_s)
        if calibrate:
            free = self._content_free(prompt, task, ids, template)
            sums = [value - nothing for value, nothing in zip(sums, free, strict=True)]
        if normalise:
            sums = [value / len(tokens) for value, tokens in zip(sums, ids, strict=True)]
        return Scores(names, tuple(sums))

    def logprobs(
        self, prompt: Prompt, *, prefix: str | None, template: str | None, timeout_s: float | None
    ) -> TextLogprobs:
        """See Engine.logprobs."""
        task = self._preparer.task(prefix)
        tokens = self._preparer.prompt_ids(prompt, task, template=template)
        self._preparer.require_room(task, len(tokens), "the text")
        ticket: Ticket[TextLogprobs] = Ticket(timeout_s=timeout_s)
        self._submit(TextProbe(tokens=tokens, prefix=None if task is None else task.prefix, ticket=ticket))
        return ticket.wait()

    def _option_ids(self, options: Sequence[str], *, include_end: bool) -> list[list[int]]:
        if not options:
            raise RequestError("no options to score: give some, or use a prefix whose task pack has labels")
        tokenizer = self._preparer.tokenizer
        encode = tokenizer.encode_target if include_end else tokenizer.encode_piece
        ids = [encode(option) for option in options]
        empty = [option for option, tokens in zip(options, ids, strict=True) if not tokens]
        if empty:
            raise RequestError(f"option {empty[0]!r} has no tokens; give it some text")
        return ids

    def _sums(
        self, prompt: Prompt, task: Loaded | None, ids: list[list[int]], template: str | None, timeout_s: float | None
    ) -> list[float]:
        context = self._preparer.prompt_ids(prompt, task, template=template)
        longest = max(map(len, ids))
        self._preparer.require_room(task, len(context) + longest, "the prompt with its longest option")
        ticket: Ticket[list[float]] = Ticket(timeout_s=timeout_s)
        prefix = None if task is None else task.prefix
        self._submit(OptionProbe(context=context, prefix=prefix, options=ids, ticket=ticket))
        return ticket.wait()

    def _content_free(
        self, prompt: Prompt, task: Loaded | None, ids: list[list[int]], template: str | None
    ) -> Sequence[float]:
        """The options' scores after a prompt that says nothing; computed once for each task and set of options."""
        if not isinstance(prompt, str | Mapping):
            raise RequestError("calibration needs a prompt of text or fields, not token ids")
        chosen = template if template is not None else AS_IT_IS if task is None else task.pack.prompt
        known = self._content_free_bare if task is None else self._content_free_tasks.setdefault(task.prefix, {})
        key: tuple[Any, ...] = (chosen, *map(tuple, ids))
        if key not in known:
            fields = dict.fromkeys(template_fields(chosen), CONTENT_FREE)
            known[key] = self._sums(fields, task, ids, chosen, None)
        return known[key]
