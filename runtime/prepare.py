"""From a request in words to work in tokens: template, tokens, options and limits, everything checked before it waits.

All checks happen on the caller's thread, so a bad request costs the engine's thread nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeprefix.runtime.contracts.prompt import render_prompt
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.errors import PromptTooLongError, RequestError
from edgeprefix.runtime.generation.beams import BeamGeneration
from edgeprefix.runtime.generation.detokenizer import TextStream
from edgeprefix.runtime.generation.lookup import PromptLookup
from edgeprefix.runtime.generation.options import GenerationOptions, resolve_options, token_limit
from edgeprefix.runtime.generation.sampled import OnPiece, SampledGeneration, TokenSequence
from edgeprefix.runtime.generation.sampler import Sampler, Vocabulary
from edgeprefix.runtime.prefix_store import Loaded, PrefixStore
from edgeprefix.runtime.request import Completion, Prompt, Request
from edgeprefix.runtime.scheduling.ticket import Ticket
from edgeprefix.runtime.scheduling.work import Generation, Ids

AS_IT_IS = "{input}"


class Preparer:
    """Makes work of requests for one bundle, its tasks and its cache."""

    def __init__(
        self, tokenizer: TextTokenizer, store: PrefixStore, *, vocabulary: int, capacity: int, max_batch: int
    ) -> None:
        self.tokenizer, self.store = tokenizer, store
        self.vocabulary, self.capacity, self.max_batch = vocabulary, capacity, max_batch

    def generation(self, request: Request, *, on_piece: OnPiece | None = None) -> tuple[Generation, Ticket[Completion]]:
        """Work and ticket for a request. Raises RequestError, PromptTooLongError, UnknownTaskError, TemplateError."""
        task = self.task(request.prefix)
        options = resolve_options(None if task is None else task.pack, request.settings)
        prompt = self.prompt_ids(request.prompt, task, template=request.template)
        limit = self._limit(options, task, prompt)
        ticket: Ticket[Completion] = Ticket(timeout_s=request.timeout_s)
        self._check_lanes(options, streamed=on_piece is not None)
        build = self._beams if options.beams > 1 else self._sampled
        return build(prompt, task, options, limit, ticket, on_piece), ticket

    def task(self, name: str | None) -> Loaded | None:
        """The task of that name; None for the bare base."""
        return None if name is None else self.store.use(name)

    def prompt_ids(self, prompt: Prompt, task: Loaded | None, *, template: str | None = None) -> Ids:
        """Ids [S] of a prompt. Raises RequestError when it is empty, no prompt at all, or has ids out of range."""
        if isinstance(prompt, str | Mapping):
            continues = task is not None and task.pack.continues_text
            encode = self.tokenizer.encode_piece if continues else self.tokenizer.encode_prompt
            ids = encode(_rendered(prompt, task, template))
        else:
            ids = _token_ids(prompt, self.vocabulary)
        if not ids:
            raise RequestError("the prompt is empty; give at least one token of text")
        return np.asarray(ids, np.int64)

    def require_room(self, task: Loaded | None, tokens: int, what: str = "the prompt") -> None:
        """Raises PromptTooLongError with the numbers unless prefix and `tokens` fit the cache."""
        if self.prefix_length(task) + tokens > self.capacity:
            raise PromptTooLongError(self._too_long(task, tokens, 0, what))

    @staticmethod
    def prefix_length(task: Loaded | None) -> int:
        """P of a task, 0 for the bare base."""
        return 0 if task is None else task.prefix.length

    def _limit(self, options: GenerationOptions, task: Loaded | None, prompt: Ids) -> int:
        room = self.capacity - self.prefix_length(task) - len(prompt)
        limit = token_limit(options, None if task is None else task.pack, room)
        if limit is None:
            raise PromptTooLongError(self._too_long(task, len(prompt), options.max_new_tokens or 1, "the prompt"))
        return limit

    def _too_long(self, task: Loaded | None, tokens: int, new: int, what: str) -> str:
        before = self.prefix_length(task)
        room = max(0, self.capacity - before - new)
        numbers = f"prefix {before} + prompt {tokens}" + (f" + new {new}" if new else "")
        less = ", lower max_new_tokens" if new > 1 else ""
        return (
            f"{what} has {tokens} tokens, room is for {room}: {numbers} = {before + tokens + new} of {self.capacity} positions; "
            f"shorten it{less} or load the engine with a larger max_length"
        )

    def _check_lanes(self, options: GenerationOptions, *, streamed: bool) -> None:
        lanes = max(options.n, options.beams)
        if lanes > self.max_batch:
            raise RequestError(
                f"{lanes} sequences at once exceed max_batch={self.max_batch}; load the engine with a larger one"
            )
        if streamed and lanes > 1:
            raise RequestError("a stream gives one text; use generate() for n or beams above 1")

    def _sampled(
        self,
        prompt: Ids,
        task: Loaded | None,
        options: GenerationOptions,
        limit: int,
        ticket: Ticket[Completion],
        on_piece: OnPiece | None,
    ) -> Generation:
        listened = on_piece is not None or bool(options.stop)
        sequences = [
            TokenSequence(
                sampler=self._sampler(options, prompt, number),
                limit=limit,
                end_ids=frozenset() if options.ignore_end else frozenset(self.tokenizer.end_ids),
                alternatives=options.logprobs,
                stream=TextStream(self.tokenizer, options.stop) if listened else None,
                on_piece=on_piece,
            )
            for number in range(options.n)
        ]
        return SampledGeneration(
            prompt=prompt,
            prefix=None if task is None else task.prefix,
            sequences=sequences,
            ticket=ticket,
            decode=self.tokenizer.decode,
            lookup=PromptLookup(prompt.tolist(), options.lookup, limit) if options.lookup else None,
        )

    def _beams(
        self,
        prompt: Ids,
        task: Loaded | None,
        options: GenerationOptions,
        limit: int,
        ticket: Ticket[Completion],
        on_piece: OnPiece | None,
    ) -> Generation:
        return BeamGeneration(
            prompt=prompt,
            prefix=None if task is None else task.prefix,
            sampler=self._sampler(options, prompt, 0),
            options=options,
            limit=limit,
            end_ids=() if options.ignore_end else self.tokenizer.end_ids,
            ticket=ticket,
            decode=self.tokenizer.decode,
        )

    def _sampler(self, options: GenerationOptions, prompt: Ids, number: int) -> Sampler:
        return Sampler(options, self._words(options), prompt.tolist(), seed_offset=number)

    def _words(self, options: GenerationOptions) -> Vocabulary:
        """The options' texts in tokens."""
        return Vocabulary(
            size=self.vocabulary,
            end_ids=self.tokenizer.end_ids,
            banned=tuple(spelling for word in options.banned_words for spelling in self._spellings(word)),
            forced=tuple(self._spellings(word) for word in options.forced_words),
            beginning=tuple(self.tokenizer.encode_piece(options.forced_prefix)) if options.forced_prefix else (),
        )

    def _spellings(self, word: str) -> tuple[tuple[int, ...], ...]:
        """A word within a text and at its beginning are different tokens: both."""
        spellings = (tuple(self.tokenizer.encode_piece(text)) for text in (f" {word.lstrip()}", word))
        return tuple(dict.fromkeys(spelling for spelling in spellings if spelling))


def _rendered(prompt: str | Mapping[str, str], task: Loaded | None, template: str | None) -> str:
    chosen = template if template is not None else task.pack.prompt if task is not None else AS_IT_IS
    return render_prompt(chosen, {"input": prompt} if isinstance(prompt, str) else prompt)


def _token_ids(prompt: Sequence[Any], vocabulary: int) -> list[int]:
    try:
        ids = [int(token) for token in prompt]
    except (TypeError, ValueError) as error:
        raise RequestError(f"a prompt is text, token ids or named fields, not {type(prompt).__name__}") from error
    for place, token in enumerate(ids):
        if not 0 <= token < vocabulary:
            raise RequestError(
                f"token id {token} at place {place} is out of range, the vocabulary has 0 … {vocabulary - 1}"
            )
    return ids
