"""What the engine costs on top of the graph, and what tasks cost on top of the base.

    python benchmarks/engine.py --shape smollm2-135m --precision int4 --json
    benchmarks/results/engine-DATE.json python benchmarks/engine.py --bundle bundle/ --json FILE

Measured (docs/engine.md has the bounds):
  decode     tokens/s of Engine.generate over a bare loop on the same session (argmax, nothing
  else); one row, then eight mixed      eight rows of eight tasks over eight rows of one task batch
  tokens/s of eight rows over one row swap       microseconds to activate a resident prefix: the
  copy into a slot load       milliseconds from a prefix file on disk to a task that can be asked
  for (hash, checks, packing) ttft       time to the first token with a 20-token prefix over the
  same prompt without one lookup     decoding time with prompt lookup over without, on a text that
  copies its prompt, and on one that does not sampling   microseconds a token for the sampler alone

The two sides of a ratio are measured in turn, round by round, and the median of the rounds' ratios
is reported. On a busy machine use `--clock cpu --threads 1`: processor time does not count what
others took. Weights of `--shape` are random: the time of a matrix product does not depend on its
numbers. Excluded: loading the bundle, the first (warming) round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgeprefix.runtime import Engine, GenerationOptions, Prefix, Request
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.prefix_file import PrefixLayer
from edgeprefix.runtime.decoding.cache import Cache
from edgeprefix.runtime.decoding.decoder import Decoder
from edgeprefix.runtime.decoding.quiet_ort import ort
from edgeprefix.runtime.generation.sampler import Sampler, Vocabulary

SHAPES: dict[str, dict[str, Any]] = {
    "smollm2-135m": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    },
}
ROWS = 8
SHORT_PROMPT = 8  # tokens; where decoding is measured, so that prompts hardly count
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
PREFIX_TOKENS = 20


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        bundle = arguments.bundle or make_bundle(Path(folder), arguments.shape, arguments.precision)
        results = measure(bundle, arguments)
    print_table(results)
    line = json.dumps(results)
    print(line)
    if arguments.json:
        if arguments.json.exists():
            sys.exit(f"{arguments.json} exists already: results are not overwritten")
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        help="an exported bundle; default: one of --shape with random weights",
    )
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--precision", default="int4")
    parser.add_argument("--tokens", type=int, default=64, help="new tokens of each generation")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the prompt")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: processor time, for a machine that is busy",
    )
    parser.add_argument("--only", nargs="*", help="some of the measurements")
    parser.add_argument("--json", type=Path, help="where to keep the results")
    return parser.parse_args()


def make_bundle(folder: Path, shape: str, precision: str) -> Path:
    """Exports a base of that shape with random weights; its tokenizer is a stand-in, since prompts
    are token ids here.
    """
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM

    from edgeprefix.export import export_decoder

    torch.manual_seed(0)
    base = folder / shape
    LlamaForCausalLM(LlamaConfig(**SHAPES[shape], eos_token_id=0, bos_token_id=0)).save_pretrained(
        base
    )
    Tokenizer(models.WordLevel({"<end>": 0, "word": 1}, unk_token="word")).save(
        str(base / "tokenizer.json")
    )
    (base / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"})
    )
    export_decoder(base, folder / "bundle", precision=precision, verify=False)
    return folder / "bundle"


def measure(bundle: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    manifest = Manifest.load(bundle)
    capacity = PREFIX_TOKENS + arguments.prompt + arguments.tokens + 8
    random = np.random.default_rng(0)
    prompt = random.integers(1, manifest.vocabulary, arguments.prompt).tolist()
    short, clock = prompt[:SHORT_PROMPT], CLOCKS[arguments.clock]
    with Engine.load(
        bundle,
        max_batch=ROWS,
        max_length=capacity,
        threads=arguments.threads,
        chunk_tokens=arguments.prompt,
    ) as engine:
        prefixes = [random_prefix(manifest, f"task{number}") for number in range(ROWS)]
        for prefix in prefixes:
            engine.load_prefix(prefix)
        graph = engine._scheduler._decoder.graph  # the same session, idle while the bare loop runs
        bare = Decoder(
            graph, Cache(graph.layers, batch=ROWS, capacity=capacity, dtype=graph.cache_dtype)
        )
        one, same, mixed = ["task0"], ["task0"] * ROWS, [f"task{number}" for number in range(ROWS)]
        tokens, rounds = arguments.tokens, arguments.rounds

        def through(tasks: list[str]) -> Callable[[], float]:
            return lambda: generate_speed(engine, short, tasks, tokens, clock)

        def alone(rows: int) -> Callable[[], float]:
            return lambda: bare_speed(bare, short, rows, tokens, clock)

        def first(task: str | None) -> Callable[[], float]:
            return lambda: first_token_ms(engine, prompt, task, clock)

        measurements: dict[str, Callable[[], Any]] = {
            "facts": lambda: facts(manifest, arguments),
            "decode_1": lambda: ratio(rounds, through(one), alone(1)),
            "decode_8": lambda: ratio(rounds, through(same), alone(ROWS)),
            "mixed": lambda: ratio(rounds, through(mixed), through(same)),
            "batch": lambda: ratio(rounds, through(same), through(one)),
            "ttft_ms": lambda: ratio(3 * rounds, first("task0"), first(None)),
            "swap_us": lambda: swap_us(engine, bare, clock),
            "load_ms": lambda: load_ms(engine, prefixes[0], clock),
            "lookup": lambda: lookup_gain(engine, arguments),
            "sampling_us": lambda: sampling_us(manifest.vocabulary, clock),
        }
        results = {}
        for name, measurement in measurements.items():
            if arguments.only and name not in ("facts", *arguments.only):
                continue
            results[name] = measurement()
            print(name, json.dumps(results[name]), file=sys.stderr, flush=True)
        return results


def random_prefix(manifest: Manifest, name: str) -> Prefix:
    random = np.random.default_rng(abs(hash(name)) % 1000)
    layers = [
        PrefixLayer(
            *(
                random.standard_normal((layer.kv_heads, PREFIX_TOKENS, layer.head_size)).astype(
                    np.float32
                )
                for _ in range(2)
            )
        )
        for layer in manifest.layers
    ]
    return Prefix(name=name, base=manifest.base, layers=tuple(layers))


def generate_speed(
    engine: Engine, prompt: list[int], tasks: list[str], tokens: int, clock: Clock
) -> float:
    """Tokens/s through the engine, one request for each task, all at once."""
    requests = [
        Request(prompt, task=task, max_new_tokens=tokens, ignore_end=True) for task in tasks
    ]
    started = clock()
    engine.generate_many(requests)
    return len(tasks) * tokens / (clock() - started)


def first_token_ms(engine: Engine, prompt: list[int], task: str | None, clock: Clock) -> float:
    started = clock()
    engine.generate(prompt, task=task, max_new_tokens=1, ignore_end=True)
    return 1000 * (clock() - started)


def bare_speed(decoder: Decoder, prompt: list[int], rows: int, tokens: int, clock: Clock) -> float:
    """Tokens/s of the shortest loop that does the same over the same graph: feed the prompts, then
    decode greedily.
    """
    length = PREFIX_TOKENS + len(prompt)
    ids = np.asarray(prompt, np.int64)
    started = clock()
    current = [
        int(decoder.feed(row, ids, start=PREFIX_TOKENS, wanted=[-1]).argmax())
        for row in range(rows)
    ]
    for step in range(1, tokens):
        current = decoder.step(current, [length + step] * rows).argmax(axis=1).tolist()
    return rows * tokens / (clock() - started)


def ratio(rounds: int, one: Callable[[], float], other: Callable[[], float]) -> dict[str, float]:
    """Both sides in turn; medians and the median of the rounds' ratios."""
    one(), other()  # warm
    pairs = [(one(), other()) for _ in range(rounds)]
    return {
        "this": statistics.median(pair[0] for pair in pairs),
        "other": statistics.median(pair[1] for pair in pairs),
        "ratio": statistics.median(pair[0] / pair[1] for pair in pairs),
        "ratio_low": min(pair[0] / pair[1] for pair in pairs),
        "ratio_high": max(pair[0] / pair[1] for pair in pairs),
    }


