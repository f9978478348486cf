"""The other end of peers/protocol.py: a peer's process, asked line by line and given up when it is
silent.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

PEERS = Path(__file__).parent / "peers"


class WorkerError(Exception):
    """A peer could not do what it was asked; the message becomes the cell's reason."""


class Worker:
    """One process of a peer. Its own log goes to `log`."""

    def __init__(
        self, python: Path, peer: str, *, threads: int, log: Path, silence_s: float = 300
    ) -> None:
        self._silence_s = silence_s
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [python, PEERS / f"{peer}_worker.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_environment(threads),
            bufsize=0,
        )
        assert self._process.stdout is not None
        self._answers = selectors.DefaultSelector()
        self._answers.register(self._process.stdout, selectors.EVENT_READ)
        self._rest = b""

    def ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Sends a request and waits. Raises WorkerError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"op": operation, **arguments}).encode() + b"\n")
        except BrokenPipeError:
            raise WorkerError(f"the process ended with {self._process.wait()}") from None
        answer: dict[str, Any] = json.loads(self._line())
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._rest:
            if not self._answers.select(self._silence_s):
                self._process.kill()
                raise WorkerError(f"no answer within {self._silence_s:.0f} s")
            piece = os.read(self._process.stdout.fileno(), 1 << 20)
            if not piece:
                raise WorkerError(f"the process ended with {self._process.wait()}")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def _environment(threads: int) -> dict[str, str]:
    """Every peer gets as many threads as every other, in whatever way it asks for them; nobody asks
    the network.
    """
    counts = {
        name: str(threads)
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    }
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "ORT_DISABLE_TELEMETRY": "1",
    }
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    return {**kept, **counts, **quiet}
