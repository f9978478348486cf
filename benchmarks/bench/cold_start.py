"""A cold start: a fresh interpreter, the import, the bundle, the first token; and what memory that
takes.

The process is started with PROGRAM, which takes the time before and after the import. "Cold" means
a new process: the bundle's files are in the operating system's cache from the second start on, and
the first start is told apart.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from edgeprefix.bench.cells import Setup
from edgeprefix.bench.memory import peak_bytes
from edgeprefix.bench.stopwatch import prompt_ids
from edgeprefix.runtime.engine import Engine
from edgeprefix.runtime.errors import EdgePrefixError

PROGRAM = (
    "import time; began = time.time()\n"
    "import edgeprefix.runtime; imported = time.time()\n"
    "from edgeprefix.bench.cold_start import main; main(began, imported)\n"
)


def start(job: dict[str, Any], began: float, imported: float) -> dict[str, Any]:
    """Opens the bundle for one sequence and generates. `began` and `imported` are what time.time()
    said.
    """
    setup, memory = Setup.from_json(job["setup"]), {"import": peak_bytes()}
    at = time.time()
    with Engine.load(
        setup.bundle,
        max_batch=1,
        max_length=setup.max_length,
        threads=setup.threads,
        providers=setup.providers or None,
    ) as engine:
        task = None if setup.prefix is None else engine.load_prefix(setup.prefix).name
        loaded, memory["load"] = time.time(), peak_bytes()
        prompt = prompt_ids(job["prompt_tokens"], engine.manifest.vocabulary)
        stream = engine.stream(prompt, task=task, max_new_tokens=setup.new_tokens, ignore_end=True)
        first = next(time.time() for piece in stream if piece.token is not None)
        for _ in stream:
            pass
        memory["generate"] = peak_bytes()
        return {
            "interpreter_ms": 1000 * (began - job["spawned"]),
            "import_ms": 1000 * (imported - began),
            "load_ms": 1000 * (loaded - at),
            "first_token_ms": 1000 * (first - loaded),
            "total_ms": 1000 * (first - at + imported - job["spawned"]),
            "memory": memory,
            "cache_bytes": engine.cache_bytes,
            "torch_loaded": "torch" in sys.modules,
        }


def main(began: float, imported: float) -> None:
    """The job is the first argument, the answer a line of JSON."""
    try:
        answer = start(json.loads(sys.argv[1]), began, imported)
    except EdgePrefixError as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    sys.stdout.write(json.dumps(answer) + "\n")
