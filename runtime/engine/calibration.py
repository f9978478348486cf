"""What options get after a prompt that says nothing, once for each task and set of options."""

from __future__ import annotations

from collections.abc import Hashable
from weakref import WeakKeyDictionary

from edgeprefix.runtime.contracts.prompt import template_fields
from edgeprefix.runtime.scoring.option_probe import Sums
from edgeprefix.runtime.work.resident import ResidentPrefix

_CONTENT_FREE = "N/A"  # Zhao et al. 2021, "Calibrate Before Use"
_KEPT = 64  # sets of options whose sums are kept for each task


class Calibrations:
    """Known sums, by task and by what was asked."""

    def __init__(self) -> None:
        self._bare: dict[Hashable, Sums] = {}
        # By prefix object: a replaced task is another object, and its numbers go away with it.
        self._tasks: WeakKeyDictionary[ResidentPrefix, dict[Hashable, Sums]] = WeakKeyDictionary()

    def get(self, prefix: ResidentPrefix | None, key: Hashable) -> Sums | None:
        """The sums, if they are known."""
        return self._of(prefix).get(key)

    def put(self, prefix: ResidentPrefix | None, key: Hashable, sums: Sums) -> None:
        """Keeps them; options that never come back do not pile up."""
        known = self._of(prefix)
        while len(known) >= _KEPT:
            known.pop(next(iter(known)), None)
        known[key] = sums

    def _of(self, prefix: ResidentPrefix | None) -> dict[Hashable, Sums]:
        return self._bare if prefix is None else self._tasks.setdefault(prefix, {})


def content_free(template: str) -> dict[str, str]:
    """Fields that say nothing."""
    return dict.fromkeys(template_fields(template), _CONTENT_FREE)
