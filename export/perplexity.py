"""Perplexity of a text: what a model's loss on the text's own tokens comes to, for torch's models
and for bundles alike.

A text is read some tokens at a time, so that no more than a piece of its logits is held: those of a
vocabulary of 262,144 take a megabyte a token. S tokens of a text, V vocabulary, n tokens of a
piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache

from edgeprefix.runtime.decoding.decoder import SlotDecoder

Array = npt.NDArray[np.floating[Any]]
Ids = npt.NDArray[np.int64]
Reading = Callable[[Ids], Iterator[Array]]
"""Gives the logits of a text's tokens in order, piece by piece [n, V]."""

_PIECE_BYTES = 64 << 20  # of logits


def perplexity(read: Reading, texts: Sequence[Ids]) -> float:
    """exp of the mean loss over all tokens of the texts but their first ones.

    >>> perplexity(torch_reading(model, vocabulary=262144), [ids])  # doctest: +SKIP
    33.35
    """
    losses = [loss for text in texts for loss in text_losses(read, text)]
    return float(np.exp(np.mean(losses)))


def text_losses(read: Reading, text: Ids) -> Array:
    """−log p of each token behind the first, in nats [S - 1]."""
    found: list[float] = []
    for logits in read(text):
        found += token_losses(logits, text[len(found) + 1 :][: len(logits)]).tolist()
    return np.array(found)


def token_losses(logits: Array, following: Ids) -> Array:
    """−log p [m] of the tokens that follow the first m ≤ n of logits [n, V]."""
    wide = logits[: len(following)].astype(np.float64)
    largest = wide.max(axis=1, initial=-np.inf)
    total = np.log(np.exp(wide - largest[:, None]).sum(axis=1)) + largest
    result: Array = total - wide[np.arange(len(following)), following]
    return result


def torch_reading(model: Any, vocabulary: int) -> Reading:
    """Reads with a transformers model, over a cache that keeps all positions."""

    def read(text: Ids) -> Iterator[Array]:
        cache = DynamicCache()  # without the config: masks see to windows
        tokens = torch.from_numpy(text)[None]
        for piece in torch.split(tokens, piece_size(vocabulary), dim=1):
            with torch.no_grad():
                out = model(input_ids=piece, past_key_values=cache, use_cache=True)
            yield out.logits[0].float().numpy()

    return read


def graph_reading(decoder: SlotDecoder, vocabulary: int) -> Reading:
    """Reads with a bundle's graph, in slot 0 of a decoder whose capacity no text exceeds."""

    def read(text: Ids) -> Iterator[Array]:
        start = 0
        for piece in np.split(text, range(size := piece_size(vocabulary), len(text), size)):
            yield decoder.feed(0, piece, start=start)
            start += len(piece)

    return read


def piece_size(vocabulary: int) -> int:
    """Tokens whose logits are held at once."""
    return max(16, _PIECE_BYTES // (4 * vocabulary))
