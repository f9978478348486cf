"""Perplexity of the same tokens in torch, in bundles and in llama.cpp.

    python benchmarks/perplexity.py --base BASE --text FILE [--tokens 2000] [--window 512]
    [--bundle BUNDLE ...] [--gguf FILE ... --llama-python PYTHON] [--json results.json]

The text is cut into windows that each begin with the base's begin token; every other token counts
once. torch computes in fp32 over the checkpoint's numbers; a bundle is fed as `verify` feeds it;
llama.cpp reads the same ids with a cache in 16 bits, as it does by default, in an environment of
its own (perplexity_llama.py says of what). *ratio* is the perplexity over torch's, with
its standard error; *KL* (nats) and *top-1* compare distributions with torch's, at tokens evenly
spread over the text. Whatever `--json` holds already, measured with the same settings, is not
measured again. The last line is the table as JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgeprefix.base import load_base
from edgeprefix.bench.machine_card import machine_card
from edgeprefix.export.given_text import cut, read_text
from edgeprefix.export.perplexity import graph_reading, torch_reading
from edgeprefix.export.text_quality import TextExpected, judge, read_expected
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.decoding.opening import CacheSize, open_decoder
from edgeprefix.runtime.version import __version__

_LLAMA = Path(__file__).with_name("perplexity_llama.py")
Row = dict[str, Any]


def main() -> None:
    options = _options()
    base = load_base(options.base)
    texts = cut(read_text(options.text), base, window=options.window, largest=options.tokens)
    settings = {
        "benchmark": "perplexity",
        "base": base.identity.name,
        "weights_sha256": base.identity.weights_sha256,
        "text": Path(options.text).name,
        "tokens_sha256": hashlib.sha256(np.concatenate(texts).tobytes()).hexdigest(),
        "tokens": sum(len(text) - 1 for text in texts),
        "window": options.window,
    }
    kept = _Kept(options.json, settings)
    vocabulary = int(base.config.vocab_size)
    print(f"{'engine':<44}{'MB':>8}{'perplexity':>12}{'ratio':>18}{'KL':>10}{'top-1':>9}{'s':>8}")
    began = time.perf_counter()
    expected = read_expected(
        torch_reading(base.model, vocabulary), texts, vocabulary=vocabulary, sampled=False
    )
    kept.measure("torch fp32", lambda: {"perplexity": float(np.exp(expected.losses.mean()))}, began)
    del base  # the graphs are opened beside the logits, not beside the whole model
    for gguf in options.gguf:
        llama = partial(_of_llama, options.llama_python, gguf, expected)
        kept.measure(f"llama.cpp {gguf.name}", llama)
    for bundle in options.bundle:
        kept.measure(_name(bundle), partial(_of_bundle, bundle, expected))
    print(json.dumps(kept.result))


class _Kept:
    """The result, written to its file with every row that is added to it."""

    def __init__(self, path: Path | None, settings: Row) -> None:
        self._path, self.result = path, settings | {"rows": []}
        if path is not None and path.is_file():
            known = json.loads(path.read_text())
            if {name: known.get(name) for name in settings} != settings:
                raise SystemExit(f"{path} holds other settings; give a new file")
            self.result = known

    def measure(self, engine: str, run: Callable[[], Row], began: float | None = None) -> None:
        """Adds an engine's row, unless it is there; `began` is when its work did, if before."""
        row = next((row for row in self.result["rows"] if row["engine"] == engine), None)
        if row is None:
            began = time.perf_counter() if began is None else began
            row = {"engine": engine} | run()
            row["seconds"] = round(time.perf_counter() - began, 1)
            self.result["rows"].append(row)
            self.result["machine"] = machine_card()
            self.result["versions"] = {
                "edgeprefix": __version__,
                **{name: version(name) for name in ("torch", "transformers", "onnxruntime")},
            }
            if self._path is not None:
                self._path.write_text(json.dumps(self.result, indent=1) + "\n")
        _show(row)


def _name(bundle: Path) -> str:
    manifest = Manifest.load(bundle)
    cache = ", int8 cache" if manifest.cache_dtype == "int8" else ""
    return f"bundle {bundle.name}: {manifest.precision}{cache}"


def _of_bundle(bundle: Path, expected: TextExpected) -> Row:
    manifest = Manifest.load(bundle)
    longest = max(map(len, expected.texts))
    decoder = open_decoder(bundle, manifest, CacheSize(rows=1, capacity=longest))
    reading = graph_reading(decoder, manifest.vocabulary)
    report = judge(reading, expected, precision=manifest.precision, allowed=1.0)
    return {
        "bytes": sum(record.bytes for record in manifest.files.values()),
        "perplexity": report.perplexity,
        "ratio": report.ratio,
        "error": report.error,
        "kl": report.compared.kl,
        "top1": report.compared.top1,
        "compared": report.compared.positions,
    }


def _of_llama(python: Path, gguf: Path, expected: TextExpected) -> Row:
    request = {"model": str(gguf), "texts": [text.tolist() for text in expected.texts]}
    done = subprocess.run(
        [python, str(_LLAMA)], input=json.dumps(request), capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    losses = np.array(answer["losses"])
    change = losses - expected.losses
    return {
        "bytes": gguf.stat().st_size,
        "perplexity": float(np.exp(losses.mean())),
        "ratio": float(np.exp(change.mean())),
        "error": float(change.std() / np.sqrt(len(change))),
        "llama_cpp": answer["version"],
    }


def _show(row: Row) -> None:
    size = f"{row['bytes'] / 1e6:.1f}" if "bytes" in row else ""
    ratio = f"{row['ratio']:.4f} ± {row['error']:.4f}" if "ratio" in row else ""
    kl, top1 = (f"{row['kl']:.5f}", f"{row['top1']:.1%}") if "kl" in row else ("", "")
    print(
        f"{row['engine']:<44}{size:>8}{row['perplexity']:>12.3f}{ratio:>18}{kl:>10}{top1:>9}"
        f"{row['seconds']:>8.0f}",
        flush=True,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True)
    parser.add_argument("--text", type=Path, required=True, help="a text file")
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--bundle", type=Path, action="append", default=[])
    parser.add_argument("--gguf", type=Path, action="append", default=[])
    parser.add_argument("--llama-python", type=Path, help="of an environment with llama.cpp")
    parser.add_argument("--json", type=Path, help="file to write the result to")
    options = parser.parse_args()
    if options.gguf and options.llama_python is None:
        parser.error("--gguf needs --llama-python")
    return options


if __name__ == "__main__":
    main()