def swap_us(engine: Engine, decoder: Decoder, clock: Clock, count: int = 2000) -> dict[str, float]:
    """The copy of a resident prefix into a slot, a different task and slot each time."""
    store = engine._store
    times = []
    for number in range(count):
        started = clock()
        prefix = store.use(f"task{number % ROWS}").prefix
        decoder.cache.write(number % ROWS, prefix.packed)
        times.append(1e6 * (clock() - started))
    return percentiles(times)


def load_ms(engine: Engine, prefix: Prefix, clock: Clock, count: int = 60) -> dict[str, float]:
    times = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.safetensors"
        prefix.with_dtype("fp16").save(path)
        for _ in range(count):
            started = clock()
            engine.load_prefix(path)
            times.append(1000 * (clock() - started))
        return percentiles(times) | {"file_bytes": path.stat().st_size}


def lookup_gain(engine: Engine, arguments: argparse.Namespace) -> dict[str, Any]:
    """Random weights soon repeat themselves, which prompt lookup predicts; a biased, unpredictable
    text shows its cost.
    """
    prompt = np.random.default_rng(1).integers(1, engine.manifest.vocabulary, 16).tolist()
    common: Any = {"max_new_tokens": arguments.prompt, "ignore_end": True}

    def decode_ms(lookup: int, **settings: Any) -> float:
        started = CLOCKS[arguments.clock]()
        engine.generate(prompt, lookup=lookup, **common, **settings)
        return 1000 * (CLOCKS[arguments.clock]() - started)

    plain = engine.generate(prompt, **common).tokens
    drafted = engine.generate(prompt, lookup=8, **common).tokens
    return {
        "repetitive_text": ratio(5, lambda: decode_ms(8), lambda: decode_ms(0)),
        "never_repeating": ratio(
            5, lambda: decode_ms(8, no_repeat_ngram=2), lambda: decode_ms(0, no_repeat_ngram=2)
        ),
        "same_tokens": plain == drafted,
    }


