"""Beam search: the most probable texts, not the most probable next tokens.

The rules are those of transformers' `_beam_search` (https://github.com/huggingface/transformers,
generation/utils.py), to the score.

All beams decode in one run. When a beam continues another one, the scheduler copies what they do
not share of the cache.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprefix.runtime.errors import NumericalError, RequestError
from edgeprefix.runtime.generation import sampling
from edgeprefix.runtime.generation.options import GenerationOptions
from edgeprefix.runtime.generation.sampled import Clock, token_logprob
from edgeprefix.runtime.generation.sampler import Sampler
from edgeprefix.runtime.generation.stop_texts import StopTexts
from edgeprefix.runtime.work.completion import Completion, TokenLogprob
from edgeprefix.runtime.work.resident import ResidentPrefix
from edgeprefix.runtime.work.slot import Ids, Logits, Slot
from edgeprefix.runtime.work.ticket import Ticket
from edgeprefix.runtime.work.work import Start, Turn

_HOPELESS = -np.inf  # score of a place in the batch that no beam fills yet


@dataclass(frozen=True)
class Beam:
    """A text in the making: tokens, sum of log-probabilities, the beam that it continues."""

    tokens: tuple[int, ...]
    logprob: float
    parent: int
    entries: tuple[TokenLogprob, ...] = ()
    """One for each token, when they are asked for."""


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A finished text."""

    tokens: tuple[int, ...]
    text: str
    score: float
    finish_reason: str
    entries: tuple[TokenLogprob, ...]


