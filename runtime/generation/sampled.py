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
    """n sequences over one prompt, greedy or sampled: work for the scheduler.

    It begins with as many sequences as there are free slots; the others follow in the slots of
    those that end, behind the same prompt.
    """

    lanes = 1

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
        self._running: list[TokenSequence] = []
        """In the order of their lanes."""
        self._begun = 0  # sequences that have their first token
        self._first_logits: Logits | None = None  # [V] behind the prompt
        self._clock = Clock(submitted=ticket.submitted)

    @property
    def feed_length(self) -> int:
        """Tokens of the prompt."""
        return len(self.prompt)

    def run(self, slot: Slot) -> Generator[int, None, Start | None]:
        """Feeds the prompt and chooses the first token of the sequences that begin."""
        self._clock.started = time.perf_counter()
        logits = yield from slot.prefill(self.prompt)
        self._first_logits = logits if len(self._sequences) == 1 else logits.copy()
        self._clock.first_token = time.perf_counter()
        tokens: list[int | None] = []
        while len(tokens) < slot.free and (token := self._begin_next()) is not None:
            tokens.append(token)
        self._resolve_at_the_end()
        return Start(self, Turn(tokens))

    def advance(self, logits: Logits) -> Turn:
        """Logits [sequences that go on, V] → next tokens; a lane that ends takes a sequence."""
        running = self._running
        if len(running) == 1:  # the common case, kept short
            token = running[0].accept(logits[0])
            if token is not None:
                return Turn((token,))
            tokens: list[int | None] = [None]
        else:
            tokens = [one.accept(row) for one, row in zip(running, logits, strict=True)]
        ended = [token is None for token in tokens]
        self._running = []
        for place, sequence in enumerate(running):
            if ended[place]:
                tokens[place] = self._begin_next()
            else:
                self._running.append(sequence)
        self._resolve_at_the_end()
        return Turn(tokens, rewind=ended)

    def draft(self) -> Sequence[int]:
        """Prompt lookup's guess, when asked for."""
        return () if self._lookup is None else self._lookup(self._running[0].tokens)

    def partial(self, reason: str) -> Completion | None:
        """The texts so far."""
        return self._completion(reason) if self._begun else None

    def _begin_next(self) -> int | None:
        """The first token of the next sequence that has one; None when all have begun."""
        assert self._first_logits is not None
        while self._begun < len(self._sequences):
            sequence = self._sequences[self._begun]
            self._begun += 1
            token = sequence.accept(self._first_logits)
            if token is not None:
                self._running.append(sequence)
                return token
        return None

    def _resolve_at_the_end(self) -> None:
        if not self._running:
            self.ticket.resolve(self._completion("length"))

    def _completion(self, reason: str) -> Completion:
        """`reason` is that of the sequences that have none of their own."""
        timings = self._clock.timings()
        first, *others = [self._completed(one, timings, reason) for one in self._sequences]
        return dataclasses.replace(first, alternatives=tuple(others)) if others else first

    def _completed(self, sequence: TokenSequence, timings: Timings, reason: str) -> Completion:
        return Completion(
            text=self._decode(sequence.tokens) if sequence.stream is None else sequence.stream.text,
            tokens=tuple(sequence.tokens),
            finish_reason=sequence.finish_reason or reason,
            task=None if self.prefix is None else self.prefix.name,
            prompt_tokens=len(self.prompt),
            timings=timings,
            logprobs=None if sequence.alternatives is None else tuple(sequence.logprobs),
        )


def token_logprob(logprobs: Logits, token: int, alternatives: int) -> TokenLogprob:
    """What is reported of a token out of log-probabilities [V], with the likeliest ones."""
    return TokenLogprob(
        token=token,
        logprob=float(logprobs[token]),
        top=tuple(sampling.top_entries(logprobs, alternatives)),
    )
