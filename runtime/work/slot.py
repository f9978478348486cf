"""One slot of the cache, as the work that is fed in it sees it."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
import numpy.typing as npt

from edgeprefix.runtime.decoding.cache import Array
from edgeprefix.runtime.decoding.decoder import SlotDecoder

Logits = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


class Slot:
    """One slot of the cache for a probe or a prompt: feeds tokens in chunks behind the prefix."""

    def __init__(
        self, decoder: SlotDecoder, index: int, chunk: int, prefix_length: int, *, free: int = 1
    ) -> None:
        self._decoder, self._chunk = decoder, chunk
        self.index = index
        self.free, self.most = free, decoder.slots
        """Lanes that its work may start with now (this slot in), and in an idle engine."""
        self.length = prefix_length
        """Positions in use."""

    def chunks(self, tokens: Ids) -> list[Ids]:
        """The tokens in pieces that one run of the graph may have."""
        return [tokens[start : start + self._chunk] for start in range(0, len(tokens), self._chunk)]

    def feed(self, tokens: Ids, *, wanted: Sequence[int] | None = None) -> Logits:
        """Runs the graph over a chunk: logits [N, V] of `wanted` tokens (indices; None: all)."""
        logits = self._decoder.feed(self.index, tokens, start=self.length, wanted=wanted)
        self.length += len(tokens)
        return logits

    def prefill(self, tokens: Ids) -> Generator[int, None, Logits]:
        """Feeds a prompt by chunks, yielding their lengths; logits [V] after the last token."""
        *chunks, last = self.chunks(tokens)  # prompts are not empty
        for chunk in chunks:
            yield len(chunk)
            self.feed(chunk, wanted=[])
        yield len(last)
        row: Logits = self.feed(last, wanted=[len(last) - 1])[0]
        return row

    def rewind(self, length: int) -> None:
        """Forgets everything behind the first `length` positions."""
        self.length = length

    def read(self, length: int) -> list[Array]:
        """A packed copy of the first `length` positions."""
        return self._decoder.cache.read(self.index, length)
