"""What does a composed prefix lack? Composition against one text compiled as a whole, by what the
base says next.

    python benchmarks/compose.py demo/base [../shared/models/stories260K …] [--texts 32] [--json
    benchmarks/results/FILE]

The base writes texts (temperature 0.8, seeded). Of each, tokens 0 … P-1 are the first prefix, P …
2P-1 the second, and the next ones are what is scored. In the table `one text` the second prefix
goes on from the first, so it misses it most; in `two texts` it and what is scored come from another
text, as a style and a system prompt would. Rows:

  whole             both compiled as one text: the reference composed          `compose`: compiled
  apart, keys of the second turned to their place, its begin token dropped begin kept        the
  same with the begin token of the second left where it stands no begin          the second compiled
  without a begin token of its own not turned        keys left as they were: what a naive
  concatenation gives second alone      without the first prefix first alone       without the
  second prefix

KL is the mean divergence in nats from `whole` over the scored tokens, top-1 the share of equal
first choices, NLL the mean loss on them. fp32 bundles; nothing is timed. The last line is
everything as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprefix.export import export_decoder
from edgeprefix.runtime import Engine, Prefix
from edgeprefix.runtime.contracts.prefix_file import PrefixLayer
from edgeprefix.runtime.decoding.quiet_ort import ort
from edgeprefix.runtime.tasks.compose import compose

Ids = list[int]
LogProbs = npt.NDArray[np.float32]
SCORED = 48  # tokens


def main() -> None:
    options = _options()
    results: list[dict[str, Any]] = []
    for base in options.bases:
        with tempfile.TemporaryDirectory() as folder:
            export_decoder(base, Path(folder) / "bundle", verify=False)
            with Engine.load(Path(folder) / "bundle", max_batch=1, max_length=512) as engine:
                for length in options.lengths:
                    results += [
                        _measure(engine, length, options.texts, kind)
                        for kind in ("one text", "two texts")
                    ]
    for result in results:
        _print(result)
    line = {"benchmark": "compose", "onnxruntime": ort.__version__, "results": results}
    print(json.dumps(line))
    if options.json is not None:
        options.json.write_text(json.dumps(line, indent=2) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bases", nargs="+", help="checkpoints with rotary embeddings")
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[32, 128], help="tokens of each prefix"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.json is not None and options.json.exists():
        sys.exit(f"{options.json} exists already: results are not overwritten")
    return options


def _measure(engine: Engine, length: int, texts: int, kind: str) -> dict[str, Any]:
    written = [_text(engine, 2 * length + SCORED, seed) for seed in range(texts + 1)]
    sums: dict[str, list[tuple[float, float, float]]] = {}
    for number in range(texts):
        first = written[number][:length]
        other = written[number if kind == "one text" else number + 1]
        second, scored = other[length : 2 * length], other[2 * length :]
        for row, found in _compare(engine, first, second, scored).items():
            sums.setdefault(row, []).append(found)
    rows = {
        row: dict(zip(("kl", "top1", "nll"), np.mean(found, 0).tolist(), strict=True))
        for row, found in sums.items()
    }
    return {
        "base": engine.manifest.base.name,
        "tokens": length,
        "texts": texts,
        "kind": kind,
        "rows": rows,
    }


def _text(engine: Engine, count: int, seed: int) -> Ids:
    """A text of the base's own, its begin token first."""
    begin = engine.manifest.begin_id
    assert begin is not None
    made = engine.generate(
        [begin], max_new_tokens=count - 1, temperature=0.8, seed=seed, ignore_end=True
    )
    return [begin, *made.tokens]


def _compare(
    engine: Engine, first: Ids, second: Ids, scored: Ids
) -> dict[str, tuple[float, float, float]]:
    begin = first[0]
    one, two, begun = (engine.compile(ids, name="t") for ids in (first, second, [begin, *second]))
    manifest = engine.manifest
    made: Mapping[str, Callable[[], Prefix]] = {
        "whole": lambda: engine.compile([*first, *second], name="t"),
        "composed": lambda: compose([one, begun], manifest, name="t"),
        "begin kept": lambda: compose([one, begun], manifest, name="t", keep_begin=True),
        "no begin": lambda: compose([one, two], manifest, name="t"),
        "not turned": lambda: _concatenated(one, begun),
        "second alone": lambda: begun,
        "first alone": lambda: one,
    }
    behind = {row: _distributions(engine, prefix(), scored) for row, prefix in made.items()}
    return {row: _difference(behind["whole"], found, scored) for row, found in behind.items()}


def _concatenated(one: Prefix, two: Prefix) -> Prefix:
    """Keys of the second as they lie in its file, less its begin token."""
    layers = [
        PrefixLayer(
            *(np.concatenate([a, b[:, 1:]], axis=1) for a, b in zip(left, right, strict=True))
        )
        for left, right in zip(one.layers, two.layers, strict=True)
    ]
    return Prefix(name="t", base=one.base, layers=tuple(layers), pack=one.pack)


def _distributions(engine: Engine, prefix: Prefix, scored: Ids) -> LogProbs:
    """Log-probabilities [S, V] after each of the scored tokens."""
    engine.load_prefix(prefix)
    found = engine.next_logprobs(scored, task=prefix.name)
    engine.unload(prefix.name)
    return found


def _difference(whole: LogProbs, found: LogProbs, scored: Ids) -> tuple[float, float, float]:
    kl = (np.exp(whole.astype(np.float64)) * (whole.astype(np.float64) - found)).sum(axis=1)
    nll = -found[np.arange(len(scored) - 1), scored[1:]]
    return float(kl.mean()), float((whole.argmax(1) == found.argmax(1)).mean()), float(nll.mean())


def _print(result: dict[str, Any]) -> None:
    print(
        f"\n{result['base']}, {result['kind']}, prefixes of {result['tokens']} tokens, "
        f"{result['texts']} texts"
    )
    print(f"{'':14} {'KL':>9} {'top-1':>7} {'NLL':>7}")
    for row, numbers in result["rows"].items():
        print(f"{row:14} {numbers['kl']:9.4f} {numbers['top1']:7.1%} {numbers['nll']:7.3f}")


if __name__ == "__main__":
    main()
