"""The line before the engine: fair between tasks, first come first served within a task."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from itertools import zip_longest

from edgeprefix.runtime.work.work import Work

PATIENCE = 16  # narrower requests that may start before one that waits for several slots


class WaitingLine:
    """Round robin over tasks, so that a thousand requests of one do not keep another's single
    request waiting.

    Not thread-safe: its owner locks.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[str | None, deque[Work]] = OrderedDict()
        self._count = 0
        self._overtakings = 0  # since one that had been passed by was served

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Work]:
        """In the order of serving: the first of each task, then the second of each, and so on."""
        for row in zip_longest(*self._lines.values()):
            yield from (work for work in row if work is not None)

    def put(self, work: Work) -> None:
        """Appends to its task's line."""
        self._lines.setdefault(_task(work), deque()).append(work)
        self._count += 1

    def take(self, free: int) -> Work | None:
        """Takes out the next one to be served with so many free slots; its task goes to the end of
        the round.

        Who needs more slots (beam search) is passed by, but only by `PATIENCE` others: then all
        wait until it fits.
        """
        passed = False
        for work in self:
            if work.lanes <= free:
                self._overtakings = self._overtakings + 1 if passed else 0
                self.remove(work)
                if _task(work) in self._lines:
                    self._lines.move_to_end(_task(work))
                return work
            passed = True
            if free == 0 or self._overtakings >= PATIENCE:
                return None
        return None

    def remove(self, work: Work) -> None:
        """Takes out one that gave up."""
        line = self._lines[_task(work)]
        line.remove(work)
        self._count -= 1
        if not line:
            del self._lines[_task(work)]


def _task(work: Work) -> str | None:
    return None if work.prefix is None else work.prefix.name
