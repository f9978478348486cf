"""Which ONNX Runtime session options serve this engine best?

    python benchmarks/engine_session.py BUNDLE --json benchmarks/results/engine_session-DATE.json

For each setting: milliseconds of a decoding step (1 row, then 8), of a prefill of 128 tokens, of
opening the graph, and the memory that opening it adds. Settings are measured in turn, round by
round, so that a busy machine slows all of them; medians are reported. "small pages" is the engine's
own setting without huge pages for the weights.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgeprefix.runtime.contracts.manifest import GRAPH_FILE, Manifest
from edgeprefix.runtime.decoding.cache import Cache
from edgeprefix.runtime.decoding.decoder import Decoder
from edgeprefix.runtime.decoding.huge_pages import new_memory_in_huge_pages
from edgeprefix.runtime.decoding.machine import physical_cores, resident_bytes
from edgeprefix.runtime.decoding.quiet_ort import ort
from edgeprefix.runtime.decoding.session import CPU, Graph, session_options

ROWS, PROMPT, STEPS = 8, 128, 24
SMALL_PAGES = "small pages"
_QUIET_S = 0.1  # until the threads of the setting before have stopped spinning

SETTINGS: dict[str, Callable[[Any], None]] = {
    "engine": lambda options: None,
    SMALL_PAGES: lambda options: None,
    "no spinning": lambda options: options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    ),
    "one thread": lambda options: setattr(options, "intra_op_num_threads", 1),
    "ONNX Runtime's own threads": lambda options: setattr(options, "intra_op_num_threads", 0),
    "no memory pattern": lambda options: setattr(options, "enable_mem_pattern", False),
    "no arena": lambda options: setattr(options, "enable_cpu_mem_arena", False),
    "no prepacking": lambda options: options.add_session_config_entry(
        "session.disable_prepacking", "1"
    ),
    "denormals as zero": lambda options: options.add_session_config_entry(
        "session.set_denormal_as_zero", "1"
    ),
    "smaller pieces of work": lambda options: options.add_session_config_entry(
        "session.dynamic_block_base", "4"
    ),
    "second thread on its core": lambda options: options.add_session_config_entry(
        "session.intra_op_thread_affinities", "2"
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--without",
        nargs="*",
        default=(),
        help="settings to leave out (no prepacking takes minutes)",
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    manifest = Manifest.load(arguments.bundle)
    results: dict[str, dict[str, Any]] = {}
    decoders = {}
    settings = {name: change for name, change in SETTINGS.items() if name not in arguments.without}
    for name, change in settings.items():
        pages = contextlib.nullcontext() if name == SMALL_PAGES else new_memory_in_huge_pages()
        with pages:
            decoders[name], results[name] = opened(arguments.bundle, manifest, change)
    times: dict[str, dict[str, list[float]]] = {
        name: {"step_1": [], "step_8": [], "prefill": []} for name in settings
    }
    for _ in range(arguments.rounds + 1):
        for name, decoder in decoders.items():
            for kind, milliseconds in measured(decoder, manifest.vocabulary).items():
                times[name][kind].append(milliseconds)
    for name, kinds in times.items():
        results[name] |= {
            f"{kind}_ms": round(statistics.median(values[1:]), 3) for kind, values in kinds.items()
        }
        print(f"{name:28} " + "  ".join(f"{key} {value}" for key, value in results[name].items()))
    facts = {
        "base": manifest.base.name,
        "precision": manifest.precision,
        "rounds": arguments.rounds,
        "cores": os.cpu_count(),
        "physical_cores": physical_cores(),
        "load_average": list(os.getloadavg()),
        "onnxruntime": ort.__version__,
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    print(json.dumps({"facts": facts, "settings": results}))
    if arguments.json:
        if arguments.json.exists():
            sys.exit(f"{arguments.json} exists already: results are not overwritten")
        arguments.json.write_text(
            json.dumps({"facts": facts, "settings": results}, indent=2) + "\n", encoding="utf-8"
        )


def opened(
    bundle: Path, manifest: Manifest, change: Callable[[Any], None]
) -> tuple[Decoder, dict[str, Any]]:
    options = session_options()
    change(options)
    before, started = resident_bytes() or 0, time.perf_counter()
    session = ort.InferenceSession(str(bundle / GRAPH_FILE), options, providers=[CPU])
    took = time.perf_counter() - started
    dtype = np.dtype(manifest.cache_dtype)
    graph = Graph(
        session=session, layers=manifest.layers, vocabulary=manifest.vocabulary, cache_dtype=dtype,
        logits_dtype=np.dtype(np.float32), device="cpu",
    )  # fmt: skip
    cache = Cache(manifest.layers, batch=ROWS, capacity=PROMPT + STEPS + 1, dtype=dtype)
    grown = ((resident_bytes() or 0) - before) / (1 << 20)
    return Decoder(graph, cache), {"open_ms": round(1000 * took, 1), "memory_mib": round(grown, 1)}


def measured(decoder: Decoder, vocabulary: int) -> dict[str, float]:
    prompt = np.random.default_rng(0).integers(0, vocabulary, PROMPT)
    time.sleep(_QUIET_S)
    started = time.perf_counter()
    decoder.feed(0, prompt, start=0, wanted=[-1])
    found = {"prefill": 1000 * (time.perf_counter() - started)}
    for rows in (1, ROWS):
        started = time.perf_counter()
        for step in range(STEPS):
            decoder.step([1] * rows, [PROMPT + step + 1] * rows)
        found[f"step_{rows}"] = 1000 * (time.perf_counter() - started) / STEPS
    return found


if __name__ == "__main__":
    main()
