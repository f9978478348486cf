"""`edgeprefix bench`: what a bundle costs on this machine, in time and memory."""

from __future__ import annotations

import json
import platform
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edgeprefix.runtime.cli.common import Bundle, MaxBatch, PrefixFile, Providers, Threads, progress_bar
from edgeprefix.runtime.contracts.files import write_atomic
from edgeprefix.runtime.decoding.machine import physical_cores, resident_bytes
from edgeprefix.runtime.decoding.quiet_ort import ort
from edgeprefix.runtime.engine import Engine
from edgeprefix.runtime.request import Completion, Request
from edgeprefix.runtime.version import __version__

bench_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_MIB = 1 << 20


@bench_app.command(name="bench")
def bench(
    bundle: Bundle,
    prefix: PrefixFile = None,
    out: Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file.")] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Length of the prompt.")] = 128,
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens generated for each prompt.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Repetitions after a warming one.")] = 7,
    max_batch: MaxBatch = 8,
    threads: Threads = None,
    providers: Providers = None,
) -> None:
    """Measure latency, throughput and memory of a bundle on this machine."""
    before, started = resident_bytes(), time.perf_counter()
    length = prompt_tokens + new_tokens + 256  # room for most prefixes
    with Engine.load(
        bundle, max_batch=max_batch, max_length=length, threads=threads, providers=providers or None
    ) as engine:
        load_ms = 1000 * (time.perf_counter() - started)
        task = None if prefix is None else engine.load_prefix(prefix).name
        prompt = [2 + number * 7919 % (engine.manifest.vocabulary - 2) for number in range(prompt_tokens)]
        request = Request(prompt, prefix=task, max_new_tokens=new_tokens, ignore_end=True)
        with progress_bar() as progress:
            bar = progress.add_task("measuring", total=rounds + 1)
            single, full = [], []
            for _ in range(rounds + 1):
                single.append(engine.generate_many([request])[0])
                full.append(_throughput(engine, [request] * max_batch))
                progress.advance(bar)
        numbers = _numbers(single[1:], full[1:], load_ms)
        after = resident_bytes()
        numbers["memory_mib"] = round(after / _MIB, 1) if after else None
        numbers["memory_of_bundle_mib"] = round((after - before) / _MIB, 1) if after and before else None
        numbers["cache_mib"] = round(engine.cache_bytes / _MIB, 1)
        facts = _facts(engine, bundle, prompt_tokens, new_tokens, rounds, max_batch, threads)
    _print(numbers, facts, max_batch)
    if out is not None:
        write_atomic(out, (json.dumps({**facts, **numbers}, indent=2) + "\n").encode())


def _throughput(engine: Engine, requests: list[Request]) -> float:
    """Tokens/s of a full batch, prompts included."""
    started = time.perf_counter()
    completions = engine.generate_many(requests)
    return sum(len(one.tokens) for one in completions) / (time.perf_counter() - started)


def _numbers(single: list[Completion], full: list[float], load_ms: float) -> dict[str, Any]:
    first = [one.timings.prefill_ms for one in single]
    token = [one.timings.decode_ms / (len(one.tokens) - 1) for one in single]
    return {
        "load_ms": round(load_ms, 1),
        "first_token_ms": {"p50": round(statistics.median(first), 2), "worst": round(max(first), 2)},
        "token_ms": {"p50": round(statistics.median(token), 3), "worst": round(max(token), 3)},
        "decode_tokens_per_s": round(1000 / statistics.median(token), 1),
        "batch_tokens_per_s": round(statistics.median(full), 1),
    }


def _facts(
    engine: Engine, bundle: Path, prompt: int, new: int, rounds: int, batch: int, threads: int | None
) -> dict[str, Any]:
    manifest = engine.manifest
    return {
        "bundle": bundle.name,
        "base": manifest.base.name,
        "precision": manifest.precision,
        "bundle_mib": round(sum(record.bytes for record in manifest.files.values()) / _MIB, 1),
        "prompt_tokens": prompt,
        "new_tokens": new,
        "rounds": rounds,
        "max_batch": batch,
        "threads": threads or physical_cores(),
        "machine": f"{platform.machine()}, {platform.system()} {platform.release()}",
        "edgeprefix": __version__,
        "onnxruntime": ort.__version__,
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _print(numbers: dict[str, Any], facts: dict[str, Any], batch: int) -> None:
    table = Table(title=f"{facts['base']} {facts['precision']}", show_header=False, title_justify="left")
    table.add_row("open and set up", f"{numbers['load_ms']:.0f} ms")
    table.add_row(f"first token, prompt of {facts['prompt_tokens']}", f"{numbers['first_token_ms']['p50']:.1f} ms")
    table.add_row(
        "each further token", f"{numbers['token_ms']['p50']:.2f} ms ({numbers['decode_tokens_per_s']} tokens/s)"
    )
    table.add_row(f"{batch} at once, prompts included", f"{numbers['batch_tokens_per_s']} tokens/s")
    table.add_row("memory of the process", f"{numbers['memory_mib']} MiB, cache {numbers['cache_mib']} MiB of it")
    Console().print(table)
    typer.echo(
        f"{facts['threads']} threads, onnxruntime {facts['onnxruntime']}, {facts['machine']}, median of {facts['rounds']}"
    )
