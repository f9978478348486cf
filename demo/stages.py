"""Named stages of the pipeline: each is timed, and tells whoever watches how far it is."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

Advance = Callable[[float, str], None]
"""Told how much of a stage is done, from 0 to 1, and a few words about it."""

Watch = Callable[[str], AbstractContextManager[Advance]]
"""Opens the display of a named stage."""


@contextlib.contextmanager
def unwatched(name: str) -> Iterator[Advance]:
    """A display that shows nothing."""
    yield lambda done, words: None


class Stages:
    """Runs stages under a display and keeps their times."""

    def __init__(self, watch: Watch = unwatched) -> None:
        self._watch = watch
        self._began = time.perf_counter()
        self.seconds: dict[str, float] = {}
        """By name, in the order in which the stages ended."""

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Advance]:
        """One stage; its time is kept when it ends without an error."""
        began = time.perf_counter()
        with self._watch(name) as advance:
            yield advance
        self.seconds[name] = time.perf_counter() - began

    @property
    def total(self) -> float:
        """Seconds since the first stage could have begun."""
        return time.perf_counter() - self._began
