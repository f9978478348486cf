"""Options and labels into tokens, calibration, normalisation: a request for scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgeprefix.runtime.engine.calibration import content_free
from edgeprefix.runtime.engine.prepare import AS_IT_IS, Preparer, Prompt, checked_text
from edgeprefix.runtime.engine.requests import Given, TextRequest
from edgeprefix.runtime.errors import RequestError
from edgeprefix.runtime.scoring.option_probe import OptionProbe, Reference, Sums
from edgeprefix.runtime.scoring.scores import Scores
from edgeprefix.runtime.tasks.prefix_store import Loaded
from edgeprefix.runtime.work.slot import Ids
from edgeprefix.runtime.work.ticket import Ticket
from edgeprefix.runtime.work.work import Work


class ScoreSettings(Given, total=False):
    """What may be given by name to a scoring."""

    include_end: bool
    normalise: bool
    calibrate: bool


@dataclass(frozen=True)
class ScoreRequest(TextRequest[Scores]):
    """Log-probability of each option as the continuation of a prompt; see `Engine.score`."""

    options: Sequence[str] | None = None
    include_end: bool = field(default=True, kw_only=True)
    normalise: bool = field(default=False, kw_only=True)
    calibrate: bool = field(default=False, kw_only=True)

    def work(self, preparer: Preparer, ticket: Ticket[Scores]) -> Work:
        """Scores the options, and first behind a prompt that says nothing when that is wanted."""
        task = preparer.task(self.task)
        names = _names(self.options, task)
        ids = self._option_ids(preparer, names)
        context = self._context(preparer, self.prompt, task, self.template, ids)
        divisors = [len(tokens) if self.normalise else 1 for tokens in ids]
        free, reference = self._content_free(preparer, task, ids)

        def scores(sums: Sums) -> Scores:
            triples = zip(sums, free[0], divisors, strict=True)
            return Scores(names, tuple((value - off) / length for value, off, length in triples))

        return OptionProbe(
            context=context, prefix=None if task is None else task.prefix, options=ids,
            ticket=ticket, scores=scores, reference=reference,
        )  # fmt: skip

    def _content_free(
        self, preparer: Preparer, task: Loaded | None, ids: list[list[int]]
    ) -> tuple[list[Sums], Reference | None]:
        """What the options get after a prompt that says nothing: there already, or once the
        reference was computed.
        """
        if not self.calibrate:
            return [[0.0] * len(ids)], None
        template, prefix = self._chosen_template(task), None if task is None else task.prefix
        key = (template, *map(tuple, ids))
        known = preparer.calibrations.get(prefix, key)
        if known is not None:
            return [known], None
        found: list[Sums] = []

        def keep(sums: Sums) -> None:
            found.append(sums)
            preparer.calibrations.put(prefix, key, sums)

        context = self._context(preparer, content_free(template), task, template, ids)
        return found, Reference(context, keep)

    def _chosen_template(self, task: Loaded | None) -> str:
        if not isinstance(self.prompt, str | Mapping):
            raise RequestError("calibration needs a prompt of text or fields, not token ids")
        if self.template is not None:
            return self.template
        return AS_IT_IS if task is None else task.pack.prompt

    def _context(
        self,
        preparer: Preparer,
        prompt: Prompt,
        task: Loaded | None,
        template: str | None,
        ids: list[list[int]],
    ) -> Ids:
        context = preparer.prompt_ids(prompt, task, template=template)
        longest = len(context) + max(map(len, ids))
        preparer.require_room(task, longest, "the prompt with its longest option")
        return context

    def _option_ids(self, preparer: Preparer, options: Sequence[str]) -> list[list[int]]:
        if not options:
            raise RequestError(
                "no options to score: give some, or use a task whose task pack has labels"
            )
        tokenizer = preparer.tokenizer
        encode = tokenizer.encode_target if self.include_end else tokenizer.encode_piece
        ids = [encode(checked_text("an option", option)) for option in options]
        empty = [option for option, tokens in zip(options, ids, strict=True) if not tokens]
        if empty:
            raise RequestError(f"option {empty[0]!r} has no tokens; give it some text")
        return ids


def _names(options: Sequence[str] | None, task: Loaded | None) -> tuple[str, ...]:
    if isinstance(options, str):
        raise RequestError(f"options={options!r}: expected several texts, got one")
    names = tuple(options) if options is not None else () if task is None else task.pack.labels
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise RequestError(f"option {wrong[0]!r} is no text")
    return names
