"""What a bundle costs on text: perplexity beside torch's, divergence, first choices.

The graph's correctness is proved elsewhere, without rounding. Here is what the rounding does to
what the base is for, and how much of that is allowed: one factor on torch's perplexity. On text
that the base drew itself the mean divergence is the logarithm of that factor, in expectation, and
much steadier: so both are held to it. torch reads first and is gone when the graph is opened; what
is kept of it is a number a token, and whole distributions of as many tokens as fit some memory.
V vocabulary, T tokens of all texts that follow another.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprefix.export.comparison import CaseReport, Comparison
from edgeprefix.export.perplexity import Array, Ids, Reading, token_losses
from edgeprefix.runtime.contracts.manifest import AS_STORED, Manifest

_KEPT_BYTES = 256 << 20  # of torch's logits
_SURE = 2.0  # standard errors by which a ratio must be over its bound to break it

ALLOWED_LOSS: Mapping[str, float] = {
    "fp32": 1.0001,
    "fp16": 1.002,
    "int8": 1.02,
    "int4": 1.1,
    AS_STORED: 1.02,  # the base's own numbers: activations are rounded
}
"""Factor on torch's perplexity that a precision may cost."""

ADVICE: Mapping[str, str] = {
    "fp16": "choose --precision fp32",
    AS_STORED: "choose --precision fp32",
    "int8": "choose --precision fp32, or fp16 for a GPU",
    "int4": "choose --precision int8",
}
"""Options of `export decoder` that cost less."""
_FOREIGN_ADVICE = "take a graph of more bits (--file), or let edgeprefix export the base"


def allowed_loss(manifest: Manifest) -> float:
    """What a bundle may cost when nobody says; an int8 cache costs what int8 weights may."""
    return max(ALLOWED_LOSS[manifest.precision], ALLOWED_LOSS.get(manifest.cache_dtype, 1.0))


@dataclass(frozen=True, eq=False, kw_only=True)
class TextExpected:
    """Texts, and what torch makes of them."""

    texts: tuple[Ids, ...]
    sampled: bool
    """Whether the base drew them itself."""
    losses: Array
    """[T], nats."""
    kept: npt.NDArray[np.int64]
    """Which of the T are compared as distributions, in order."""
    logits: tuple[Array, ...]
    """Torch's at these, each [V]."""


@dataclass(frozen=True, kw_only=True)
class TextReport:
    """A bundle's quality on text."""

    sampled: bool
    """Whether the base drew the texts itself."""
    texts: int
    tokens: int
    """T."""
    perplexity_torch: float
    perplexity: float
    """The bundle's."""
    error: float
    """Standard error of `ratio`, relative."""
    compared: CaseReport
    """Distributions of as many of the tokens as are kept."""
    precision: str
    allowed: float
    """Largest `ratio`; the largest mean divergence is its logarithm."""
    ours: bool = True
    """Whether edgeprefix wrote the graph."""

    @property
    def ratio(self) -> float:
        """The bundle's perplexity over torch's."""
        return self.perplexity / self.perplexity_torch

    @property
    def failures(self) -> tuple[str, ...]:
        """The broken bounds with their numbers, and what would hold; empty when they hold."""
        found = []
        if not self._surely() <= self.allowed:
            found.append(
                f"perplexity {self.perplexity:.4g} is {self.ratio:.4g} times torch's "
                f"{self.perplexity_torch:.4g}, at most {self.allowed:g} times may be"
            )
        if not self.compared.kl <= math.log(self.allowed):
            found.append(
                f"KL divergence {self.compared.kl:.3g} is over {math.log(self.allowed):.3g} nats, "
                f"the logarithm of {self.allowed:g}"
            )
        if not found:
            return ()
        return (f"on {self._texts()}: {' and '.join(found)}; {self._advice()}",)

    def _surely(self) -> float:
        """The ratio less what chance may have added."""
        return self.ratio * (1 - _SURE * self.error)

    def _advice(self) -> str:
        passing = max(self._surely(), math.exp(min(self.compared.kl, 100.0)))
        known = ADVICE.get(self.precision) if self.ours else _FOREIGN_ADVICE
        if known is None or not math.isfinite(passing):
            return "the graph itself is wrong"
        return f"{known}, or take the loss with --allow-loss {math.ceil(passing * 100) / 100:g}"

    def _texts(self) -> str:
        source = "drawn from the base itself" if self.sampled else "of the given text"
        return f"{self.tokens:,} tokens {source}"

    def to_json(self) -> dict[str, Any]:
        """The form kept in the manifest."""
        return dataclasses.asdict(self) | {"ratio": self.ratio}

    def to_text(self) -> str:
        """One line for people."""
        return (
            f"{self._texts()}: perplexity {self.perplexity:.4g}, torch {self.perplexity_torch:.4g}"
            f" (ratio {self.ratio:.4f} ± {self.error:.4f}, at most {self.allowed:g}); KL "
            f"{self.compared.kl:.2e}, top-1 {self.compared.top1:.1%} of "
            f"{self.compared.positions:,} tokens"
        )


