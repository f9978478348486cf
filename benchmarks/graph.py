"""What is each graph pass worth? Every pass is left out once; nodes, decode step and prefill are
measured without it.

    python benchmarks/graph.py build FOLDER --shape smollm2-135m --precision int4 python
    benchmarks/graph.py measure FOLDER --json benchmarks/results/graph-SHAPE-PRECISION-DATE.json

Two commands, so that the second, which is short, can have the machine to itself. Models have the
named shape and random weights (speed does not depend on them). `load` opens the session, `decode`
is one step of one row over a cache of 128 positions, `decode 8` one of eight rows, `prefill` a
prompt of 128 tokens: wall milliseconds, medians of all rounds; variants take turns within a round,
in another order each time. Not included: tokenisation, sampling. The last line is the same table as
JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from edgeprefix.base import Base
from edgeprefix.export.bundle import write_bundle
from edgeprefix.export.passes import PASSES, make_lean
from edgeprefix.export.precision import to_precision
from edgeprefix.export.rotary import plan_rotary
from edgeprefix.export.trace import survey_layers, trace_decoder
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.contracts.manifest import GRAPH_FILE, Manifest
from edgeprefix.runtime.decoding.cache import Cache
from edgeprefix.runtime.decoding.decoder import Decoder
from edgeprefix.runtime.decoding.machine import physical_cores
from edgeprefix.runtime.decoding.session import open_graph

SHAPES = {
    "smollm2-135m": LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49152,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    ),
    "gpt2-124m": GPT2Config(),
    "tiny": LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=384,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    ),
}
PROMPT, ROWS = 128, 8
_QUIET_S = 0.1  # until the threads of the variant before have stopped spinning
VARIANTS = {
    "all passes": (),
    **{f"without {kind.__name__}": (kind,) for kind in PASSES},
    "no passes": PASSES,
}


class Variant:
    """A decoder made without one pass (or with all), ready to be timed."""

    def __init__(self, folder: Path, threads: int | None) -> None:
        manifest = Manifest.load(folder)
        self.name, self.bytes = folder.name, sum(record.bytes for record in manifest.files.values())
        self.nodes, self.layers = len(ir.load(folder / GRAPH_FILE).graph), len(manifest.layers)
        started = time.perf_counter()
        opened = open_graph(folder, manifest, threads=threads)
        self.load = (time.perf_counter() - started) * 1000
        self.decoder = Decoder(
            opened, Cache(opened.layers, batch=ROWS, capacity=2 * PROMPT, dtype=opened.cache_dtype)
        )
        self.ids = np.random.default_rng(0).integers(0, manifest.vocabulary, PROMPT)
        self.times: dict[str, list[float]] = {"decode": [], "decode_8": [], "prefill": []}

    def measure(self, steps: int) -> None:
        """Two prefills and some decode steps; times in milliseconds."""
        time.sleep(_QUIET_S)
        for _ in range(2):
            self.times["prefill"].append(
                _timed(lambda: self.decoder.feed(0, self.ids, start=0, wanted=[PROMPT - 1]))
            )
        for name, rows in (("decode", 1), ("decode_8", ROWS)):
            for _ in range(steps):
                self.times[name].append(
                    _timed(lambda n=rows: self.decoder.step([5] * n, [PROMPT + 1] * n))
                )

    def row(self) -> dict[str, object]:
        """Its line of the table."""
        return {
            "variant": self.name,
            "nodes": self.nodes,
            "nodes_per_layer": round(self.nodes / self.layers, 1),
            "load_ms": round(self.load),
            **{
                f"{name}_ms": round(statistics.median(values), 3)
                for name, values in self.times.items()
            },
            "megabytes": round(self.bytes / 1e6, 1),
        }


def main() -> None:
    options = _options()
    if options.command == "build":
        build(options.shape, options.precision, options.folder)
    else:
        measure(options)


def build(shape: str, precision: str, folder: Path) -> None:
    """Writes one bundle for each variant."""
    torch.manual_seed(0)
    model = (
        AutoModelForCausalLM.from_config(SHAPES[shape], attn_implementation="eager")
        .eval()
        .requires_grad_(False)
    )
    base = Base(
        folder=folder, identity=_identity(f"{shape}, {precision}"), model=model, tokenizer=None
    )
    layers = survey_layers(model)
    traced = trace_decoder(model, layers, plan_rotary(model, base.max_positions))
    print(f"traced: {len(traced.graph)} nodes", flush=True)
    for name, without in VARIANTS.items():
        place = folder / name
        place.mkdir(parents=True)
        try:
            graph = to_precision(make_lean(traced.clone(), without=without), precision)
            write_bundle(base, layers, graph, place, precision=precision)
        except (
            Exception
        ) as error:  # a variant that cannot be made is a line less in the table, not the end of it
            shutil.rmtree(place)
            print(f"{name}: {type(error).__name__}: {str(error)[:160]}")
        print(name, flush=True)


def measure(options: argparse.Namespace) -> None:
    """Opens all bundles of a folder and lets them take turns."""
    variants = [
        Variant(options.folder / name, options.threads)
        for name in VARIANTS
        if (options.folder / name).exists()
    ]
    for variant in variants:
        variant.measure(2)  # warm
        variant.times = {name: [] for name in variant.times}
    for _ in range(options.rounds):
        for variant in random.sample(variants, len(variants)):
            variant.measure(options.steps)
    rows = [variant.row() for variant in variants]
    _print(rows)
    result = {
        "benchmark": "graph",
        "model": Manifest.load(options.folder / "all passes").base.name,
        "rounds": options.rounds,
        "threads": options.threads or physical_cores(),
        "rows": rows,
        "load_average": list(os.getloadavg()),
        "machine": platform.processor() or platform.machine(),
        "onnxruntime": onnxruntime.__version__,
    }
    if options.json:
        if options.json.exists():
            sys.exit(f"{options.json} exists already: results are not overwritten")
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def _print(rows: list[dict[str, object]]) -> None:
    names = list(rows[0])
    print(f"{names[0]:<30}" + "".join(f"{name.replace('_', ' '):>17}" for name in names[1:]))
    for row in rows:
        print(f"{row[names[0]]!s:<30}" + "".join(f"{row[name]!s:>17}" for name in names[1:]))


def _identity(name: str) -> BaseIdentity:
    return BaseIdentity(name=name, weights_sha256="0", config_sha256="0", tokenizer_sha256="0")


def _timed(call) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("build", "measure"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--precision", choices=("fp32", "int8", "int4"), default="int4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="decode steps in a round")
    parser.add_argument("--threads", type=int, help="default: the physical cores")
    parser.add_argument("--json", type=Path, help="file to write the result to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