class BeamGeneration:
    """Beam search over one prompt: work for the scheduler."""

    def __init__(
        self,
        *,
        prompt: Ids,
        prefix: ResidentPrefix | None,
        sampler: Sampler,
        options: GenerationOptions,
        limit: int,
        end_ids: frozenset[int],
        ticket: Ticket[Completion],
        decode: Callable[[Sequence[int]], str],
        stops: StopTexts,
    ) -> None:
        self.prompt, self.prefix, self.ticket = prompt, prefix, ticket
        self._sampler, self._options, self._limit = sampler, options, limit
        self._end_ids, self._decode, self._stops = end_ids, decode, stops
        self._beams = [Beam((), 0.0, 0)]
        self._finished: list[Hypothesis] = []
        self._clock = Clock(submitted=ticket.submitted)

    @property
    def lanes(self) -> int:
        """One for each beam."""
        return self._options.beams

    @property
    def feed_length(self) -> int:
        """Tokens of the prompt."""
        return len(self.prompt)

    def run(self, slot: Slot) -> Generator[int, None, Start | None]:
        """Feeds the prompt and chooses the first token of every beam."""
        self._clock.started = time.perf_counter()
        logits = yield from slot.prefill(self.prompt)
        self._clock.first_token = time.perf_counter()
        tokens = self.advance(logits[None]).tokens
        return Start(self, Turn(tokens))

    def draft(self) -> Sequence[int]:
        """Beams do not speculate."""
        return ()

    def advance(self, logits: Logits) -> Turn:
        """Logits [beams, V] → the next token of each beam and the beam it goes on from."""
        candidates = self._candidates(logits)
        done = [self._ended(beam) for beam in candidates]
        for beam, reason in list(zip(candidates, done, strict=True))[: self._options.beams]:
            if reason:
                self._finish(beam, reason)
        alive = [beam for beam, reason in zip(candidates, done, strict=True) if not reason][
            : self._options.beams
        ]
        if not alive or not self._can_improve(alive[0]):
            self.ticket.resolve(self._completion())
            return Turn([None] * len(logits))
        # Fewer continuations than beams: the vocabulary is tiny, or a forced token left one choice.
        hopeless = dataclasses.replace(alive[-1], logprob=_HOPELESS)
        self._beams = alive + [hopeless] * (self._options.beams - len(alive))
        return Turn(
            [beam.tokens[-1] for beam in self._beams], [beam.parent for beam in self._beams]
        )

    def _candidates(self, logits: Logits) -> list[Beam]:
        """The best continuations of all beams, as many as leave one for each beam when some end."""
        logprobs = sampling.log_softmax(np.asarray(logits, np.float32))
        if not np.isfinite(logprobs.max()):
            raise NumericalError(
                f"the base gave NaN or infinity after {len(self._beams[0].tokens)} tokens; check "
                "prefix and precision"
            )
        scores = np.concatenate(
            [self._ranked(beam, row) for beam, row in zip(self._beams, logprobs, strict=True)]
        )
        size = logprobs.shape[1]
        best = [(divmod(place, size), score) for place, score in self._best(scores, size)]
        return [self._continued(parent, token, score, logprobs) for (parent, token), score in best]

    def _best(self, scores: Logits, size: int) -> list[tuple[int, float]]:
        """Place and score of the best continuations in scores [beams · V], best first, none that
        completes a banned text.
        """
        keep = max(2, 1 + len(self._end_ids)) * self._options.beams
        while True:
            best = [
                (place, score)
                for place, score in sampling.top_entries(scores, keep)
                if score > -np.inf
            ]
            barred = [
                place
                for place, _ in best
                if self._sampler.bars(self._beams[place // size].tokens, place % size)
            ]
            if not barred:
                return best
            scores[barred] = -np.inf

    def _ranked(self, beam: Beam, logprobs: Logits) -> Logits:
        """Score [V] of each continuation of a beam, barred ones -inf."""
        forced = self._sampler.forced(beam.tokens, self._limit - len(beam.tokens))
        if forced is None:
            return self._sampler.edit(logprobs, beam.tokens) + np.float32(beam.logprob)
        scores = np.full_like(logprobs, -np.inf)
        scores[forced] = logprobs[forced] + np.float32(beam.logprob)
        return scores

    def _continued(self, parent: int, token: int, score: float, logprobs: Logits) -> Beam:
        beam, count = self._beams[parent], self._options.logprobs
        entries = (
            beam.entries
            if count is None
            else (*beam.entries, token_logprob(logprobs[parent], token, count))
        )
        return Beam((*beam.tokens, token), score, parent, entries)

    def _ended(self, beam: Beam) -> str | None:
        if beam.tokens[-1] in self._end_ids or self._stopped(beam.tokens) is not None:
            return "stop"
        return "length" if len(beam.tokens) >= self._limit else None

    def _stopped(self, tokens: Sequence[int]) -> str | None:
        """The text before the first stop text; None when there is no stop text."""
        return self._stops.cut(tokens, self._decode)

    def _finish(self, beam: Beam, reason: str) -> None:
        tokens = beam.tokens[:-1] if beam.tokens[-1] in self._end_ids else beam.tokens
        text = self._stopped(tokens)
        hypothesis = Hypothesis(
            tokens=tokens,
            text=self._decode(tokens) if text is None else text,
            score=beam.logprob / len(beam.tokens) ** self._options.length_penalty,
            finish_reason=reason,
            entries=beam.entries[: len(tokens)],
        )
        ranked = sorted([*self._finished, hypothesis], key=lambda finished: -finished.score)
        self._finished = ranked[: self._options.beams]

    def _can_improve(self, best: Beam) -> bool:
        """Whether a running beam could still beat the worst finished one, as in transformers."""
        options = self._options
        if len(self._finished) < options.beams:
            return True
        if options.early_stopping is True:
            return False
        longest = options.early_stopping == "never" and options.length_penalty > 0
        length = self._limit if longest else len(best.tokens)
        possible: float = best.logprob / length**options.length_penalty
        return possible > self._finished[-1].score

    def partial(self, reason: str) -> Completion | None:
        """The best finished texts, or the likeliest one that is still running."""
        if not self._finished:
            self._finish(self._beams[0], reason)
        return self._completion() if self._finished[0].tokens else None

    def _completion(self) -> Completion:
        if not self._finished:
            raise RequestError(
                "every token is barred; loosen logit_bias, banned_words or no_repeat_ngram"
            )
        timings = self._clock.timings()
        first, *others = [
            Completion(
                text=finished.text,
                tokens=finished.tokens,
                finish_reason=finished.finish_reason,
                task=None if self.prefix is None else self.prefix.name,
                prompt_tokens=len(self.prompt),
                timings=timings,
                score=finished.score,
                logprobs=None if self._options.logprobs is None else finished.entries,
            )
            for finished in self._finished[: self._options.n]
        ]
        return dataclasses.replace(first, alternatives=tuple(others))
