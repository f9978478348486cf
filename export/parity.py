"""How far the graph's logits are from torch's, and how far they may be.

fp32 must agree to rounding. Weight-only quantisation changes the numbers themselves: that the graph
is right is proved with nothing rounded (`exact`), and what the rounding costs is bounded on text
(text_quality.py). Only of graphs of which it is not known how they were rounded, and of an int8
cache, the divergence between the next-token distributions and the noise that was added to the
logits are bounded here. First choices are reported and not bounded: those of a base with random
weights hang on hairs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprefix.export.comparison import CaseReport
from edgeprefix.export.text_quality import TextReport
from edgeprefix.runtime.contracts.cache_scales import LARGEST_CUT
from edgeprefix.runtime.contracts.manifest import AS_STORED


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a precision may differ from fp32 torch. None sets no bound."""

    relative: float | None = None
    """Largest |Δ| over the largest |logit|."""
    kl: float | None = None
    """Mean Kullback-Leibler divergence in nats, torch's distribution first."""
    noise: float | None = None
    """Spread of Δ over the spread of torch's logits. Logits that have nothing to do with torch's
    come out at √2.
    """


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """The outcome of `verify`."""

    precision: str
    bounds: Bounds
    cases: tuple[CaseReport, ...]
    cache: str = "float32"
    """What keys and values are held in."""
    rounded: CaseReport | None = None
    """The long text against torch on the bundle's own rounded weights; None when they are not
    rounded, or how is not known.
    """
    exact: CaseReport | None = None
    """The bundle's graph with products and cache in fp32, against torch on the bundle's own
    weights, also behind a prefix as large as trained ones and beyond wide windows; None for fp16,
    and when it is not known how the weights are rounded.
    """
    faults: tuple[str, ...] = ()
    """What is wrong with the graph without a number: a window that differs, a layer left out."""
    cut: float | None = None
    """Share of a given prefix's numbers that an int8 cache cuts off (of the worst layer's)."""
    text: TextReport | None = None
    """What the bundle costs on text; always there in what `verify` gives."""

    def _worst(self, number: str) -> float:
        """Of all cases; not a number when it is none in one of them, which `max` may miss."""
        return float(np.max([getattr(case, number) for case in self.cases]))

    @property
    def max_abs(self) -> float:
        """Largest |Δ| of any logit."""
        return self._worst("max_abs")

    @property
    def relative(self) -> float:
        """Largest |Δ| over the largest |logit|, of the worst case."""
        return self._worst("relative")

    @property
    def kl(self) -> float:
        """Mean divergence over the positions of the worst case, in nats."""
        return self._worst("kl")

    @property
    def noise(self) -> float:
        """Spread of Δ over the spread of torch's logits, of the worst case."""
        return self._worst("noise")

    @property
    def top1(self) -> float:
        """Share of positions with the same first choice."""
        return float(
            np.average(
                [case.top1 for case in self.cases], weights=[case.positions for case in self.cases]
            )
        )

    @property
    def failures(self) -> tuple[str, ...]:
        """Broken bounds, each with its numbers; empty when the report passes."""
        found = []
        if not all(np.isfinite([case.max_abs, case.kl]).all() for case in self.cases):
            cause = ": numbers beyond 65504 overflow" if self.precision == "fp16" else ""
            found.append(f"logits hold NaN or infinity{cause}")
        if self.bounds.relative is not None and not self.relative <= self.bounds.relative:
            found.append(
                f"relative difference {self.relative:.2e} is over {self.bounds.relative:.0e}"
            )
        if self.bounds.kl is not None and not self.kl <= self.bounds.kl:
            found.append(f"KL divergence {self.kl:.3g} is over {self.bounds.kl:g} nats")
        if self.bounds.noise is not None and not self.noise <= self.bounds.noise:
            found.append(
                f"noise {self.noise:.3g} is over {self.bounds.noise:g} of the logits' spread"
            )
        quality = () if self.text is None else self.text.failures
        return (*found, *self._wrong(), *quality, *self._cut_off())

    def _wrong(self) -> Iterator[str]:
        """What the rounding of weights does not explain."""
        yield from self.faults
        if self.exact is not None and not self.exact.relative <= self.exact_bound:
            yield (
                f"relative difference {self.exact.relative:.2e} to torch on the same weights, with "
                f"products and cache in fp32, is over {self.exact_bound:.0e}: the graph itself is "
                "wrong"
            )
        elif self.rounded is not None:
            yield from self._lost_on_the_way(self.rounded)

    def _lost_on_the_way(self, rounded: CaseReport) -> Iterator[str]:
        """What rounding costs while the graph runs: it is right when nothing is rounded."""
        broken = [
            f"{name} {value:.3g} to torch on the same rounded weights is over {bound:g}"
            for name, value, bound in (
                ("KL divergence", rounded.kl, ROUNDED_BOUNDS.kl),
                ("noise", rounded.noise, ROUNDED_BOUNDS.noise),
            )
            if bound is not None and not value <= bound
        ]
        if broken:
            yield (
                f"{' and '.join(broken)}: the graph is right, but this base's activations do not "
                f"bear the rounding to 8 bits that goes with {self._what} (a few are far larger "
                "than the rest); choose --precision fp32 or fp16"
            )

    def _cut_off(self) -> Iterator[str]:
        if self.cut is not None and not self.cut <= LARGEST_CUT:
            yield (
                f"{self.cut:.1%} of the prefix's numbers in a layer lie beyond the int8 cache's "
                f"steps and are cut off, at most {LARGEST_CUT:.0%} may: export the bundle again "
                "with --calibrate PREFIX"
            )

    @property
    def exact_bound(self) -> float:
        """Largest |Δ| over the largest |logit| of `exact`."""
        return _EXACT_HALF if self.cache == "float16" else _EXACT

    @property
    def passed(self) -> bool:
        """Whether every bound holds."""
        return not self.failures

    def to_json(self) -> dict[str, Any]:
        """The form kept in the manifest."""
        numbers = {
            "max_abs": self.max_abs,
            "relative": self.relative,
            "kl": self.kl,
            "noise": self.noise,
            "top1": self.top1,
        }
        rounded = None
        if self.rounded is not None:
            rounded = dataclasses.asdict(self.rounded) | {
                "bounds": dataclasses.asdict(ROUNDED_BOUNDS)
            }
        return {
            "passed": self.passed,
            "precision": self.precision,
            "cache": self.cache,
            **numbers,
            "bounds": dataclasses.asdict(self.bounds),
            "cases": [dataclasses.asdict(case) for case in self.cases],
            "rounded": rounded,
            "exact": None if self.exact is None else dataclasses.asdict(self.exact),
            "cut": self.cut,
            "text": None if self.text is None else self.text.to_json(),
        }

    @property
    def _what(self) -> str:
        return f"{self.precision}, int8 cache" if self.cache == "int8" else self.precision

    def _limits(self) -> str:
        """The bounds in words."""
        known = (
            ("relative", self.bounds.relative),
            ("KL", self.bounds.kl),
            ("noise", self.bounds.noise),
            ("KL on rounded weights", ROUNDED_BOUNDS.kl if self.rounded else None),
            ("noise on rounded weights", ROUNDED_BOUNDS.noise if self.rounded else None),
            ("relative in fp32 on the same weights", self.exact_bound if self.exact else None),
        )
        return ", ".join(f"{name} up to {bound:g}" for name, bound in known if bound is not None)

    def to_text(self) -> str:
        """A table for people, one line a case, and the verdict."""
        head = (
            f"{'case':<10}{'positions':>10}{'max |Δ|':>12}{'relative':>12}{'KL':>12}"
            f"{'noise':>12}{'top-1':>9}"
            "  first diverging token"
        )
        lines = [
            f"{c.name:<10}{c.positions:>10}{c.max_abs:>12.2e}{c.relative:>12.2e}{c.kl:>12.2e}{c.noise:>12.2e}{c.top1:>9.1%}"
            f"  {'none' if c.first_divergence is None else c.first_divergence}"
            for c in (*self.cases, *(c for c in (self.rounded, self.exact) if c is not None))
        ]
        verdict = (
            f"{self._what}: equal to torch within bounds ({self._limits()})"
            if self.passed
            else f"{self._what}: FAILED: {'; '.join(self.failures)}"
        )
        text = [] if self.text is None else [self.text.to_text()]
        return "\n".join([head, *lines, *text, verdict])


