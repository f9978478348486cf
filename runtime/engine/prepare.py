"""From a request in words to work in tokens: template, tokens, options and limits, everything
checked before it waits.

All checks happen on the caller's thread, so a bad request costs the engine's thread nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprefix.runtime.contracts.prompt import render_prompt
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.engine.requests import Prompt, Request
from edgeprefix.runtime.errors import PromptTooLongError, RequestError
from edgeprefix.runtime.generation.banned_texts import BannedTexts
from edgeprefix.runtime.generation.beams import BeamGeneration
from edgeprefix.runtime.generation.detokenizer import TextStream
from edgeprefix.runtime.generation.lookup import PromptLookup
from edgeprefix.runtime.generation.options import GenerationOptions, resolve_options, token_limit
from edgeprefix.runtime.generation.sampled import OnPiece, SampledGeneration, TokenSequence
from edgeprefix.runtime.generation.sampler import Sampler, Vocabulary
from edgeprefix.runtime.generation.stop_texts import StopTexts
from edgeprefix.runtime.tasks.prefix_store import Loaded, PrefixStore
from edgeprefix.runtime.work.completion import Completion
from edgeprefix.runtime.work.resident import ResidentPrefix
from edgeprefix.runtime.work.slot import Ids
from edgeprefix.runtime.work.ticket import Ticket
from edgeprefix.runtime.work.work import Generation

AS_IT_IS = "{input}"


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A request in tokens, everything checked."""

    prompt: Ids
    task: Loaded | None
    options: GenerationOptions
    limit: int
    """Tokens that may be generated."""
    words: Vocabulary
    """The options' texts in tokens."""

    @property
    def prefix(self) -> ResidentPrefix | None:
        """What stands before the prompt."""
        return None if self.task is None else self.task.prefix

    def sampler(self, number: int) -> Sampler:
        """The chooser of tokens of the request's text `number`."""
        return Sampler(self.options, self.words, self.prompt.tolist(), seed_offset=number)


