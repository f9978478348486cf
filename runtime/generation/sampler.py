"""Options made into one callable per sequence: logits and the tokens so far in, the next token out.

Built once per request; the loop that calls it knows nothing about top-k. Without options it is one
argmax.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from edgeprefix.runtime.errors import NumericalError, RequestError
from edgeprefix.runtime.generation import sampling
from edgeprefix.runtime.generation.banned_texts import BannedTexts
from edgeprefix.runtime.generation.options import GenerationOptions
from edgeprefix.runtime.generation.sampling import BARRED, Candidates, Logits

Edit = Callable[[Logits, Sequence[int]], None]
"""Changes logits [V] in place, by the tokens generated so far."""
Filter = Callable[[Candidates], Candidates]
"""Leaves fewer tokens to draw from."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What a sampler must know of the base and of the options' words, in token ids."""

    size: int
    end_ids: tuple[int, ...] = ()
    unnamed: frozenset[int] = frozenset()
    """Ids that stand for no text: padding of the embedding. They are never chosen."""
    banned: tuple[tuple[int, ...], ...] = ()
    """Sequences that must not appear: the usual spellings of banned texts."""
    banned_texts: BannedTexts | None = None
    """The same texts in any spelling."""
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
        self._vocabulary, self._least = vocabulary, options.min_new_tokens
        self._random = np.random.default_rng(
            None if options.seed is None else [options.seed, seed_offset]
        )
        self._edits = list(_edits(options, vocabulary, list(prompt)))
        self._unnamed = np.fromiter(vocabulary.unnamed, np.int64, len(vocabulary.unnamed))
        self._filters = list(_filters(options)) if options.sampled else None
        self._plain = not (
            self._filters
            or self._edits
            or self._least
            or vocabulary.forced
            or vocabulary.beginning
            or vocabulary.banned_texts
        )

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
        if self._plain and best not in self._vocabulary.unnamed:
            return best
        forced = self.forced(tokens, left)
        if forced is None:
            return self._choose(self.edit(logits, tokens), tokens)
        if self.bars(tokens, forced):
            raise RequestError("a forced text would complete a banned one; ban or force less")
        return forced

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
        logits = logits.astype(np.float32)  # always a copy
        for edit in self._edits:
            edit(logits, tokens)
        if len(tokens) < self._least or self._missing(tokens):
            logits[list(self._vocabulary.end_ids)] = BARRED
        logits[self._unnamed] = BARRED
        return logits

    def bars(self, tokens: Sequence[int], token: int) -> bool:
        """Whether `token` behind `tokens` would complete a banned text, whatever its spelling.

        That is asked of a token that was chosen, since asking it of all would mean to decode each.
        """
        banned = self._vocabulary.banned_texts
        return banned is not None and banned.completed_by(tokens, token)

    def _choose(self, logits: Logits, tokens: Sequence[int]) -> int:
        while self.bars(tokens, token := self._pick(logits)):
            logits[token] = BARRED
        return token

    def _pick(self, logits: Logits) -> int:
        best = int(logits.argmax())
        if logits[best] == BARRED:
            raise RequestError(
                "every token is barred; loosen logit_bias, banned_words or no_repeat_ngram"
            )
        if self._filters is None:
            return best
        left = sampling.everything(logits)
        for narrow in self._filters:
            left = narrow(left)
        return sampling.draw(left, self._random.random())

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


def _edits(o: GenerationOptions, words: Vocabulary, prompt: list[int]) -> Iterator[Edit]:
    """What the options change of the logits, in order; nothing for those that are off."""
    if o.logit_bias:
        ids = _checked_ids(o.logit_bias, words.size)
        yield partial(_add, ids=ids, bias=np.asarray(list(o.logit_bias.values()), np.float32))
    if o.repetition_penalty != 1:
        known = np.unique(np.asarray(prompt, np.int64))
        yield lambda logits, tokens: sampling.penalize_repetition(
            logits, np.union1d(known, np.asarray(tokens, np.int64)), o.repetition_penalty
        )
    if o.presence_penalty or o.frequency_penalty:
        yield partial(
            sampling.penalize_presence_and_frequency,
            presence=o.presence_penalty,
            frequency=o.frequency_penalty,
        )
    if o.no_repeat_ngram:
        yield partial(
            _bar,
            which=lambda tokens: sampling.repeated_ngram_tokens(
                [*prompt, *tokens], o.no_repeat_ngram
            ),
        )
    if words.banned:
        yield partial(
            _bar, which=lambda tokens: sampling.banned_sequence_tokens(tokens, words.banned)
        )


def _filters(o: GenerationOptions) -> Iterator[Filter]:
    """What the options leave of the candidates, in transformers' order."""
    if o.top_k:
        yield partial(sampling.keep_top_k, k=o.top_k)
    yield partial(sampling.at_temperature, temperature=o.effective_temperature)
    if o.top_p < 1:
        yield partial(sampling.keep_top_p, mass=o.top_p)
    if o.min_p > 0:
        yield partial(sampling.keep_min_p, fraction=o.min_p)
    if o.typical_p < 1:
        yield partial(sampling.keep_typical, mass=o.typical_p)


def _add(logits: Logits, tokens: Sequence[int], ids: npt.NDArray[np.int64], bias: Logits) -> None:
    logits[ids] += bias


def _bar(
    logits: Logits, tokens: Sequence[int], which: Callable[[Sequence[int]], list[int]]
) -> None:
    logits[which(tokens)] = BARRED


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