ROUNDED_BOUNDS = Bounds(kl=0.02, noise=0.2)
"""Against torch on the same rounded weights: what is left is the rounding of activations to 8 bits,
and of an int8 cache.
"""

_EXACT, _EXACT_HALF = 3e-4, 5e-2
"""Where nothing is rounded on the way: three times fp32's, since prefixes as large as trained ones
are among the cases. Measured are 1e-6, in the worst architecture (Gemma 4) 1e-4.
"""

BOUNDS: Mapping[str, Bounds] = {
    "fp32": Bounds(relative=1e-4),
    "fp16": Bounds(relative=5e-2, kl=1e-3),
    "int8": Bounds(kl=0.05, noise=0.3),
    "int4": Bounds(kl=0.5, noise=1.0),
    AS_STORED: Bounds(kl=0.05, noise=0.3),  # the base's own numbers: activations are rounded
}


def bounds_of(precision: str, cache_dtype: str, *, rounded: bool) -> Bounds:
    """The bounds of a bundle's cases against fp32 torch. An int8 cache rounds keys and values: fp32
    weights then have those of int8.

    None where there is a comparison with the same `rounded` weights, which tells rounding from a
    wrong graph: what the rounding costs is for text to say.
    """
    if rounded:
        return Bounds()
    return BOUNDS["int8"] if cache_dtype == "int8" and precision == "fp32" else BOUNDS[precision]
