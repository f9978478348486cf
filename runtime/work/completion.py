"""What a generation gives: pieces of text as they come, and the finished whole."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprefix.runtime.renamed import warn_renamed


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Where a request's time went, in milliseconds from its submission on."""

    queue_ms: float = 0.0
    """Waiting for a slot."""
    first_token_ms: float = 0.0
    """From submission to the first token, waiting included."""
    prefill_ms: float = 0.0
    """From the slot to the first token."""
    decode_ms: float = 0.0
    """From the first token to the last."""
    total_ms: float = 0.0

    def tokens_per_s(self, tokens: int) -> float:
        """Decoding speed of a text of so many tokens; 0 for fewer than two."""
        return (tokens - 1) / self.decode_ms * 1000 if tokens > 1 and self.decode_ms else 0.0


@dataclass(frozen=True, kw_only=True)
class TokenLogprob:
    """A token's log-probability (before temperature and bans), and the likeliest tokens there."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A finished generation."""

    text: str
    tokens: tuple[int, ...]
    """Generated ids, without the end-of-text token; a stop text's tokens are in."""
    finish_reason: str
    """"stop" (end of text or a stop text) or "length"; in an error's `partial` also "cancelled" or
    "timeout".
    """
    task: str | None
    """The task's name; None for the bare base."""
    prompt_tokens: int
    timings: Timings
    logprobs: tuple[TokenLogprob, ...] | None = None
    """One for each token, when asked for."""
    score: float | None = None
    """Beam search: sum of log-probabilities over length ** length_penalty."""
    alternatives: tuple[Completion, ...] = ()
    """The other n - 1 results of a request with n > 1."""

    @property
    def prefix(self) -> str | None:
        """Deprecated: `task`."""
        warn_renamed("Completion.prefix", "Completion.task")
        return self.task


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One step of a stream. Concatenated texts give the completion's text."""

    text: str
    """May be empty: a character or a possible stop text is unfinished."""
    token: int | None = None
    """None in a last piece that only ends the stream."""
    finish_reason: str | None = None
    """Set in the last piece."""
