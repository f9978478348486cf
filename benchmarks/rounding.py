"""What does a way of rounding cost in perplexity, through torch and through the bundle's runtime?

    python benchmarks/rounding.py --base BASE --text FILE --json RESULT.json
        [--tokens 4096] [--window 512] [--ways int8 int4-nearest int4-fitted ...] [--work FOLDER]

The text's first tokens are cut into windows, each behind the begin token. *torch* is the base's own
forward in fp32 with the weights as the bundle holds them; *bundle* is the exported graph, whose
kernels round activations to 8 bits too. Both are told as perplexity and as a multiple of the base's
own. Ways that only torch knows take int8 apart: its head, its body, its blocks. Bundles stay in
`--work` and are not made again; the result is written after every way, so that a run goes on where
it was ended. The last line is the result as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from edgeprefix.base import Base, load_base
from edgeprefix.base.rounded_weights import rounded_weights
from edgeprefix.base.rounding import FORMATS, QuantisedFormat, WeightFormat
from edgeprefix.export.bundle import export_decoder
from edgeprefix.export.given_text import cut, read_text
from edgeprefix.export.own_numbers import planned_numbers
from edgeprefix.export.perplexity import Ids, graph_reading, perplexity, torch_reading
from edgeprefix.export.rounding.plan import FittedPlan
from edgeprefix.export.rounding.table import plan_table
from edgeprefix.export.size import Wanted
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.decoding.opening import CacheSize, open_decoder

BUNDLES: dict[str, tuple[str, Wanted | None]] = {
    "fp32": ("fp32", None),
    "int8": ("int8", None),
    "int4-nearest": ("int4", None),
    "int4-fitted": ("int4", Wanted()),
    "int4-240MB": ("int4", Wanted(size_bytes=240_000_000)),
    "int4-253MB": ("int4", Wanted(size_bytes=253_000_000)),
    "int4-1.03": ("int4", Wanted(quality=1.03)),
}
"""Ways that are exported: precision, and what is wanted of weights fitted to text."""

_LARGE, _SMALL = WeightFormat(bits=8, block=256), WeightFormat(bits=8, block=32)
IN_TORCH: dict[str, tuple[QuantisedFormat, Sequence[str]]] = {
    "int8, head alone": (FORMATS["int8"], ("head", "embedding")),
    "int8, body alone": (FORMATS["int8"], ("projection",)),
    "int8, blocks of 32": (
        QuantisedFormat(body=_SMALL, head=_SMALL), ("head", "embedding", "projection"),
    ),
    "int4 to nearest, blocks of 32": (
        QuantisedFormat(body=WeightFormat(bits=4, block=32, symmetric=False), head=_LARGE),
        ("head", "embedding", "projection"),
    ),
}  # fmt: skip
"""Ways that only torch computes: formats, and the roles of the weights that are rounded."""


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    base = load_base(options.base, fast_attention=True)
    texts = windows(base, options.text, tokens=options.tokens, size=options.window)
    result = _known(options, base)
    done = {row["way"] for row in result["rows"]}
    for way in ["torch fp32", *options.ways]:
        if way in done:
            continue
        row = {"way": way} | _measured(way, options, texts)
        result["rows"].append(row)
        own = result["rows"][0]["torch"]
        for side in ("torch", "bundle"):
            if side in row:
                row[f"{side}_ratio"] = round(row[side] / own, 4)
        print({key: value for key, value in row.items() if key != "plan"}, flush=True)
        if options.json:
            options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def windows(base: Base, path: Path, *, tokens: int, size: int) -> list[Ids]:
    """The first tokens of a text, cut into windows that each begin with the begin token."""
    return cut(read_text(path)[: 16 * tokens], base, window=size, largest=tokens)


def torch_perplexity(base: Base, texts: Sequence[Ids]) -> float:
    """Of every token behind a window's first."""
    return perplexity(torch_reading(base.model, int(base.config.vocab_size)), texts)


def bundle_perplexity(bundle: Path, texts: Sequence[Ids]) -> float:
    """The same through the graph."""
    manifest = Manifest.load(bundle)
    decoder = open_decoder(bundle, manifest, CacheSize(rows=1, capacity=max(map(len, texts))))
    return perplexity(graph_reading(decoder, manifest.vocabulary), texts)


def _measured(way: str, options: argparse.Namespace, texts: Sequence[Ids]) -> dict[str, Any]:
    base = load_base(options.base, fast_attention=True)
    if way == "torch fp32":
        return {"torch": torch_perplexity(base, texts)}
    if way in IN_TORCH:
        form, roles = IN_TORCH[way]
        _round(base, form, roles)
        return {"torch": torch_perplexity(base, texts)}
    precision, wanted = BUNDLES[way]
    bundle, facts = options.work / way, {}
    if not bundle.exists():
        facts = _export(options, bundle, precision, wanted)
    size = sum(path.stat().st_size for path in bundle.iterdir())
    if precision in FORMATS:
        planned = planned_numbers(bundle, base.model)
        for module, read in planned.readers.items():
            parameter: Any = module.weight
            parameter.data = torch.from_numpy(read().copy())
        _round(base, FORMATS[precision], ("head", "embedding", "projection"), but=planned.readers)
    return {
        "bytes": size,
        "torch": torch_perplexity(base, texts),
        "bundle": bundle_perplexity(bundle, texts),
        **facts,
    }


def _export(
    options: argparse.Namespace, bundle: Path, precision: str, wanted: Wanted | None
) -> dict[str, Any]:
    plans: list[FittedPlan] = []
    began, used = time.perf_counter(), time.process_time()
    export_decoder(
        options.base, bundle, precision=precision, rounding=wanted, fitted=plans.append,
        calibrate=options.calibrate if wanted is not None else (), verify=False,
    )  # fmt: skip
    facts: dict[str, Any] = {
        "export_s": round(time.perf_counter() - began),
        "export_cpu_s": round(time.process_time() - used),
    }
    for plan in plans:
        facts |= {"held_out_kl": plan.divergence, "plan": plan_table(plan).splitlines()}
    return facts


def _round(
    base: Base, form: QuantisedFormat, roles: Sequence[str], but: Sequence[Any] | Any = ()
) -> None:
    """Rounds weights of these roles to the nearest step, in place."""
    done = set()
    for weight in rounded_weights(base.model, form):
        if weight.role.value not in roles or weight.module in but or weight.parameter in done:
            continue
        weight.parameter.data = weight.numbers(weight.parameter.data)
        done.add(weight.parameter)


def _known(options: argparse.Namespace, base: Base) -> dict[str, Any]:
    """What has been measured with the same settings, or nothing yet."""
    settings = {
        "benchmark": "rounding",
        "base": base.identity.name,
        "weights_sha256": base.identity.weights_sha256,
        "text": options.text.name,
        "tokens": options.tokens,
        "window": options.window,
        "calibrate": [path.name for path in options.calibrate],
    }
    if options.json and options.json.exists():
        known: dict[str, Any] = json.loads(options.json.read_text())
        if any(known[key] != value for key, value in settings.items()):
            sys.exit(f"{options.json} was measured with other settings: name another file")
        return known
    return settings | {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "load_average": list(os.getloadavg()),
        "versions": {name: version(name) for name in ("torch", "transformers", "onnxruntime")},
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "rows": [],
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--calibrate", type=Path, action="append", default=[])
    parser.add_argument("--ways", nargs="*", default=[*BUNDLES, *IN_TORCH])
    parser.add_argument("--work", type=Path, default=Path("build/rounding"))
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
