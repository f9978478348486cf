"""A race's result: one JSON file that says what was measured, on what and with which versions, down
to every round's samples.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.race.aggregate import Spread, Standing, Standings
from benchmarks.race.convert import checkpoint_of, model_of
from benchmarks.race.environments import site_bytes, versions
from benchmarks.race.field import CONTENDERS
from benchmarks.race.records import Record, RecordFile
from benchmarks.race.shapes import SHAPES
from edgeprefix.bench.weight_bytes import weight_bytes_per_step
from edgeprefix.runtime.contracts.files import write_atomic

Result = dict[str, Any]


def make_result(work: Path, kept: RecordFile) -> Result:
    """Everything that the table and the plot need, and the rounds themselves."""
    records = kept.records()
    peers = [peer for peer in CONTENDERS if any(record.peer == peer for record in records)]
    standings = Standings(records)
    return {
        "benchmark": "race",
        "sessions": kept.sessions(),
        "turns": kept.turns(),
        "peers": {peer: _about(work, peer) for peer in peers},
        "models": {model: _shape(work, model, records) for model in standings.models()},
        "cells": [
            _cell(standings, place, peer, standing, records)
            for place, row in standings.rows.items()
            for peer, standing in row.items()
        ],
    }


def write_result(result: Result, path: Path) -> None:
    """Raises FileExistsError: results are not overwritten."""
    if path.exists():
        raise FileExistsError(
            f"{path} exists already; results are never overwritten, give another name"
        )
    write_atomic(path, (json.dumps(result, indent=1) + "\n").encode())


def read_result(path: Path) -> Result:
    """The reverse of `write_result`."""
    found: Result = json.loads(path.read_text(encoding="utf-8"))
    return found


def _about(work: Path, peer: str) -> dict[str, Any]:
    contender = CONTENDERS[peer]
    return {
        "title": contender.title, "note": contender.note,
        "install_bytes": site_bytes(work, peer), "versions": versions(work, peer),
    }  # fmt: skip


def _shape(work: Path, model: str, records: list[Record]) -> dict[str, Any]:
    """What the checkpoint is, how many bytes each peer's model takes, and whether peers give the
    same tokens as ours.
    """
    pairs = dict.fromkeys(
        (record.precision, record.peer) for record in records if record.model == model
    )
    folders = {
        (precision, peer): model_of(work, peer, model, precision)
        for precision, peer in pairs
        if CONTENDERS[peer].reason_against(model, precision) is None
    }
    ours = {precision: model_of(work, "ours", model, precision) for precision, _ in pairs}
    shape = SHAPES[model]
    return {
        "title": shape.title,
        "config": shape.config,
        "long_tokens": shape.long,
        "new_tokens": shape.new,
        "new_tokens_long_and_batch": shape.few,
        "repeats": shape.repeats,
        "checkpoint_bytes": _bytes(checkpoint_of(work, model)),
        "model_bytes": _nested(
            {pair: _bytes(folder) for pair, folder in folders.items() if folder.is_dir()}
        ),
        "weight_bytes_per_token": {
            precision: weight_bytes_per_step(folder)
            for precision, folder in ours.items()
            if folder.is_dir()
        },
        "same_tokens_as_ours": _nested({pair: _agreement(records, model, *pair) for pair in pairs}),
    }


def _cell(
    standings: Standings,
    place: tuple[str, str, str],
    peer: str,
    standing: Standing,
    records: list[Record],
) -> dict[str, Any]:
    mine = [
        record
        for record in records
        if (record.model, record.precision, record.cell) == place and record.peer == peer
    ]
    return {
        "model": place[0],
        "precision": place[1],
        "cell": place[2],
        "peer": peer,
        "reason": standing.reason,
        "value": _plain(standing.value),
        "ratio": _plain(standing.ratio),
        "rounds": {
            str(record.round): record.samples for record in mine if record.value is not None
        },
    }


def _agreement(records: list[Record], model: str, precision: str, peer: str) -> float | None:
    """Share of the first tokens, over all cells that keep them, that are ours'. None where there is
    nothing to compare.
    """
    kept: dict[str, dict[tuple[object, ...], list[int]]] = {"ours": {}, peer: {}}
    for record in records:
        if (
            (record.model, record.precision) == (model, precision)
            and record.peer in kept
            and record.tokens
        ):
            kept[record.peer][record.cell, record.round] = [
                token for row in record.tokens for token in row
            ]
    shared = kept["ours"].keys() & kept[peer].keys()
    matches = [
        one == other
        for key in shared
        for one, other in zip(kept["ours"][key], kept[peer][key], strict=False)
    ]
    return statistics.mean(matches) if matches else None


def _plain(spread: Spread | None) -> dict[str, float] | None:
    return (
        None
        if spread is None
        else {name: float(f"{value:.6g}") for name, value in asdict(spread).items()}
    )


def _nested(flat: dict[tuple[str, str], Any]) -> dict[str, dict[str, Any]]:
    nested: dict[str, dict[str, Any]] = {}
    for (precision, peer), value in flat.items():
        nested.setdefault(precision, {})[peer] = value
    return nested


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