def sampling_us(size: int, clock: Clock) -> dict[str, float]:
    """Over a vocabulary whose probabilities fall like rank ** -1.5, about as a language
    model's do.
    """
    ranks = np.random.default_rng(0).permutation(size) + 1
    logits = (-1.5 * np.log(ranks)).astype(np.float32)
    kinds: dict[str, GenerationOptions] = {
        "greedy": GenerationOptions(),
        "temperature": GenerationOptions(temperature=0.8, seed=1),
        "top_k 40": GenerationOptions(top_k=40, seed=1),
        "top_p 0.95": GenerationOptions(top_p=0.95, seed=1),
        "top_k 40, top_p 0.95, repetition": GenerationOptions(
            top_k=40, top_p=0.95, repetition_penalty=1.1, seed=1
        ),
    }
    found = {}
    for name, options in kinds.items():
        sampler, tokens = Sampler(options, Vocabulary(size=size), [1, 2, 3]), list(range(64))
        started = clock()
        for _ in range(200):
            sampler(logits, tokens, 10)
        found[name] = 1e6 * (clock() - started) / 200
    return found


def percentiles(values: list[float]) -> dict[str, float]:
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    return {"p50": float(p50), "p90": float(p90), "p99": float(p99), "count": len(values)}


def facts(manifest: Manifest, arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "base": manifest.base.name,
        "precision": manifest.precision,
        "layers": len(manifest.layers),
        "vocabulary": manifest.vocabulary,
        "prompt_tokens": arguments.prompt,
        "new_tokens": arguments.tokens,
        "prefix_tokens": PREFIX_TOKENS,
        "rounds": arguments.rounds,
        "clock": arguments.clock,
        "threads": arguments.threads or "physical cores",
        "cores": os.cpu_count(),
        "load_average": list(os.getloadavg()),
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "onnxruntime": ort.__version__,
        "numpy": np.__version__,
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def print_table(results: dict[str, Any]) -> None:
    print(json.dumps(results["facts"]))
    names = {
        "decode_1": "generate / bare loop, 1 row (tokens/s)",
        "decode_8": "generate / bare loop, 8 rows (tokens/s)",
        "mixed": "8 tasks / 1 task, 8 rows (tokens/s)",
        "batch": "8 rows / 1 row (tokens/s)",
        "ttft_ms": "first token with / without prefix (ms)",
    }
    for key, name in names.items():
        if row := results.get(key):
            print(f"{name:42} {row['this']:9.1f} {row['other']:9.1f}   ratio {row['ratio']:.3f}")
    for key, unit in (("swap_us", "µs"), ("load_ms", "ms")):
        if row := results.get(key):
            print(f"{key:42} p50 {row['p50']:.2f} {unit}   p99 {row['p99']:.2f} {unit}")
    for key in ("repetitive_text", "never_repeating"):
        if row := results.get("lookup", {}).get(key):
            print(
                f"lookup, {key:34} {row['this']:9.1f} {row['other']:9.1f}   ratio "
                f"{row['ratio']:.3f} (ms)"
            )
    for kind, cost in results.get("sampling_us", {}).items():
        print(f"sampling, {kind:32} {cost:9.1f} µs a token")


if __name__ == "__main__":
    main()
