"""What every worker speaks: a line of JSON in, a line of JSON out, on standard input and output.

    {"op": "load", "model": PATH, "precision": "int4", "threads": 2, "batch": 1, "capacity": 256}
    → {"load_ms": …} {"op": "generate", "prompts": [[ids], …], "new": 48}   → {"first_ms": …,
    "step_ms": […], "tokens": [[ids], …]} {"op": "memory"}                                       →
    {"peak_bytes": …} {"op": "quit"}

`load` may be repeated with another batch and capacity. What fails answers {"error": …} and the
worker goes on. Only the standard library is imported here: the file is run by every peer's own
environment.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a peer is asked to load."""

    model: str
    precision: str
    threads: int
    batch: int
    capacity: int
    """Positions of each row: prompt and new tokens."""


@dataclass(frozen=True, kw_only=True)
class Generated:
    """One generation of all rows, in wall milliseconds."""

    first_ms: float
    """Until every row had its first token."""
    step_ms: list[float] = field(default_factory=list)
    """Each further token of all rows, while all rows were running."""
    tokens: list[list[int]] = field(default_factory=list)


class Peer(Protocol):
    """What a worker implements."""

    def load(self, job: Job) -> None:
        """Gets ready for `job.batch` rows of `job.capacity` positions."""
        ...

    def generate(self, prompts: list[list[int]], new: int) -> Generated:
        """Greedy, `new` tokens for each prompt (all of one length), not ending at the end-of-text
        token.
        """
        ...


class Stamps:
    """Wall times at which steps ended."""

    def __init__(self) -> None:
        self.times = [time.perf_counter()]

    def mark(self) -> None:
        """A step is over."""
        self.times.append(time.perf_counter())

    def generated(self, tokens: Sequence[Sequence[int]]) -> Generated:
        """First step and further steps as durations."""
        spans = [
            1000 * (after - before)
            for before, after in zip(self.times, self.times[1:], strict=False)
        ]
        return Generated(
            first_ms=spans[0],
            step_ms=spans[1:],
            tokens=[[int(token) for token in row] for row in tokens],
        )


def serve(peer: Peer) -> None:
    """Answers until standard input ends. Whatever libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "quit":
            break
        try:
            answer = _answer(peer, request)
        except Exception as error:  # whatever a peer raises is its result for this cell
            answer = {"error": f"{type(error).__name__}: {error}"[:400]}
        answers.write(json.dumps(answer) + "\n")
    answers.flush()
    os._exit(0)  # some libraries hang or crash while they are taken down


def _answer(peer: Peer, request: dict[str, Any]) -> dict[str, Any]:
    operation = request.pop("op")
    if operation == "memory":
        return {"peak_bytes": peak_bytes()}
    if operation == "load":
        gc.collect()
        started = time.perf_counter()
        peer.load(Job(**request))
        return {"load_ms": 1000 * (time.perf_counter() - started)}
    return asdict(getattr(peer, operation)(**request))


def peak_bytes() -> int:
    """The most resident memory that this process ever had."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no line VmHWM: the race needs Linux")
