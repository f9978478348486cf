"""Pure functions between logits and a token, in numpy.

Penalties and bans change a copy of the logits [V] in place, barred tokens becoming -inf. Filters
narrow `Candidates`, the few tokens that are left, so that after top-k nothing touches the whole
vocabulary again. Order and arithmetic are those of transformers' logits processors
(https://huggingface.co/docs/transformers/internal/generation_utils); each is tested against its
counterpart there.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]  # [V]
Ids = npt.NDArray[np.int64]

BARRED = np.float32(-np.inf)
# Tokens; nearly always top-p needs fewer, and finding them is much cheaper than sorting a
# vocabulary
_NUCLEUS = 1024
_ROUNDING = 1e-5
_SMALLEST, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


class Candidates(NamedTuple):
    """Tokens that may still be chosen, in ascending order of id, and their logits."""

    ids: Ids
    logits: Logits


def penalize_repetition(logits: Logits, seen: Ids, penalty: float) -> None:
    """Divides positive and multiplies negative logits of tokens `seen`, each once."""
    scores = logits[seen]
    logits[seen] = np.where(scores < 0, scores * np.float32(penalty), scores / np.float32(penalty))


def penalize_presence_and_frequency(
    logits: Logits, tokens: Sequence[int], presence: float, frequency: float
) -> None:
    """OpenAI's formula: minus `presence` once, minus `frequency` for each occurrence."""
    if tokens:
        ids, counts = np.unique(np.asarray(tokens, np.int64), return_counts=True)
        logits[ids] -= np.float32(presence) + np.float32(frequency) * counts.astype(np.float32)


def repeated_ngram_tokens(tokens: Sequence[int], size: int) -> list[int]:
    """Tokens that would complete an n-gram of `size` which `tokens` already has."""
    if len(tokens) + 1 < size:
        return []
    text = np.asarray(tokens, np.int64)
    last = len(text) - size + 1
    same = np.ones(last, bool)  # same[i]: the n-gram at i begins as the newest one does
    for place in range(size - 1):
        same &= text[place : place + last] == text[last + place]
    found: list[int] = text[size - 1 :][same].tolist()
    return found


def banned_sequence_tokens(tokens: Sequence[int], sequences: Sequence[Sequence[int]]) -> list[int]:
    """Tokens that would complete one of the banned `sequences`."""
    return [
        sequence[-1]
        for sequence in sequences
        if len(sequence) == 1
        or (
            len(tokens) >= len(sequence) - 1
            and list(tokens[len(tokens) - len(sequence) + 1 :]) == list(sequence[:-1])
        )
    ]


def everything(logits: Logits) -> Candidates:
    """All tokens that are not barred."""
    if logits.min() > BARRED:
        return Candidates(_all_ids(len(logits)), logits)
    ids = np.flatnonzero(logits > BARRED)
    return Candidates(ids, logits[ids])


def keep_top_k(candidates: Candidates, k: int) -> Candidates:
    """The k likeliest tokens; ties with the k-th stay, as in transformers."""
    logits = candidates.logits
    if k >= len(logits):
        return candidates
    smallest = np.partition(logits, len(logits) - k)[len(logits) - k]
    return _subset(candidates, np.flatnonzero(logits >= smallest))


def at_temperature(candidates: Candidates, temperature: float) -> Candidates:
    """Logits over the temperature, less the likeliest one's; what is infinitely less likely is
    left out.

    The likeliest is taken off first, so that no temperature makes a logit infinite.
    """
    scale = np.float32(np.clip(temperature, _SMALLEST, _LARGEST))
    with np.errstate(over="ignore"):
        scaled = (candidates.logits - candidates.logits.max()) / scale
    if scaled.min() > BARRED:
        return Candidates(candidates.ids, scaled)
    return _subset(Candidates(candidates.ids, scaled), np.flatnonzero(scaled > BARRED))


def keep_top_p(candidates: Candidates, mass: float) -> Candidates:
    """The smallest set of likeliest tokens whose probabilities sum up to `mass`."""
    probabilities = softmax(candidates.logits)
    likeliest = _largest(probabilities, _NUCLEUS)
    if len(likeliest) < len(probabilities) and probabilities[likeliest].sum() < mass + _ROUNDING:
        likeliest = np.arange(len(probabilities))  # a flat distribution: all have to be sorted
    order = likeliest[np.argsort(-probabilities[likeliest], kind="stable")]
    before = np.cumsum(probabilities[order], dtype=np.float64) - probabilities[order]
    return _subset(candidates, order[before < mass])


def keep_min_p(candidates: Candidates, fraction: float) -> Candidates:
    """Tokens at least `fraction` times as likely as the likeliest."""
    probabilities = softmax(candidates.logits)
    return _subset(
        candidates, np.flatnonzero(probabilities >= np.float32(fraction) * probabilities.max())
    )


def keep_typical(candidates: Candidates, mass: float) -> Candidates:
    """Locally typical tokens (Meister et al. 2022): nearest the expected surprise, up to `mass`."""
    surprise = -log_softmax(candidates.logits)
    probabilities = np.exp(-surprise)
    distance = np.abs(surprise - (probabilities * surprise).sum())
    order = np.argsort(distance, kind="stable")
    last = int((np.cumsum(probabilities[order]) < mass).sum())
    farthest = distance[order[min(last, len(order) - 1)]]
    return _subset(candidates, np.flatnonzero(distance <= farthest))


def draw(candidates: Candidates, uniform: float) -> int:
    """The token at `uniform` (in [0, 1)) of the cumulated probability, in order of id."""
    cumulated = np.cumsum(softmax(candidates.logits), dtype=np.float64)
    place = int(np.searchsorted(cumulated, uniform * cumulated[-1], side="right"))
    return int(candidates.ids[min(place, len(cumulated) - 1)])


def softmax(logits: Logits) -> Logits:
    """Probabilities [V] of logits [V]."""
    exponentials = np.exp(logits - logits.max())
    result: Logits = exponentials / exponentials.sum()
    return result


def log_softmax(logits: Logits) -> Logits:
    """Log-probabilities over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Logits = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def top_entries(values: Logits, count: int) -> list[tuple[int, float]]:
    """Index and value of the `count` largest, largest first; equal values by index."""
    if count <= 0:
        return []
    count = min(count, len(values))
    smallest = np.partition(values, len(values) - count)[len(values) - count]
    ids = np.flatnonzero(values >= smallest)
    order = ids[np.argsort(-values[ids], kind="stable")][:count]
    return [(int(index), float(values[index])) for index in order]


def _largest(values: Logits, count: int) -> Ids:
    """Places of the `count` largest values, in ascending order of place."""
    if count >= len(values):
        return np.arange(len(values))
    return np.sort(np.argpartition(values, len(values) - count)[len(values) - count :])


@functools.lru_cache(maxsize=8)
def _all_ids(size: int) -> Ids:
    ids = np.arange(size)
    ids.flags.writeable = False  # it is shared
    return ids


def _subset(candidates: Candidates, places: Ids) -> Candidates:
    places = np.sort(places)
    return Candidates(candidates.ids[places], candidates.logits[places])
