"""Which architectures can be exported? Every causal language model type of transformers, tiny and
random, against torch.

    python benchmarks/architectures.py [TYPE …] [--again] [--render]

Each type is exported and compared with torch in every way in which the runtime feeds it: prefill,
second chunk, decode steps, a prefix in the cache, rows of different prefixes and lengths, a text
longer than any sliding window (windows are shorter than the prompts). Results are kept in
benchmarks/results/architectures.json, type by type, so that a run can be stopped and gone on with
(`--again` starts over); docs/architectures.md is written from it (`--render` does only that). A
type passes when no logit differs by more than 1e-4 of the largest.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx_ir as ir
import transformers
from transformers import AutoConfig

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "export"))

from zoo import TooLargeError, model_types, tiny_config, tiny_model  # noqa: E402  (lies with the tests)

from edgeprefix.base import Base  # noqa: E402
from edgeprefix.base.refusals import ENCODERS, refusal  # noqa: E402
from edgeprefix.export.adapters import ADAPTERS, REWRITTEN  # noqa: E402
from edgeprefix.export.bundle import build_graph, write_bundle  # noqa: E402
from edgeprefix.export.verify import verify  # noqa: E402
from edgeprefix.runtime.contracts.identity import BaseIdentity  # noqa: E402
from edgeprefix.runtime.contracts.manifest import GRAPH_FILE  # noqa: E402
from edgeprefix.runtime.errors import ExportError  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "architectures.json"
PAGE = ROOT / "docs" / "architectures.md"
BOUND = 1e-4
PACKAGES = ("transformers", "torch", "onnxruntime")


def main() -> None:
    options = _options()
    transformers.logging.set_verbosity_error()
    logging.disable(logging.ERROR)
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"types": {}}
    wanted = [] if options.render else options.types or model_types()
    for model_type in wanted:
        if model_type in results["types"] and not options.again:
            continue
        results["types"][model_type] = outcome = _try(model_type)
        results["versions"] = {name: importlib.metadata.version(name) for name in PACKAGES}
        results["date"] = datetime.date.today().isoformat()
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        print(f"{model_type:<28}{outcome}", flush=True)
    PAGE.write_text(_page(results))
    print(json.dumps(_counts(results)))


def _try(model_type: str) -> dict[str, Any]:
    """The outcome for one type: `relative` and `nodes`, or `refused` or `untried` with the
    reason.
    """
    if reason := _no_decoder(model_type):
        return {"foreign": reason}
    if reason := _refusal(model_type):
        return {"refused": reason}
    try:
        model = tiny_model(model_type)
    except TooLargeError as error:
        return {"untried": str(error)}
    except (
        Exception
    ) as error:  # a default configuration that cannot be made small says nothing about the exporter
        return {
            "untried": f"no tiny model could be made: {type(error).__name__}: {_first_line(error)}"
        }
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _export(model_type, model, Path(folder))
    except ExportError as error:
        return {"refused": _first_line(error).removeprefix(f"{model_type} cannot be exported: ")}
    except Exception as error:  # anything else is a bug of ours, and is to be seen in the table
        return {"failed": f"{type(error).__name__}: {_first_line(error)}"}


def _refusal(model_type: str) -> str | None:
    """The exporter's own reason, from the tiny configuration or, where none can be made, from the
    default one.
    """
    for make in (tiny_config, AutoConfig.for_model):
        try:
            return refusal(make(model_type))
        except Exception:  # a type without a usable default; what follows says so
            continue
    return None


def _export(model_type: str, model: Any, folder: Path) -> dict[str, Any]:
    identity = BaseIdentity(
        name=model_type, weights_sha256="0", config_sha256="0", tokenizer_sha256="0"
    )
    base = Base(folder=folder, identity=identity, model=model, tokenizer=None)
    layers, graph = build_graph(base)
    write_bundle(base, layers, graph, folder, precision="fp32")
    report = verify(folder, base)
    nodes = [node.op_type for node in ir.load(folder / GRAPH_FILE).graph]
    outcome = {
        "relative": float(f"{report.relative:.1e}"),
        "nodes": len(nodes),
        "rotary_in_node": _rotates(folder),
    }
    return (
        outcome
        if report.relative <= BOUND
        else {"failed": f"differs from torch by {report.relative:.1e}"}
    )


def _rotates(folder: Path) -> bool:
    nodes = [
        node for node in ir.load(folder / GRAPH_FILE).graph if node.op_type == "GroupQueryAttention"
    ]
    return any("do_rotary" in node.attributes for node in nodes)


def _no_decoder(model_type: str) -> str | None:
    """Why a type is no decoder-only language model, judged by its configuration alone."""
    try:
        config = tiny_config(model_type)
    except Exception:  # judged when the model is made
        return None
    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder"
    if getattr(config, "is_decoder", None) is False and model_type in ENCODERS:
        return "encoder"
    return None


def _counts(results: dict[str, Any]) -> dict[str, int]:
    types = results["types"].values()
    return {
        kind: sum(kind in outcome for outcome in types)
        for kind in ("relative", "refused", "failed", "untried", "foreign")
    }


def _page(results: dict[str, Any]) -> str:
    counts, types = _counts(results), results["types"]
    versions = ", ".join(
        f"{name} {version}" for name, version in results.get("versions", {}).items()
    )
    lines = [
        "# Architectures",
        "",
        "<!-- written by benchmarks/architectures.py; do not edit -->",
        "",
        f"transformers registers {len(types)} types of causal language models. "
        f"{counts['relative']} export and equal torch;"
        f" {counts['refused']} are refused by name, with the reason; {counts['failed']} "
        f"fail; {counts['untried']} could not be",
        (
            f"tried. The other {counts['foreign']} are encoders and halves of encoder-decoders, "
            "which have no place here."
        ),
        "",
        (
            "Every type is a tiny model with random weights, biases and norms, exported in fp32 "
            "and compared with torch on each"
        ),
        (
            "logit: prompt in one piece and in two, decode steps, a prefix in the cache, three "
            "rows of different prefixes and"
        ),
        (
            "lengths in one batch, and a text longer than any sliding window. *Difference* is the "
            "largest over the largest logit;"
        ),
        (
            f"a row fails above {BOUND:.0e}. *Rotary* says whether positions are rotated inside "
            "the attention node (`node`), by the"
        ),
        (
            "model's own traced operations (`graph`, slower and as exact), or not at all. Of types "
            "that see and hear (gemma3,"
        ),
        "llama4, …) it is the text part that is exported.",
        "",
        (
            f"Made with {versions} on {results.get('date', '?')}: `python "
            "benchmarks/architectures.py`."
        ),
        "",
        "| type | difference | nodes (2 layers) | rotary | note |",
        "|---|---|---|---|---|",
    ]
    for name, outcome in sorted(types.items()):
        if "relative" in outcome:
            note = "adapter" if name in ADAPTERS | REWRITTEN else ""
            rotary = "node" if outcome["rotary_in_node"] else "graph or none"
            lines.append(
                f"| {name} | {outcome['relative']:.1e} | {outcome['nodes']} | {rotary} | {note} |"
            )
    for kind, title in (("refused", "Refused"), ("failed", "Failing"), ("untried", "Not tried")):
        chosen = [
            (name, outcome[kind]) for name, outcome in sorted(types.items()) if kind in outcome
        ]
        if chosen:
            lines += ["", f"## {title}", "", "| type | reason |", "|---|---|"]
            lines += [f"| {name} | {_cell(reason)} |" for name, reason in chosen]
    foreign = {
        kind: [name for name, o in sorted(types.items()) if o.get("foreign") == kind]
        for kind in _FOREIGN
    }
    lines += ["", "## No decoders", ""]
    lines += [f"{title}: {', '.join(foreign[kind])}.\n" for kind, title in _FOREIGN.items()]
    return "\n".join(lines).rstrip() + "\n"


_FOREIGN = {"encoder": "Encoders", "encoder-decoder": "Encoder-decoders"}


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")[:300]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("types", nargs="*", metavar="TYPE")
    parser.add_argument("--again", action="store_true", help="try types that have a result already")
    parser.add_argument("--render", action="store_true", help="only write the page")
    return parser.parse_args()


if __name__ == "__main__":
    main()
