"""The line before the engine: fair between tasks, first come first served within a task."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from edgeprefix.runtime.work.work import Work


class WaitingLine:
    """Round robin over tasks, so that a thousand requests of one do not keep another's single
    request waiting.

    Not thread-safe: its owner locks.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[str | None, deque[Work]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Work]:
        for line in self._lines.values():
            yield from line

    def put(self, work: Work) -> None:
        """Appends to its task's line."""
        name = None if work.prefix is None else work.prefix.name
        self._lines.setdefault(name, deque()).append(work)
        self._count += 1

    def head(self) -> Work | None:
        """The next one to be served, None when nobody waits."""
        return next(iter(self._lines.values()))[0] if self._lines else None

    def pop(self) -> Work:
        """Takes the head out; its task goes to the end of the round."""
        name, line = next(iter(self._lines.items()))
        work = line.popleft()
        self._count -= 1
        if line:
            self._lines.move_to_end(name)
        else:
            del self._lines[name]
        return work

    def remove(self, work: Work) -> None:
        """Takes out one that gave up."""
        name = None if work.prefix is None else work.prefix.name
        self._lines[name].remove(work)
        self._count -= 1
        if not self._lines[name]:
            del self._lines[name]
