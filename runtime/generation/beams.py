"""Beam search: the most probable texts, not the most probable next tokens. The rules are those of transformers' `_beam_search`.

All beams decode in one run. When a beam continues another one, the scheduler copies what they do not share of the cache.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np

from edgeprefix.runtime.errors import NumericalError
from edgeprefix.runtime.generation import sampling
from edgeprefix.runtime.generation.options import GenerationOptions
from edgeprefix.runtime.generation.sampled import Clock
from edgeprefix.runtime.generation.sampler import Sampler
from edgeprefix.runtime.request import Completion
from edgeprefix.runtime.scheduling.ticket import Ticket
from edgeprefix.runtime.scheduling.work import Ids, Logits, ResidentPrefix, Slot, Start, Turn


@dataclass(frozen=True)
class Beam:
    """A text in the making: its tokens, the sum of their log-probabilities, and the beam that it continues."""

    tokens: tuple[int, ...]
    logprob: float
    parent: int


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A finished text."""

    tokens: tuple[int, ...]
    text: str
    score: float
    finish_reason: str


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
        end_ids: Sequence[int],
        ticket: Ticket[Completion],
        decode: Callable[[Sequence[int]], str],
    ) -> None:
        self.prompt, self.prefix, self.ticket = prompt, prefix, ticket
        self._sampler, self._options, self._limit = sampler, options, limit
        self._end_ids, self._decode = frozenset(end_ids), decode
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
        alive = [beam for beam, reason in zip(candidates, done, strict=True) if not reason][: self._options.beams]
        width = len(logits)
        if not alive or not self._can_improve(alive[0]):
            self.ticket.resolve(self._completion())
            return Turn([None] * width)
        alive += [alive[-1]] * (self._options.beams - len(alive))  # only a vocabulary smaller than the beams needs this
        self._beams = alive
        return Turn([beam.tokens[-1] for beam in alive], [beam.parent for beam in alive])

    def _candidates(self, logits: Logits) -> list[Beam]:
        """The best continuations of all beams, enough that as many unfinished ones as there are beams remain."""
        logprobs = sampling.log_softmax(np.asarray(logits, np.float32))
        if not np.isfinite(logprobs.max()):
            raise NumericalError(
                f"the base gave NaN or infinity after {len(self._beams[0].tokens)} tokens; check prefix and precision"
            )
        rows = [
            self._sampler.edit(row, beam.tokens) + np.float32(beam.logprob)
            for beam, row in zip(self._beams, logprobs, strict=True)
        ]
        scores = np.concatenate(rows)
        keep = max(2, 1 + len(self._end_ids)) * self._options.beams
        size = logprobs.shape[1]
        best = [(index, score) for index, score in sampling.top_entries(scores, keep) if score > -np.inf]
        return [Beam((*self._beams[index // size].tokens, index % size), score, index // size) for index, score in best]

    def _ended(self, beam: Beam) -> str | None:
        if beam.tokens[-1] in self._end_ids or self._stop_place(beam) is not None:
            return "stop"
        return "length" if len(beam.tokens) >= self._limit else None

    def _stop_place(self, beam: Beam) -> int | None:
        """Where the first stop text begins."""
        if not self._options.stop:
            return None
        text = self._decode(beam.tokens)
        return min((place for stop in self._options.stop if (place := text.find(stop)) >= 0), default=None)

    def _finish(self, beam: Beam, reason: str) -> None:
        tokens = beam.tokens[:-1] if beam.tokens[-1] in self._end_ids else beam.tokens
        hypothesis = Hypothesis(
            tokens=tokens,
            text=self._decode(tokens)[: self._stop_place(beam)],
            score=beam.logprob / len(beam.tokens) ** self._options.length_penalty,
            finish_reason=reason,
        )
        ranked = sorted([*self._finished, hypothesis], key=lambda finished: -finished.score)
        self._finished = ranked[: self._options.beams]

    def _can_improve(self, best: Beam) -> bool:
        """Whether a running beam could still beat the worst finished one, as transformers estimates it."""
        if len(self._finished) < self._options.beams:
            return True
        possible: float = best.logprob / len(best.tokens) ** self._options.length_penalty
        return possible > self._finished[-1].score

    def _completion(self) -> Completion:
        timings = self._clock.timings()
        completions = [
            Completion(
                text=finished.text,
                tokens=finished.tokens,
                finish_reason=finished.finish_reason,
                prefix=None if self.prefix is None else self.prefix.name,
                prompt_tokens=len(self.prompt),
                timings=timings,
                score=finished.score,
            )
            for finished in self._finished[: self._options.n]
        ]
        return dataclasses.replace(completions[0], alternatives=tuple(completions[1:]))
