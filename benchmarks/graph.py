"""What is each graph pass worth? Every pass is left out once; nodes, decode step and prefill are measured without it.

    python benchmarks/graph.py --shape smollm2-135m --precision int4 [--json results.json]

Models have the named shape and random weights (speed does not depend on them). `load` opens the session, `decode` is one step
of one row over a cache of 128 positions, `prefill` a prompt of 128 tokens. Times are CPU milliseconds of one thread (process
time: it does not count waiting for other programs), the least of all rounds; variants take turns within a round. Not included:
tokenisation, sampling. The last line is the same table as JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from edgeprefix.export.base import Base
from edgeprefix.export.bundle import write_bundle
from edgeprefix.export.passes import PASSES, make_lean
from edgeprefix.export.precision import to_precision
from edgeprefix.export.rotary import plan_rotary
from edgeprefix.export.trace import survey_layers, trace_decoder
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.decoding.cache import Cache
from edgeprefix.runtime.decoding.decoder import Decoder
from edgeprefix.runtime.decoding.session import open_graph

SHAPES = {
    "smollm2-135m": LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        vocab_size=49152, max_position_embeddings=8192, tie_word_embeddings=True,
    ),
    "gpt2-124m": GPT2Config(),
    "tiny": LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=384, max_position_embeddings=256, tie_word_embeddings=True,
    ),
}  # fmt: skip
PROMPT = 128


class Variant:
    """A decoder made without one pass (or with all), ready to be timed."""

    def __init__(self, name: str, base: Base, layers, graph, precision: str, folder: Path) -> None:
        self.name, self.nodes = name, len(graph.graph)
        manifest = write_bundle(base, layers, graph, folder, precision=precision)
        self.bytes = sum(record.bytes for record in manifest.files.values())
        started = time.process_time()
        opened = open_graph(folder, manifest, threads=1)
        self.load = (time.process_time() - started) * 1000
        self.decoder = Decoder(opened, Cache(opened.layers, batch=1, capacity=2 * PROMPT, dtype=opened.cache_dtype))
        self.ids = np.random.default_rng(0).integers(0, manifest.vocabulary, PROMPT)
        self.prefill: list[float] = []
        self.decode: list[float] = []

    def measure(self, steps: int) -> None:
        """One prefill and some decode steps; times in milliseconds."""
        self.prefill.append(_timed(lambda: self.decoder.feed(0, self.ids, start=0, wanted=[PROMPT - 1])))
        for _ in range(steps):
            self.decode.append(_timed(lambda: self.decoder.step([5], [PROMPT + 1])))


def main() -> None:
    options = _options()
    torch.manual_seed(0)
    config = SHAPES[options.shape]
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        base = Base(folder=Path(folder), identity=_identity(options.shape), model=model, tokenizer=None)
        variants = _variants(base, options.precision, Path(folder))
        for _ in range(options.rounds):
            for variant in variants:
                variant.measure(options.steps)
    rows = [_row(variant, config.num_hidden_layers) for variant in variants]
    _print(rows, options)
    if options.json:
        Path(options.json).write_text(json.dumps(_result(rows, options), indent=1) + "\n")
    print(json.dumps(_result(rows, options)))


def _variants(base: Base, precision: str, folder: Path) -> list[Variant]:
    layers = survey_layers(base.model)
    started = time.process_time()
    traced = trace_decoder(base.model, layers, plan_rotary(base.model, base.max_positions))
    print(f"traced in {time.process_time() - started:.1f} s of CPU time: {len(traced.graph)} nodes")
    found = []
    for name, without in [
        ("all passes", ()),
        *((f"without {kind.__name__}", (kind,)) for kind in PASSES),
        ("no passes", PASSES),
    ]:
        place = folder / name.replace(" ", "_")
        place.mkdir()
        try:
            graph = to_precision(make_lean(traced.clone(), without=without), precision)
            found.append(Variant(name, base, layers, graph, precision, place))
        except Exception as error:  # a variant that cannot be made or loaded is a row of the table, not the end of it
            print(f"{name}: {type(error).__name__}: {str(error)[:160]}")
    return found


def _row(variant: Variant, layers: int) -> dict[str, object]:
    return {
        "variant": variant.name,
        "nodes": variant.nodes,
        "nodes_per_layer": round(variant.nodes / layers, 1),
        "load_ms": round(variant.load, 0),
        "decode_ms": round(min(variant.decode), 3),
        "prefill_ms": round(min(variant.prefill), 1),
        "megabytes": round(variant.bytes / 1e6, 1),
    }


def _print(rows: list[dict[str, object]], options: argparse.Namespace) -> None:
    print(f"{options.shape}, {options.precision}, one thread, least of {options.rounds} rounds\n")
    names = list(rows[0])
    print(f"{names[0]:<30}" + "".join(f"{name.replace('_', ' '):>17}" for name in names[1:]))
    for row in rows:
        print(f"{row[names[0]]!s:<30}" + "".join(f"{row[name]!s:>17}" for name in names[1:]))


def _result(rows: list[dict[str, object]], options: argparse.Namespace) -> dict[str, object]:
    return {
        "benchmark": "graph", "shape": options.shape, "precision": options.precision, "rounds": options.rounds, "rows": rows,
        "machine": platform.processor() or platform.machine(), "onnxruntime": onnxruntime.__version__, "torch": torch.__version__,
    }  # fmt: skip


def _identity(name: str) -> BaseIdentity:
    return BaseIdentity(name=name, weights_sha256="0", config_sha256="0", tokenizer_sha256="0")


def _timed(call) -> float:
    started = time.process_time()
    call()
    return (time.process_time() - started) * 1000


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--precision", choices=("fp32", "int8", "int4"), default="int4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="decode steps in a round")
    parser.add_argument("--json", help="file to write the result to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