def read_expected(
    read: Reading, texts: Sequence[Ids], *, vocabulary: int, sampled: bool
) -> TextExpected:
    """Lets torch read the texts."""
    total = sum(len(text) - 1 for text in texts)
    kept = _kept(total, vocabulary)
    losses: list[float] = []
    logits: list[Array] = []
    for piece, following in _pieces(read, texts):
        chosen = _inside(kept, len(losses), len(following))
        logits += [piece[index].copy() for index in chosen]
        losses += token_losses(piece, following).tolist()
    return TextExpected(
        texts=tuple(texts),
        sampled=sampled,
        losses=np.array(losses),
        kept=kept,
        logits=tuple(logits),
    )


def judge(
    read: Reading, expected: TextExpected, *, precision: str, allowed: float, ours: bool = True
) -> TextReport:
    """Lets the graph read the same texts, and compares."""
    comparison = Comparison("text")
    found: list[float] = []
    for piece, following in _pieces(read, expected.texts):
        chosen = _inside(expected.kept, len(found), len(following))
        first = comparison.positions
        if len(chosen):
            wanted = np.stack(expected.logits[first : first + len(chosen)])
            comparison.add(piece[chosen], wanted)
        found += token_losses(piece, following).tolist()
    losses = np.array(found)
    change = losses - expected.losses
    return TextReport(
        sampled=expected.sampled,
        texts=len(expected.texts),
        tokens=len(losses),
        perplexity_torch=float(np.exp(expected.losses.mean())),
        perplexity=float(np.exp(losses.mean())),
        error=float(change.std() / np.sqrt(len(change))),
        compared=comparison.report(),
        precision=precision,
        allowed=allowed,
        ours=ours,
    )


def _pieces(read: Reading, texts: Sequence[Ids]) -> Iterator[tuple[Array, Ids]]:
    """Logits [n, V] and the tokens [m] that follow the first of them: m = n, but at a text's end
    n − 1.
    """
    for text in texts:
        done = 0
        for piece in read(text):
            following = text[done + 1 : done + 1 + len(piece)]
            done += len(piece)
            yield piece, following


def _kept(total: int, vocabulary: int) -> npt.NDArray[np.int64]:
    """Indices of tokens, evenly spread, whose distributions fit the memory."""
    count = max(1, min(total, _KEPT_BYTES // (4 * vocabulary)))
    result: npt.NDArray[np.int64] = np.arange(count) * total // count
    return result


def _inside(kept: npt.NDArray[np.int64], start: int, count: int) -> npt.NDArray[np.int64]:
    """Those of `kept` that lie in `start` … `start + count - 1`, counted from `start`."""
    result: npt.NDArray[np.int64] = kept[(kept >= start) & (kept < start + count)] - start
    return result