class Preparer:
    """Makes work of requests for one bundle, its tasks and its cache."""

    def __init__(
        self,
        tokenizer: TextTokenizer,
        store: PrefixStore,
        *,
        vocabulary: int,
        capacity: int,
        max_batch: int,
    ) -> None:
        self.tokenizer, self.store = tokenizer, store
        self.vocabulary, self.capacity, self.max_batch = vocabulary, capacity, max_batch

    def generation(
        self, request: Request, *, on_piece: OnPiece | None = None
    ) -> tuple[Generation, Ticket[Completion]]:
        """Work and ticket for a request. Raises RequestError, PromptTooLongError, UnknownTaskError,
        TemplateError.
        """
        ticket: Ticket[Completion] = Ticket(timeout_s=request.timeout_s)
        task = self.task(request.prefix)
        options = resolve_options(None if task is None else task.pack, request.settings)
        self._check_lanes(options, streamed=on_piece is not None)
        prompt = self.prompt_ids(request.prompt, task, template=request.template)
        ready = Ready(
            prompt=prompt,
            task=task,
            options=options,
            limit=self._limit(options, task, prompt),
            words=self._words(options),
        )
        _require_room_for_words(ready)
        work = (
            self._beams(ready, ticket)
            if options.beams > 1
            else self._sampled(ready, ticket, on_piece)
        )
        return work, ticket

    def task(self, name: str | None) -> Loaded | None:
        """The task of that name; None for the bare base. Raises UnknownTaskError, offering the
        nearest names.
        """
        if not isinstance(name, str | None):
            raise RequestError(
                f"prefix={name!r}: expected the name of a task, or None for the bare base"
            )
        return None if name is None else self.store.use(name)

    def prompt_ids(
        self, prompt: Prompt, task: Loaded | None, *, template: str | None = None
    ) -> Ids:
        """Ids [S] of a prompt. Raises RequestError when it is empty, no prompt at all, or has ids
        out of range.
        """
        if isinstance(prompt, str | Mapping):
            continues = task is not None and task.pack.continues_text
            encode = self.tokenizer.encode_piece if continues else self.tokenizer.encode_prompt
            ids = encode(checked_text("the prompt", _rendered(prompt, task, template)))
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
            raise PromptTooLongError(
                self._too_long(task, len(prompt), options.max_new_tokens or 1, "the prompt")
            )
        return limit

    def _too_long(self, task: Loaded | None, tokens: int, new: int, what: str) -> str:
        before = self.prefix_length(task)
        room = max(0, self.capacity - before - new)
        numbers = f"prefix {before} + prompt {tokens}" + (f" + new {new}" if new else "")
        less = ", lower max_new_tokens" if new > 1 else ""
        return (
            f"{what} has {tokens} tokens, room is for {room}: {numbers} = {before + tokens + new} "
            f"of {self.capacity} positions; "
            f"shorten it{less} or load the engine with a larger max_length"
        )

    def _check_lanes(self, options: GenerationOptions, *, streamed: bool) -> None:
        lanes = max(options.n, options.beams)
        if lanes > self.max_batch:
            raise RequestError(
                f"{lanes} sequences at once exceed max_batch={self.max_batch}; load the engine "
                "with a larger one"
            )
        if streamed and lanes > 1:
            raise RequestError("a stream gives one text; use generate() for n or beams above 1")

    def _sampled(
        self, ready: Ready, ticket: Ticket[Completion], on_piece: OnPiece | None
    ) -> Generation:
        options = ready.options
        listened = on_piece is not None or bool(options.stop)
        sequences = [
            TokenSequence(
                sampler=ready.sampler(number),
                limit=ready.limit,
                end_ids=frozenset() if options.ignore_end else frozenset(self.tokenizer.end_ids),
                alternatives=options.logprobs,
                stream=TextStream(self.tokenizer, options.stop) if listened else None,
                on_piece=on_piece,
            )
            for number in range(options.n)
        ]
        return SampledGeneration(
            prompt=ready.prompt,
            prefix=ready.prefix,
            sequences=sequences,
            ticket=ticket,
            decode=self.tokenizer.decode,
            lookup=PromptLookup(ready.prompt.tolist(), options.lookup, ready.limit)
            if options.lookup
            else None,
        )

    def _beams(self, ready: Ready, ticket: Ticket[Completion]) -> Generation:
        return BeamGeneration(
            prompt=ready.prompt,
            prefix=ready.prefix,
            sampler=ready.sampler(0),
            options=ready.options,
            limit=ready.limit,
            end_ids=() if ready.options.ignore_end else self.tokenizer.end_ids,
            ticket=ticket,
            decode=self.tokenizer.decode,
            stops=StopTexts(ready.options.stop, self.tokenizer.special_tokens),
        )

    def _words(self, options: GenerationOptions) -> Vocabulary:
        text = checked_text("forced_prefix", options.forced_prefix)
        beginning = tuple(self.tokenizer.encode_piece(text)) if text else ()
        if text:
            self._require_writable("forced_prefix", text, beginning)
        return Vocabulary(
            size=self.vocabulary,
            end_ids=self.tokenizer.end_ids,
            banned=tuple(
                spelling for word in options.banned_words for spelling in self._spellings(word)
            ),
            banned_texts=BannedTexts(options.banned_words, self.tokenizer.decode)
            if options.banned_words
            else None,
            forced=tuple(self._forced(word) for word in options.forced_words),
            beginning=beginning,
        )

    def _forced(self, word: str) -> tuple[tuple[int, ...], ...]:
        """The spellings of a word that must appear. Raises RequestError when the base's tokenizer
        cannot write it.
        """
        spellings = self._spellings(word)
        self._require_writable("forced_words", word, spellings[0] if spellings else ())
        return spellings

    def _require_writable(self, option: str, text: str, tokens: Sequence[int]) -> None:
        """A tokenizer may write a text in lower case, say, or have no token for a character."""
        written = self.tokenizer.decode(tokens)
        if text.strip() not in written or not tokens:
            raise RequestError(
                f"{option}: this base's tokenizer writes {written!r} for {text!r}; force a text "
                "that it can write"
            )

    def _spellings(self, word: str) -> tuple[tuple[int, ...], ...]:
        """A word within a text and at its beginning are different tokens: both."""
        checked_text("a banned or forced word", word)
        spellings = (
            tuple(self.tokenizer.encode_piece(text)) for text in (f" {word.lstrip()}", word)
        )
        return tuple(dict.fromkeys(spelling for spelling in spellings if spelling))


def checked_text(what: str, text: str) -> str:
    """The text itself. Raises RequestError when it is none that a tokenizer takes: half a surrogate
    pair, say.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"{what} has no valid character at place {error.start}: {error.reason}"
        ) from error
    return text


def _require_room_for_words(ready: Ready) -> None:
    """What must appear must fit; when it comes is the sampler's business."""
    words = ready.words
    need = len(words.beginning) + sum(len(spellings[0]) for spellings in words.forced)
    if need > ready.limit:
        raise RequestError(
            f"forced_prefix and forced_words take {need} tokens, {ready.limit} may come; raise "
            "max_new_tokens or force less"
        )


def _rendered(prompt: str | Mapping[str, str], task: Loaded | None, template: str | None) -> str:
    if not isinstance(template, str | None):
        raise RequestError(f"template={template!r}: expected a text with marks such as {{input}}")
    chosen = (
        template if template is not None else task.pack.prompt if task is not None else AS_IT_IS
    )
    return render_prompt(chosen, {"input": prompt} if isinstance(prompt, str) else prompt)


def _token_ids(prompt: Sequence[Any], vocabulary: int) -> list[int]:
    kind = f"a prompt is text, token ids or named fields, not {type(prompt).__name__}"
    if isinstance(prompt, bytes | bytearray):  # whose items are numbers, but no token ids
        raise RequestError(f"{kind}; decode it first")
    try:
        ids = [operator.index(token) for token in prompt]
    except TypeError as error:
        raise RequestError(kind) from error
    for place, token in enumerate(ids):
        if not 0 <= token < vocabulary:
            raise RequestError(
                f"token id {token} at place {place} is out of range, the vocabulary has 0 … "
                f"{vocabulary - 1}"
            )
    return ids
