"""What does a compiled prefix save, and what does the precision of its file cost?

    python benchmarks/compile.py bundle OUT                                      once: the shape to
    be timed python benchmarks/compile.py gain OUT [--json FILE]                          on a quiet
    machine python benchmarks/compile.py loss demo/base [BASE …] [--json FILE]

`gain`: time to the first token of a prompt of 16 tokens behind a text of N tokens, once with the
whole text in the prompt and once behind a prefix compiled of it; median of the rounds, both in
turn. With it what compiling took, with which chunks, the fp16 file's size, and the time from that
file to a task that can be asked for (hash, checks, packing). The bundle is the shape of
SmolLM2-135M with 8,192 positions and random weights in int4: the time of a matrix product does not
depend on its numbers. `loss`: fp16, bf16 and int8 files against fp32, behind texts that the base
wrote itself (temperature 0.8, seeded), on the base's greedy continuation: mean and worst KL in
nats, share of equal first choices. The last line is everything as JSON.
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

from edgeprefix.runtime import Engine, Prefix
from edgeprefix.runtime.decoding.quiet_ort import ort
from edgeprefix.runtime.engine.rounding_loss import rounding_loss

SHAPE: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
LENGTHS = (64, 256, 1024, 4096)
CHUNKS = (64, 128, 256, 512, 1024)
PROMPT_TOKENS = 16
CONTINUED_TOKENS = 64


def main() -> None:
    options = _options()
    if options.what == "bundle":
        make_bundle(options.out)
        return
    found = (
        gain(options.out, options.rounds)
        if options.what == "gain"
        else loss(options.bases, options.texts)
    )
    line = {"benchmark": f"compile {options.what}", **facts(), **found}
    print(json.dumps(line))
    if options.json is not None:
        options.json.write_text(json.dumps(line, indent=2) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("bundle").add_argument("out", type=Path)
    timed = commands.add_parser("gain")
    timed.add_argument("out", type=Path)
    timed.add_argument("--rounds", type=int, default=3)
    rounded = commands.add_parser("loss")
    rounded.add_argument("bases", nargs="+")
    rounded.add_argument("--texts", type=int, default=8)
    for command in (timed, rounded):
        command.add_argument("--json", type=Path)
    options = parser.parse_args()
    if getattr(options, "json", None) is not None and options.json.exists():
        sys.exit(f"{options.json} exists already: results are not overwritten")
    return options


def make_bundle(out: Path) -> None:
    """Exports the shape with random weights; its tokenizer is a stand-in, since prompts are token
    ids here.
    """
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM

    from edgeprefix.export import export_decoder

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "smollm2-135m"
        LlamaForCausalLM(LlamaConfig(**SHAPE, eos_token_id=0, bos_token_id=0)).save_pretrained(base)
        Tokenizer(models.WordLevel({"<end>": 0, "word": 1}, unk_token="word")).save(
            str(base / "tokenizer.json")
        )
        (base / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"})
        )
        export_decoder(base, out, precision="int4", verify=False)


def gain(bundle: Path, rounds: int) -> dict[str, Any]:
    """First-token times by length of the text, and compile times by length of the chunks."""
    positions = max(LENGTHS) + PROMPT_TOKENS + 1
    with Engine.load(bundle, max_batch=1, max_length=positions, chunk_tokens=256) as engine:
        engine.generate([1] * 300, max_new_tokens=2, ignore_end=True)  # warm
        rows = [_row(engine, length, rounds) for length in LENGTHS]
    chunks = {str(chunk): _compile_s(bundle, chunk) for chunk in CHUNKS}
    print(
        f"{'text':>6} {'prompt ms':>10} {'prefix ms':>10} {'gain':>7} {'compile ms':>11} "
        f"{'file MB':>8} {'load ms':>8}"
    )
    for row in rows:
        print(
            f"{row['tokens']:6} {row['prompt_ms']:10.1f} {row['prefix_ms']:10.1f} "
            f"{row['gain']:6.1f}x {row['compile_ms']:11.0f} "
            f"{row['file_bytes'] / 1e6:8.1f} {row['load_ms']:8.1f}"
        )
    print(
        "compiling 1,024 tokens:",
        ", ".join(f"{1000 * s:.0f} ms in chunks of {chunk}" for chunk, s in chunks.items()),
    )
    return {"rows": rows, "compile_1024_s_by_chunk": chunks, "rounds": rounds}


def _row(engine: Engine, length: int, rounds: int) -> dict[str, float]:
    random = np.random.default_rng(length)
    text = random.integers(1, SHAPE["vocab_size"], length).tolist()
    prompt = random.integers(1, SHAPE["vocab_size"], PROMPT_TOKENS).tolist()
    compile_ms, prefix = _timed(lambda: engine.compile(text, name="t"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "t.safetensors"
        prefix.with_dtype("fp16").save(file)
        load_ms = statistics.median(_timed(lambda: engine.load_prefix(file))[0] for _ in range(3))
        size = file.stat().st_size
    whole, behind = [], []
    for _ in range(rounds):
        whole.append(
            _timed(lambda: engine.generate([*text, *prompt], max_new_tokens=1, ignore_end=True))[0]
        )
        for _ in range(3):  # short, so more of them
            behind.append(
                _timed(
                    lambda: engine.generate(prompt, task="t", max_new_tokens=1, ignore_end=True)
                )[0]
            )
    engine.unload("t")
    prompt_ms, prefix_ms = statistics.median(whole), statistics.median(behind)
    return {
        "tokens": length,
        "prompt_ms": prompt_ms,
        "prefix_ms": prefix_ms,
        "gain": prompt_ms / prefix_ms,
        "compile_ms": compile_ms,
        "load_ms": load_ms,
        "file_bytes": size,
    }


def _compile_s(bundle: Path, chunk: int) -> float:
    """Seconds to compile 1,024 tokens, the better of two."""
    text = np.random.default_rng(0).integers(1, SHAPE["vocab_size"], 1024).tolist()
    with Engine.load(bundle, max_batch=1, max_length=1100, chunk_tokens=chunk) as engine:
        engine.compile(text[:chunk], name="t")
        return min(_timed(lambda: engine.compile(text, name="t"))[0] for _ in range(2)) / 1000


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """(milliseconds, what it gave)"""
    started = time.perf_counter()
    result = call()
    return 1000 * (time.perf_counter() - started), result


def loss(bases: list[str], texts: int) -> dict[str, Any]:
    """By base and dtype: means over the texts, and the worst position of all."""
    from edgeprefix.export import export_decoder

    rows = []
    for base in bases:
        with tempfile.TemporaryDirectory() as folder:
            export_decoder(base, Path(folder) / "bundle", verify=False)
            with Engine.load(
                Path(folder) / "bundle", max_batch=1, max_length=512, chunk_tokens=256
            ) as engine:
                prefixes = [_own_text(engine, seed) for seed in range(texts)]
                rows += [_loss_row(engine, prefixes, dtype) for dtype in ("fp16", "bf16", "int8")]
    print(f"{'base':14} {'file':6} {'KL mean':>9} {'KL worst':>9} {'top-1':>7}")
    for row in rows:
        print(
            f"{row['base']:14} {row['dtype']:6} {row['kl_mean']:9.1e} {row['kl_max']:9.1e} "
            f"{row['top1']:7.2%}"
        )
    return {
        "texts": texts,
        "prefix_tokens": 200,
        "continued_tokens": CONTINUED_TOKENS,
        "rows": rows,
    }


def _own_text(engine: Engine, seed: int) -> Prefix:
    begin = engine.manifest.begin_id or 0
    made = engine.generate([begin], max_new_tokens=199, temperature=0.8, seed=seed, ignore_end=True)
    return engine.compile([begin, *made.tokens], name="t")


def _loss_row(engine: Engine, prefixes: list[Prefix], dtype: str) -> dict[str, Any]:
    found = [rounding_loss(engine, prefix, dtype, tokens=CONTINUED_TOKENS) for prefix in prefixes]
    return {
        "base": engine.manifest.base.name,
        "dtype": dtype,
        "kl_mean": statistics.fmean(each.kl_mean for each in found),
        "kl_max": max(each.kl_max for each in found),
        "top1": statistics.fmean(each.top1 for each in found),
    }


def facts() -> dict[str, Any]:
    return {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_average": list(os.getloadavg()),
        "python": platform.python_version(),
        "onnxruntime": ort.__version__,
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


if __name__ == "__main__":
    main()
