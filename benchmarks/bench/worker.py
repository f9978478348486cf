"""The measuring process: opens a bundle, then does what its parent asks for, line by line, until
its input ends.

    python -m edgeprefix.bench.worker

Requests and answers are JSON lines: `{"open": SETUP}` → load time and a rough cost of a step;
`{"measure": CELL}` → one round's samples; at the end of the input the last line tells the peak
memory. A refusal is `{"error": …}`.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeprefix.bench.cells import Cell, Setup
from edgeprefix.bench.memory import peak_bytes
from edgeprefix.bench.stopwatch import Stopwatch, prompt_ids, scratch_folder
from edgeprefix.runtime.engine import Engine
from edgeprefix.runtime.engine.requests import Request
from edgeprefix.runtime.errors import EdgePrefixError

_PROBE_TOKENS, _PROBE_STEPS = 32, 6


def probe(engine: Engine) -> dict[str, float]:
    """Rough seconds of a prompt's token, of a step of one row, and of one of all rows, after a
    warming round.
    """
    positions = engine.max_length
    tokens = max(1, min(_PROBE_TOKENS, positions // 2))
    steps = max(2, min(_PROBE_STEPS, positions - tokens))
    prompt = prompt_ids(tokens, engine.manifest.vocabulary)
    request = Request(prompt, max_new_tokens=steps, ignore_end=True)
    found: dict[str, float] = {}
    for _ in range(2):  # the first warms
        alone = engine.generate_many([request])[0].timings
        together = engine.generate_many([request] * engine.max_batch)[-1].timings
        found = {
            "token_s": alone.prefill_ms / 1000 / tokens,
            "step_s": alone.decode_ms / 1000 / (steps - 1),
            "full_step_s": max(together.decode_ms, alone.decode_ms) / 1000 / (steps - 1),
        }
    return found


def serve(requests: Iterator[dict[str, Any]], tell: Any) -> None:
    """Answers requests until there are no more."""
    setup = Setup.from_json(next(requests)["open"])
    began = time.perf_counter()
    with (
        scratch_folder() as folder,
        Engine.load(
            setup.bundle, max_batch=setup.max_batch, max_length=setup.max_length,
            threads=setup.threads, providers=setup.providers or None,
        ) as engine,
    ):  # fmt: skip
        load_s = time.perf_counter() - began
        watch = Stopwatch(engine, setup, Path(folder))
        tell({"load_s": load_s, "cache_bytes": engine.cache_bytes} | probe(engine))
        for request in requests:
            cell = Cell.from_json(request["measure"])
            watch.prepare(cell)
            tell({"samples": watch.measure(cell)})
        tell({"peak_bytes": peak_bytes(), "torch_loaded": "torch" in sys.modules})


def main() -> None:
    """Speaks over standard input and output."""
    with contextlib.suppress(ValueError, OSError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means

    def tell(answer: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    try:
        serve((json.loads(line) for line in sys.stdin), tell)
    except EdgePrefixError as error:
        tell({"error": str(error), "kind": type(error).__name__})


if __name__ == "__main__":
    main()
