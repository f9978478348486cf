"""The parent's side: processes that measure, and nothing else of ours in them.

They get a session of their own, so that Ctrl-C reaches only the parent, which then keeps what was
measured and ends them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, cast

from edgeprefix.bench import cold_start
from edgeprefix.bench.cells import Cell, Setup
from edgeprefix.bench.memory_bandwidth import SINGLE_BLAS_THREAD
from edgeprefix.bench.stopwatch import Samples
from edgeprefix.runtime import errors
from edgeprefix.runtime.errors import EdgePrefixError

Answer = dict[str, Any]


class Child:
    """A Python process that speaks JSON lines. Use it as a context manager: it never outlives the
    block.
    """

    def __init__(
        self, arguments: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> None:
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-P", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )

    def ask(self, request: Mapping[str, Any] | None = None) -> Answer:
        """Sends a request, if any, and waits for a line. Raises EdgePrefixError with what the
        process said when it fails.
        """
        assert self._process.stdin is not None  # both are pipes
        assert self._process.stdout is not None
        if request is not None:
            try:
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
            except BrokenPipeError:
                raise self._failure() from None
        line = self._process.stdout.readline()
        if not line:
            raise self._failure()
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise _error(answer)
        return answer

    def finish(self) -> Answer:
        """Ends the input and waits for the last line."""
        assert self._process.stdin is not None  # it is a pipe
        self._process.stdin.close()
        answer = self.ask()
        self._process.wait()
        return answer

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None and not pipe.closed:
                pipe.close()

    def _failure(self) -> EdgePrefixError:
        code = self._process.wait()
        self._errors.seek(0)
        words = self._errors.read().strip().splitlines()
        return EdgePrefixError(
            f"the measuring process ended (exit code {code}): "
            f"{words[-1] if words else 'it said nothing'}"
        )


class Worker:
    """An open bundle in a process of its own; `measure` takes one round of a cell."""

    def __init__(self, setup: Setup) -> None:
        self._child = Child(["-m", "edgeprefix.bench.worker"])
        self._setup = setup
        self.facts: Answer = {}

    def open(self) -> Answer:
        """Loads the bundle. Returns load time, cache bytes and rough costs; raises what loading
        raises.
        """
        self.facts = self._child.ask({"open": self._setup.to_json()})
        return self.facts

    def measure(self, cell: Cell) -> Samples:
        """One round's samples."""
        return cast(Samples, self._child.ask({"measure": cell.to_json()})["samples"])

    def finish(self) -> Answer:
        """Ends the process; returns its peak memory."""
        return self._child.finish()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.__exit__(kind, error, trace)


def start_cold(setup: Setup, prompt_tokens: int) -> Answer:
    """One cold start in a fresh process."""
    job = {"setup": setup.to_json(), "prompt_tokens": prompt_tokens, "spawned": time.time()}
    with Child(["-c", cold_start.PROGRAM, json.dumps(job)]) as child:
        return child.finish()


def measure_bandwidth(threads: int, weight_bytes: int) -> Answer:
    """Samples of bytes/s, in a process whose BLAS has one thread."""
    job = json.dumps({"threads": threads, "bytes": weight_bytes})
    with Child(
        ["-m", "edgeprefix.bench.memory_bandwidth", job], environment=SINGLE_BLAS_THREAD
    ) as child:
        return child.finish()


def _error(answer: Answer) -> EdgePrefixError:
    """The child's refusal, as the class that it was."""
    kind = getattr(errors, answer.get("kind", ""), EdgePrefixError)
    return cast(EdgePrefixError, kind(answer["error"]))
