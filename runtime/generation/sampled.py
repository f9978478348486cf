"""A running generation: its sequences choose tokens, make text of them and know when to end."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

from edgeprefix.runtime.generation import sampling
from edgeprefix.runtime.generation.detokenizer import TextStream
from edgeprefix.runtime.generation.sampler import Sampler
from edgeprefix.runtime.work.completion import Completion, Piece, Timings, TokenLogprob
from edgeprefix.runtime.work.resident import ResidentPrefix
from edgeprefix.runtime.work.slot import Ids, Logits, Slot
from edgeprefix.runtime.work.ticket import Ticket
from edgeprefix.runtime.work.work import Start, Turn

OnPiece = Callable[[Piece], None]


@dataclass(kw_only=True)
class Clock:
    """When things happened to a request (seconds of time.perf_counter)."""

    submitted: float
    started: float = 0.0
    first_token: float = 0.0

    def timings(self) -> Timings:
        """The request's times if it ends now."""
        now = time.perf_counter()
        return Timings(
            queue_ms=1000 * (self.started - self.submitted),
            first_token_ms=1000 * (self.first_token - self.submitted),
            prefill_ms=1000 * (self.first_token - self.started),
            decode_ms=1000 * (now - self.first_token),
            total_ms=1000 * (now - self.submitted),
        )


@dataclass(kw_only=True, eq=False)
class TokenSequence:
    """One text in the making."""

    sampler: Sampler
    limit: int
    """Tokens at most."""
    end_ids: frozenset[int]
    """Tokens that end it; empty to go on after them."""
    alternatives: int | None = None
    """Log-probabilities with so many alternatives; None: none at all."""
    stream: TextStream | None = None
    """Needed when somebody listens, or for stop texts; else the text is made at the end."""
    on_piece: OnPiece | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str | None = None

    def accept(self, logits: Logits) -> int | None:
        """Chooses the next token from logits [V]; None when the sequence is finished."""
        token = self.sampler(logits, self.tokens, self.limit - len(self.tokens))
        if token in self.end_ids:
            self._finish("stop", None, "")
            return None
        self.tokens.append(token)
        if self.alternatives is not None:
            self.logprobs.append(
                token_logprob(sampling.log_softmax(logits), token, self.alternatives)
            )
        text = "" if self.stream is None else self.stream.add(token)
        if self.stream is not None and self.stream.stopped:
            self._finish("stop", token, text)
        elif len(self.tokens) >= self.limit:
            self._finish("length", token, text)
        elif self.on_piece is not None:
            self.on_piece(Piece(text=text, token=token))
        return None if self.finish_reason else token

    def _finish(self, reason: str, token: int | None, text: str) -> None:
        self.finish_reason = reason
        if self.stream is not None:
            text += self.stream.finish()
        if self.on_piece is not None:
            self.on_piece(Piece(text=text, token=token, finish_reason=reason))


class SampledGeneration:
    """n sequences over one prompt, greedy or sampled: work for the scheduler."""

    def __init__(
        self,
        *,
        prompt: Ids,
        prefix: ResidentPrefix | None,
        sequences: Sequence[TokenSequence],
        ticket: Ticket[Completion],
        decode: Callable[[Sequence[int]], str],
        lookup: Callable[[Sequence[int]], Sequence[int]] | None = None,
    ) -> None:
        self.prompt, self.prefix, self.ticket = prompt, prefix, ticket
        self._sequences, self._decode, self._lookup = list(sequences), decode, lookup
        self._running = list(sequences)
        self._clock = Clock(submitted=ticket.submitted)

    @property
    def lanes(self) -> int:
        """One for each sequence."""
        return len(self._sequences)

    @property
    def feed_length(self) -> int:
        """Tokens of the prompt."""
        return len(self.prompt)

    def run(self, slot: Slot) -> Generator[int, None, Start | None]:
        """Feeds the prompt and chooses every sequence's first token."""
        self._clock.started = time.perf_counter()
        logits = yield from slot.prefill(self.prompt)
        self._clock.first_token = time.perf_counter()
        return Start(self, Turn([self._step(sequence, logits) for sequence in self._sequences]))

    def advance(self, logits: Logits) -> Turn:
        """Logits [sequences that go on, V] → their next tokens."""
        running = self._running
        if len(running) == 1:  # the common case, kept short
            return Turn((self._step(running[0], logits[0]),))
        return Turn(
            [self._step(sequence, row) for sequence, row in zip(list(running), logits, strict=True)]
        )

    def draft(self) -> Sequence[int]:
        """Prompt lookup's guess, when asked for."""
        return () if self._lookup is None else self._lookup(self._running[0].tokens)

    def _step(self, sequence: TokenSequence, logits: Logits) -> int | None:
        token = sequence.accept(logits)
        if token is None:
            self._running = [other for other in self._running if other is not sequence]
            if not self._running:
                self.ticket.resolve(self._completion())
        return token

    def _completion(self) -> Completion:
        timings = self._clock.timings()
        first, *others = [self._completed(sequence, timings) for sequence in self._sequences]
        return dataclasses.replace(first, alternatives=tuple(others)) if others else first

    def _completed(self, sequence: TokenSequence, timings: Timings) -> Completion:
        return Completion(
            text=self._decode(sequence.tokens) if sequence.stream is None else sequence.stream.text,
            tokens=tuple(sequence.tokens),
            finish_reason=sequence.finish_reason or "length",
            prefix=None if self.prefix is None else self.prefix.name,
            prompt_tokens=len(self.prompt),
            timings=timings,
            logprobs=None if sequence.alternatives is None else tuple(sequence.logprobs),
        )


def token_logprob(logprobs: Logits, token: int, alternatives: int) -> TokenLogprob:
    """What is reported of a token: its entry of log-probabilities [V], and so many of the
    likeliest.
    """
    return TokenLogprob(
        token=token,
        logprob=float(logprobs[token]),
        top=tuple(sampling.top_entries(logprobs, alternatives)),
    )
