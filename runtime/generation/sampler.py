"""Options made into one callable per sequence: logits and the tokens so far in, the next token out.

Built once per request; the loop that calls it knows nothing about top-k. Without options it is one
argmax.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeprefix.runtime.errors import NumericalError, RequestError
from edgeprefix.runtime.generation import sampling
from edgeprefix.runtime.generation.options import GenerationOptions

Logits = npt.NDArray[np.float32]  # [V]


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What a sampler must know of the base and of the options' words, in token ids."""

    size: int
    end_ids: tuple[int, ...] = ()
    banned: tuple[tuple[int, ...], ...] = ()
    """Sequences that must not appear."""
    forced: tuple[tuple[tuple[int, ...], ...], ...] = ()
    """For each text that must appear, the sequences that spell it."""
    beginning: tuple[int, ...] = ()
    """Tokens that the text starts with."""


class Sampler:
    """Chooses one sequence's tokens. Raises RequestError when the options bar every token.

    `seed_offset` tells the n samples of one request apart.
    """

    def __init__(
        self,
        options: GenerationOptions,
        vocabulary: Vocabulary,
        prompt: Sequence[int],
        *,
        seed_offset: int = 0,
    ) -> None:
        self._options, self._vocabulary, self._prompt = options, vocabulary, list(prompt)
        self._random = np.random.default_rng(
            None if options.seed is None else [options.seed, seed_offset]
        )
        self._temperature = options.effective_temperature
        self._plain = not self._temperature and not _edits_logits(options, vocabulary)
        bias = options.logit_bias
        self._bias_ids = _checked_ids(bias, vocabulary.size)
        self._bias = np.asarray(list(bias.values()), np.float32)
        self._seen = np.unique(np.asarray(self._prompt, np.int64))

    @property
    def plain(self) -> bool:
        """Whether the choice is simply the likeliest token, whatever came before."""
        return self._plain

    def __call__(self, logits: Logits, tokens: Sequence[int], left: int) -> int:
        """The next token. `logits` [V] are not changed, `tokens` were generated so far, `left` more
        may come, this one in.

        Raises NumericalError when the base gave NaN or infinity.
        """
        best = int(logits.argmax())  # the first NaN, if there is one
        if not math.isfinite(logits[best]):
            raise NumericalError(
                f"the base gave {logits[best]} as a logit after {len(tokens)} tokens; check "
                "prefix and precision"
            )
        if self._plain:
            return best
        forced = self.forced(tokens, left)
        return self._choose(self.edit(logits, tokens)) if forced is None else forced

    def forced(self, tokens: Sequence[int], left: int) -> int | None:
        """The one token that may come next, if the text's beginning or a missing forced word leaves
        no choice.

        `left` more tokens may come, this one in.
        """
        if len(tokens) < len(self._vocabulary.beginning):
            return self._vocabulary.beginning[len(tokens)]
        return self._due(tokens, left) if self._vocabulary.forced else None

    def edit(self, logits: Logits, tokens: Sequence[int]) -> Logits:
        """A copy of the logits with penalties, bias and bans applied; beam search ranks these."""
        options = self._options
        logits = logits.astype(np.float32)  # always a copy
        if len(self._bias_ids):
            logits[self._bias_ids] += self._bias
        if options.repetition_penalty != 1.0:
            seen = np.union1d(self._seen, np.asarray(tokens, np.int64))
            sampling.penalize_repetition(logits, seen, options.repetition_penalty)
        if options.presence_penalty or options.frequency_penalty:
            sampling.penalize_presence_and_frequency(
                logits, tokens, options.presence_penalty, options.frequency_penalty
            )
        if options.no_repeat_ngram:
            logits[
                sampling.repeated_ngram_tokens([*self._prompt, *tokens], options.no_repeat_ngram)
            ] = sampling.BARRED
        if self._vocabulary.banned:
            logits[sampling.banned_sequence_tokens(tokens, self._vocabulary.banned)] = (
                sampling.BARRED
            )
        if len(tokens) < options.min_new_tokens or self._missing(tokens):
            logits[list(self._vocabulary.end_ids)] = sampling.BARRED
        return logits

    def _choose(self, logits: Logits) -> int:
        best = int(logits.argmax())
        if logits[best] == sampling.BARRED:
            raise RequestError(
                "every token is barred; loosen logit_bias, banned_words or no_repeat_ngram"
            )
        if not self._temperature:
            return best
        return sampling.draw(self._candidates(logits), self._random.random())

    def _candidates(self, logits: Logits) -> sampling.Candidates:
        options = self._options
        logits /= np.float32(self._temperature)
        left = (
            sampling.keep_top_k(logits, options.top_k)
            if options.top_k
            else sampling.everything(logits)
        )
        if options.top_p < 1:
            left = sampling.keep_top_p(left, options.top_p)
        if options.min_p > 0:
            left = sampling.keep_min_p(left, options.min_p)
        if options.typical_p < 1:
            left = sampling.keep_typical(left, options.typical_p)
        return left

    def _missing(self, tokens: Sequence[int]) -> list[tuple[int, ...]]:
        """The forced words that have not appeared, each by its first spelling."""
        return [
            spellings[0]
            for spellings in self._vocabulary.forced
            if not any(_contains(tokens, spelling) for spelling in spellings)
        ]

    def _due(self, tokens: Sequence[int], left: int) -> int | None:
        """The forced token when the room is just enough for the words still missing."""
        missing = self._missing(tokens)
        if not missing or left > sum(map(len, missing)):
            return None
        started = max(
            range(len(missing[0])),
            key=lambda size: size if _ends_with(tokens, missing[0][:size]) else 0,
        )
        return missing[0][started]


def _edits_logits(options: GenerationOptions, vocabulary: Vocabulary) -> bool:
    return bool(
        options.logit_bias
        or options.repetition_penalty != 1.0
        or options.presence_penalty
        or options.frequency_penalty
        or options.no_repeat_ngram
        or options.min_new_tokens
        or vocabulary.banned
        or vocabulary.forced
        or vocabulary.beginning
    )


def _checked_ids(bias: Mapping[int, float], size: int) -> npt.NDArray[np.int64]:
    for token in bias:
        if not 0 <= token < size:
            raise RequestError(f"logit_bias names token {token}, the vocabulary has 0 … {size - 1}")
    return np.asarray(list(bias), np.int64)


def _contains(tokens: Sequence[int], sequence: Sequence[int]) -> bool:
    size = len(sequence)
    return any(
        tuple(tokens[start : start + size]) == tuple(sequence)
        for start in range(len(tokens) - size + 1)
    )


def _ends_with(tokens: Sequence[int], sequence: Sequence[int]) -> bool:
    return not sequence or tuple(tokens[-len(sequence) :]) == tuple(sequence)
