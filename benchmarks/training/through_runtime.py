"""The metric of a prefix in fp32, int8 and int4 bundles, measured by the runtime itself on the
held-out rows. Rows are filled into the benchmark's template once, whatever template is in the file:
PEFT's adapters have none, our prefixes have this one.
"""

from __future__ import annotations

from pathlib import Path

from cells import METRIC, Cell
from data import PROMPT, Rows

from edgeprefix.export import export_decoder
from edgeprefix.runtime import Engine, Prefix, Request
from edgeprefix.train.evaluate import bleu

PRECISIONS = ("fp32", "int8", "int4")


def export_bundles(base: Path, folder: Path) -> None:
    """The base's bundles, once for all cells."""
    for precision in PRECISIONS:
        export_decoder(base, _bundle(folder, precision), precision=precision)


def through_runtime(cell: Cell, rows: Rows, prefix: Prefix, bundles: Path) -> dict[str, float]:
    """The metric by precision."""
    scores = {}
    for precision in PRECISIONS:
        with Engine.load(_bundle(bundles, precision), max_batch=8, max_length=512) as engine:
            task = engine.load_prefix(prefix).name
            scores[precision] = round(_score(engine, task, cell, rows), 2)
    return scores


def _bundle(folder: Path, precision: str) -> Path:
    return folder / f"bundle-{precision}"


def _score(engine: Engine, task: str, cell: Cell, rows: Rows) -> float:
    if METRIC[cell.data] == "accuracy":
        right = sum(
            engine.score(row["input"], list(rows.labels), task=task, template=PROMPT).best
            == row["target"]
            for row in rows.held_out
        )
        return 100 * right / len(rows.held_out)
    references: dict[str, list[str]] = {}
    for row in rows.held_out:
        references.setdefault(row["input"], []).append(row["target"])
    requests = [
        Request(text, task=task, template=PROMPT, max_new_tokens=96, temperature=0.0)
        for text in references
    ]
    texts = [completion.text.strip() for completion in engine.generate_many(requests)]
    return bleu(texts, list(references.values()))
