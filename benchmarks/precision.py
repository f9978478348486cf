"""How should weights be rounded? Formats compared by what they do to the next-token distribution on
real text.

    python benchmarks/precision.py --base demo/base --text FILE [--tokens 4096] [--json
    results.json]

First table: torch with rounded weights, the body (projections) or the head (vocabulary projection
and embedding) alone, so that nothing but the weights differs. `rtn` is rounding to nearest with
ONNX Runtime's kernels, `k-quant` its Python port of llama.cpp's search, `search` a least-squares
search for symmetric scales. Second table: whole bundles as `export decoder` writes them, run by
ONNX Runtime with int8 activations: size of the folder, peak memory of a process that loads it and
generates 64 tokens, agreement with fp32 torch. KL is the mean divergence in nats from fp32 torch,
top-1 the share of equal first choices, ΔNLL the change of the loss on the text. The last line is
both tables as JSON.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from onnxruntime.quantization.neural_compressor.weight_only import quant_tensor_k_quant_cpu

from edgeprefix.base import Base, load_base
from edgeprefix.base.rounding import dequantise, quantise
from edgeprefix.export.bundle import build_graph, write_bundle
from edgeprefix.export.precision import to_precision
from edgeprefix.runtime.contracts.manifest import PRECISIONS, Manifest
from edgeprefix.runtime.decoding.cache import Cache
from edgeprefix.runtime.decoding.decoder import Decoder
from edgeprefix.runtime.decoding.session import open_graph

Array = npt.NDArray[np.float32]
# Also where they do not divide a matrix: its last block is then a smaller one
BLOCKS = (
    32,
    64,
    128,
    256,
)
WINDOW = 256  # tokens of a text that are seen together


def main() -> None:
    options = _options()
    base = load_base(options.base)
    if base.tokenizer is None:
        raise SystemExit(f"{options.base} has no tokenizer")
    ids = base.tokenizer.encode(
        Path(options.text).read_text(encoding="utf-8")[: options.tokens * 8]
    ).ids[: options.tokens]
    text = torch.tensor(ids[: len(ids) // WINDOW * WINDOW]).view(-1, WINDOW)
    expected = _log_probabilities(base.model, text)
    result = {
        "benchmark": "precision",
        "base": base.identity.name,
        "tokens": text.numel(),
        "onnxruntime": onnxruntime.__version__,
    }
    result |= {
        "weights": _weight_table(base, text, expected),
        "bundles": _bundle_table(base, text, expected),
    }
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def _weight_table(base: Base, text: torch.Tensor, expected: torch.Tensor) -> list[dict[str, Any]]:
    rows = []
    print(f"{'weights':<28}{'KL':>10}{'top-1':>9}{'ΔNLL':>10}")
    for part, bits, block, method in _candidates():
        model = copy.deepcopy(base.model)
        _round(model, part, ROUNDINGS[method], bits, block)
        row = {"part": part, "bits": bits, "block": block, "method": method} | _agreement(
            _log_probabilities(model, text), expected, text
        )
        rows.append(row)
        print(
            f"{f'{part} {bits} bits, {block}, {method}':<28}{row['kl']:>10.5f}"
            f"{row['top1']:>9.2%}{row['nll_change']:>+10.4f}",
            flush=True,
        )
    return rows


def _candidates() -> list[tuple[str, int, int, str]]:
    found = [(part, 8, block, "rtn symmetric") for part in ("body", "head") for block in BLOCKS]
    found += [("head", 4, 32, method) for method in ROUNDINGS]
    return found + [("body", 4, block, method) for block in BLOCKS for method in ROUNDINGS]


def _round(
    model: Any, part: str, rounding: Callable[[Array, int, int], Array], bits: int, block: int
) -> None:
    head = model.get_output_embeddings()
    layers = (
        [head]
        if part == "head"
        else [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    )
    with torch.no_grad():
        for layer in layers:  # [N, K]
            layer.weight.copy_(
                torch.from_numpy(rounding(np.ascontiguousarray(layer.weight.numpy()), bits, block))
            )


def _nearest(symmetric: bool) -> Callable[[Array, int, int], Array]:
    def rounding(weight: Array, bits: int, block: int) -> Array:
        packed, scales, zeros = quantise(
            np.ascontiguousarray(weight.T), bits, block, symmetric=symmetric
        )
        return dequantise(packed, scales, None if symmetric else zeros, bits)[:, : weight.shape[1]]

    return rounding


def _k_quant(weight: Array, bits: int, block: int) -> Array:
    steps, scale, zero = quant_tensor_k_quant_cpu(_blocks(weight, block), bits, block)
    return (
        ((steps - zero) * scale).reshape(len(weight), -1)[:, : weight.shape[1]].astype(np.float32)
    )


def _search(weight: Array, bits: int, block: int) -> Array:
    """Tries scales around the largest number of each block, and for each the least-squares
    correction.
    """
    numbers, half = _blocks(weight, block), 2 ** (bits - 1)
    largest = np.take_along_axis(numbers, np.abs(numbers).argmax(1)[:, None], 1)
    best, chosen = np.full((len(numbers), 1), np.inf), np.zeros_like(numbers)
    for factor in (*np.linspace(0.75, 1.1, 22), *-np.linspace(0.75, 1.1, 22)):
        scale = np.where(largest == 0, 1, largest * factor / half)
        steps = np.clip(np.rint(numbers / scale), -half, half - 1)
        fitted = (steps * numbers).sum(1, keepdims=True) / np.maximum(
            (steps * steps).sum(1, keepdims=True), 1e-9
        )
        error = ((steps * fitted - numbers) ** 2).sum(1, keepdims=True)
        better = (error < best)[:, 0]
        best[better], chosen[better] = error[better], (steps * fitted)[better]
    return chosen.reshape(len(weight), -1)[:, : weight.shape[1]].astype(np.float32)


def _blocks(weight: Array, block: int) -> Array:
    """[N, K] → [N · blocks, block], the last block of each row filled up with zeros."""
    return np.pad(weight, ((0, 0), (0, -weight.shape[1] % block))).reshape(-1, block)


ROUNDINGS: dict[str, Callable[[Array, int, int], Array]] = {
    "rtn symmetric": _nearest(True),
    "rtn zero points": _nearest(False),
    "k-quant": _k_quant,
    "search": _search,
}


def _bundle_table(base: Base, text: torch.Tensor, expected: torch.Tensor) -> list[dict[str, Any]]:
    layers, graph = build_graph(base)
    rows = []
    print(f"\n{'bundle':<8}{'MB':>8}{'peak MB':>9}{'KL':>10}{'top-1':>9}{'ΔNLL':>10}")
    with tempfile.TemporaryDirectory() as name:
        for precision in PRECISIONS:
            folder = Path(name) / precision
            folder.mkdir()
            manifest = write_bundle(
                base, layers, to_precision(graph.clone(), precision), folder, precision=precision
            )
            found = torch.from_numpy(_graph_logits(folder, manifest, text.numpy())).log_softmax(-1)
            row: dict[str, Any] = {
                "precision": precision,
                "megabytes": sum(r.bytes for r in manifest.files.values()) / 1e6,
            }
            row |= {"peak_megabytes": _peak_memory(folder)} | _agreement(found, expected, text)
            rows.append(row)
            print(
                f"{precision:<8}{row['megabytes']:>8.2f}{row['peak_megabytes']:>9.0f}{row['kl']:>10.5f}{row['top1']:>9.2%}{row['nll_change']:>+10.4f}",
                flush=True,
            )
    return rows


def _graph_logits(bundle: Path, manifest: Manifest, text: npt.NDArray[np.int64]) -> Array:
    graph = open_graph(bundle, manifest, threads=1)
    decoder = Decoder(graph, Cache(graph.layers, batch=1, capacity=WINDOW, dtype=graph.cache_dtype))
    return np.stack([decoder.feed(0, row, start=0) for row in text])


def _peak_memory(bundle: Path) -> float:
    """Peak resident megabytes of a fresh process that generates 64 tokens."""
    program = (
        "import re, sys\n"
        "from edgeprefix.runtime import Engine\n"
        "with Engine.load(sys.argv[1], max_batch=1, max_length=256, threads=1) as engine:\n"
        "    engine.generate('The', max_new_tokens=64)\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(bundle)], capture_output=True, text=True, check=True
    )
    return float(result.stdout.split()[-1])


def _log_probabilities(model: Any, text: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.stack([model(row[None]).logits[0].log_softmax(-1) for row in text])


def _agreement(found: torch.Tensor, expected: torch.Tensor, text: torch.Tensor) -> dict[str, float]:
    def loss(log_probabilities: torch.Tensor) -> float:
        return -float(log_probabilities[:, :-1].gather(-1, text[:, 1:, None]).mean())

    return {
        "kl": float((expected.exp() * (expected - found)).sum(-1).mean()),
        "top1": float((expected.argmax(-1) == found.argmax(-1)).float().mean()),
        "nll_change": loss(found) - loss(expected),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True)
    parser.add_argument("--text", required=True, help="a text file")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--json", help="file to write the result to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
