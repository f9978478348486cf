"""From options and a prompt in tokens to a generation, all limits checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeprefix.runtime.engine.prepare import Preparer
from edgeprefix.runtime.engine.words import words_of
from edgeprefix.runtime.errors import PromptTooLongError, RequestError
from edgeprefix.runtime.generation.beams import BeamGeneration
from edgeprefix.runtime.generation.detokenizer import TextStream
from edgeprefix.runtime.generation.lookup import PromptLookup
from edgeprefix.runtime.generation.options import GenerationOptions, resolve_options, token_limit
from edgeprefix.runtime.generation.sampled import OnPiece, SampledGeneration, TokenSequence
from edgeprefix.runtime.generation.sampler import Sampler, Vocabulary
from edgeprefix.runtime.generation.stop_texts import StopTexts
from edgeprefix.runtime.tasks.prefix_store import Loaded
from edgeprefix.runtime.work.completion import Completion
from edgeprefix.runtime.work.slot import Ids
from edgeprefix.runtime.work.ticket import Ticket
from edgeprefix.runtime.work.work import Generation


def make_generation(
    preparer: Preparer,
    prompt: Ids,
    task: Loaded | None,
    settings: Mapping[str, Any],
    *,
    ticket: Ticket[Completion],
    on_piece: OnPiece | None = None,
) -> Generation:
    """Work whose result goes to the ticket. Raises RequestError, PromptTooLongError."""
    options = resolve_options(None if task is None else task.pack, settings)
    _check_lanes(preparer, options, streamed=on_piece is not None)
    limit = _limit(preparer, options, task, prompt)
    words = words_of(options, preparer.tokenizer, preparer.manifest.vocabulary)
    _require_room_for_words(words, limit)
    ids, tokenizer = prompt.tolist(), preparer.tokenizer
    prefix = None if task is None else task.prefix
    end_ids = frozenset() if options.ignore_end else frozenset(tokenizer.end_ids)
    samplers = [
        Sampler(options, words, ids, seed_offset=number)
        for number in range(1 if options.beams > 1 else options.n)
    ]
    if options.beams > 1:
        return BeamGeneration(
            prompt=prompt, prefix=prefix, sampler=samplers[0], options=options, limit=limit,
            end_ids=end_ids, ticket=ticket, decode=tokenizer.decode,
            stops=StopTexts(options.stop, tokenizer.special_tokens),
        )  # fmt: skip
    listened = on_piece is not None or bool(options.stop)
    sequences = [
        TokenSequence(
            sampler=sampler, limit=limit, end_ids=end_ids, alternatives=options.logprobs,
            stream=TextStream(tokenizer, options.stop) if listened else None, on_piece=on_piece,
        )
        for sampler in samplers
    ]  # fmt: skip
    lookup = PromptLookup(ids, options.lookup, limit) if options.lookup else None
    return SampledGeneration(
        prompt=prompt, prefix=prefix, sequences=sequences, ticket=ticket, decode=tokenizer.decode,
        lookup=lookup,
    )  # fmt: skip


def _limit(preparer: Preparer, options: GenerationOptions, task: Loaded | None, prompt: Ids) -> int:
    room = preparer.capacity - preparer.prefix_length(task) - len(prompt)
    limit = token_limit(options, None if task is None else task.pack, room)
    if limit is None:
        raise PromptTooLongError(
            preparer.too_long(task, len(prompt), options.max_new_tokens or 1, "the prompt")
        )
    return limit


def _check_lanes(preparer: Preparer, options: GenerationOptions, *, streamed: bool) -> None:
    lanes = max(options.n, options.beams)
    if lanes > preparer.max_batch:
        raise RequestError(
            f"{lanes} sequences at once exceed max_batch={preparer.max_batch}; load the engine "
            "with a larger one"
        )
    if streamed and lanes > 1:
        raise RequestError("a stream gives one text; use generate() for n or beams above 1")


def _require_room_for_words(words: Vocabulary, limit: int) -> None:
    """What must appear must fit; when it comes is the sampler's business."""
    need = len(words.beginning) + sum(len(spellings[0]) for spellings in words.forced)
    if need > limit:
        raise RequestError(
            f"forced_prefix and forced_words take {need} tokens, {limit} may come; raise "
            "max_new_tokens or force less"
        )
