"""How a graph that another exporter made takes its past: what the runtime must know to run it.
Specified in docs/bundle.md.

Such graphs share names, `past_key_values.{i}.key|value` in and `present.{i}.key|value` out, and
differ in what they ask for besides and in what they bear. `edgeprefix export adopt` finds it out by
trying, and writes it into the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeprefix.runtime.contracts.fields import Fields

GROWN, IN_PLACE = "grown", "in-place"
CACHES = {
    GROWN: "the past goes in, and comes out longer by the new tokens",
    IN_PLACE: "past and present are one memory of fixed capacity, which the graph writes to",
}
"""What `cache` may be, and what it means."""

MASK, POSITIONS, BRANCH, KEPT_LOGITS = (
    "attention_mask",
    "position_ids",
    "use_cache_branch",
    "num_logits_to_keep",
)
INPUTS = {
    MASK: "1 for every position of past and new tokens that is used [B, past + S]",
    POSITIONS: "positions of the new tokens [B, S]",
    BRANCH: "whether there is a past (merged graphs) [1]",
    KEPT_LOGITS: "how many of the last tokens need logits []",
}
"""What such a graph may ask for besides `input_ids` and its past."""


@dataclass(frozen=True, kw_only=True)
class PastGraph:
    """A graph of another exporter."""

    exporter: str
    """Who made it, as far as it shows; for people."""
    cache: str = GROWN
    """One of CACHES."""
    inputs: tuple[str, ...] = ()
    """Those of INPUTS that it has."""
    mixed: bool = False
    """Whether rows of different lengths may run together; else they run in groups of one length."""
    many: bool = True
    """Whether it takes several new tokens behind a past; else they are fed one by one."""

    def __post_init__(self) -> None:
        if self.cache not in CACHES:
            raise ValueError(
                f"graph cache {self.cache!r} is unknown; known are {', '.join(CACHES)}"
            )
        if unknown := [name for name in self.inputs if name not in INPUTS]:
            raise ValueError(
                f"graph input {unknown[0]!r} is unknown; known are {', '.join(INPUTS)}"
            )

    def to_text(self) -> str:
        """One line for people."""
        rows = "rows of any lengths together" if self.mixed else "rows of one length together"
        feeding = "" if self.many else ", prompts token by token"
        return f"{self.exporter} graph, {self.cache} cache, {rows}{feeding}"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PastGraph:
        """Reads the manifest's form. Raises ValueError for anything else."""
        fields = Fields(data, "graph ")
        return cls(
            exporter=fields.text("exporter"),
            cache=fields.text("cache"),
            inputs=tuple(map(str, fields.values("inputs"))),
            mixed=fields.truth("mixed"),
            many=fields.truth("many"),
        )
