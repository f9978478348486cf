"""Scores for texts: options and labels into tokens, calibration, normalisation. The engine's text
layer over scoring.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from edgeprefix.runtime.contracts.prompt import template_fields
from edgeprefix.runtime.engine.prepare import AS_IT_IS, Preparer, checked_text
from edgeprefix.runtime.engine.requests import Prompt
from edgeprefix.runtime.errors import RequestError
from edgeprefix.runtime.scoring.option_probe import OptionProbe
from edgeprefix.runtime.scoring.scores import Scores, TextLogprobs
from edgeprefix.runtime.scoring.text_probes import DistributionProbe, TextProbe
from edgeprefix.runtime.tasks.prefix_store import Loaded
from edgeprefix.runtime.work.resident import ResidentPrefix
from edgeprefix.runtime.work.slot import Logits
from edgeprefix.runtime.work.ticket import Ticket
from edgeprefix.runtime.work.work import Work

CONTENT_FREE = "N/A"  # Zhao et al. 2021, "Calibrate Before Use"

_KNOWN = 64  # sets of options whose content-free scores are kept for each task

_Known = dict[tuple[object, ...], Sequence[float]]


class Submit(Protocol):
    """Scheduler.submit."""

    def __call__(self, work: Work, *, wait: bool = False) -> None:
        """Puts work into the line."""
        ...


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """How options are scored; see Engine.score."""

    options: Sequence[str] | None = None
    prefix: str | None = None
    template: str | None = None
    include_end: bool = True
    normalise: bool = False
    calibrate: bool = False
    timeout_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Scores on their way: the ticket of the sums, and what is made of them."""

    ticket: Ticket[list[float]]
    options: tuple[str, ...]
    divisors: Sequence[int]
    """Tokens of each option, or 1 when nothing is to be normalised."""
    content_free: Sequence[float]
    """What each option gets after a prompt that says nothing, or 0."""

    def scores(self, sums: Sequence[float]) -> Scores:
        """The scores, once the sums are there."""
        triples = zip(sums, self.content_free, self.divisors, strict=True)
        return Scores(
            self.options, tuple((value - nothing) / divisor for value, nothing, divisor in triples)
        )


class Scorer:
    """Scores options and texts; `submit` hands work to the scheduler."""

    def __init__(self, preparer: Preparer, submit: Submit) -> None:
        self._preparer, self._submit = preparer, submit
        self._content_free_bare: _Known = {}
        # By prefix object: a replaced task is another object, and its numbers go away with it.
        self._content_free_tasks: WeakKeyDictionary[ResidentPrefix, _Known] = WeakKeyDictionary()

    def start(self, prompt: Prompt, settings: ScoreSettings, *, wait: bool = False) -> Scoring:
        """Submits the scoring of one prompt. With `wait` it blocks while the line is full."""
        task = self._preparer.task(settings.prefix)
        names = _names(settings.options, task)
        ids = self._option_ids(names, include_end=settings.include_end)
        zeros: Sequence[float] = [0.0] * len(ids)
        free = (
            self._content_free(prompt, task, ids, settings.template)
            if settings.calibrate
            else zeros
        )
        return Scoring(
            ticket=self._sums(prompt, task, ids, settings.template, settings.timeout_s, wait=wait),
            options=names,
            divisors=[len(tokens) if settings.normalise else 1 for tokens in ids],
            content_free=free,
        )

    def logprobs(
        self, prompt: Prompt, *, prefix: str | None, template: str | None, timeout_s: float | None
    ) -> TextLogprobs:
        """See Engine.logprobs."""
        task = self._preparer.task(prefix)
        tokens = self._preparer.prompt_ids(prompt, task, template=template)
        self._preparer.require_room(task, len(tokens), "the text")
        ticket: Ticket[TextLogprobs] = Ticket(timeout_s=timeout_s)
        self._submit(
            TextProbe(tokens=tokens, prefix=None if task is None else task.prefix, ticket=ticket)
        )
        return ticket.wait()

    def next_logprobs(self, prompt: Prompt, *, prefix: str | None, template: str | None) -> Logits:
        """See Engine.next_logprobs."""
        task = self._preparer.task(prefix)
        tokens = self._preparer.prompt_ids(prompt, task, template=template)
        self._preparer.require_room(task, len(tokens), "the text")
        ticket: Ticket[Logits] = Ticket()
        self._submit(
            DistributionProbe(
                tokens=tokens, prefix=None if task is None else task.prefix, ticket=ticket
            )
        )
        return ticket.wait()

    def _option_ids(self, options: Sequence[str], *, include_end: bool) -> list[list[int]]:
        if not options:
            raise RequestError(
                "no options to score: give some, or use a prefix whose task pack has labels"
            )
        tokenizer = self._preparer.tokenizer
        encode = tokenizer.encode_target if include_end else tokenizer.encode_piece
        ids = [encode(checked_text("an option", option)) for option in options]
        empty = [option for option, tokens in zip(options, ids, strict=True) if not tokens]
        if empty:
            raise RequestError(f"option {empty[0]!r} has no tokens; give it some text")
        return ids

    def _sums(
        self,
        prompt: Prompt,
        task: Loaded | None,
        ids: list[list[int]],
        template: str | None,
        timeout_s: float | None,
        *,
        wait: bool = False,
    ) -> Ticket[list[float]]:
        ticket: Ticket[list[float]] = Ticket(timeout_s=timeout_s)
        context = self._preparer.prompt_ids(prompt, task, template=template)
        longest = max(map(len, ids))
        self._preparer.require_room(
            task, len(context) + longest, "the prompt with its longest option"
        )
        prefix = None if task is None else task.prefix
        self._submit(
            OptionProbe(context=context, prefix=prefix, options=ids, ticket=ticket), wait=wait
        )
        return ticket

    def _content_free(
        self, prompt: Prompt, task: Loaded | None, ids: list[list[int]], template: str | None
    ) -> Sequence[float]:
        """The options' scores after a prompt that says nothing; computed once for each task and set
        of options.
        """
        if not isinstance(prompt, str | Mapping):
            raise RequestError("calibration needs a prompt of text or fields, not token ids")
        chosen = (
            template if template is not None else AS_IT_IS if task is None else task.pack.prompt
        )
        known = (
            self._content_free_bare
            if task is None
            else self._content_free_tasks.setdefault(task.prefix, {})
        )
        key: tuple[Any, ...] = (chosen, *map(tuple, ids))
        if key not in known:
            fields = dict.fromkeys(template_fields(chosen), CONTENT_FREE)
            sums = self._sums(fields, task, ids, chosen, None, wait=True).wait()
            while len(known) >= _KNOWN:  # options that never come back must not pile up
                known.pop(next(iter(known)), None)
            known[key] = sums
        return known[key]


def _names(options: Sequence[str] | None, task: Loaded | None) -> tuple[str, ...]:
    if isinstance(options, str):
        raise RequestError(f"options={options!r}: expected several texts, got one")
    names = tuple(options) if options is not None else () if task is None else task.pack.labels
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise RequestError(f"option {wrong[0]!r} is no text")
    return names
