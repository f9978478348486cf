"""The race itself: rounds of turns, interleaved, every cell kept as soon as it is measured.

In a round each model and precision is run by every peer in turn, so that those who are compared ran
within minutes of each other; who begins changes from round to round. What the record file already
holds is not measured again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.race.busy import Others
from benchmarks.race.cells import SECTIONS, sections_of
from benchmarks.race.convert import model_of
from benchmarks.race.environments import python_of
from benchmarks.race.field import CONTENDERS
from benchmarks.race.records import Record, RecordFile
from benchmarks.race.turn import Turn
from benchmarks.race.worker import Worker
from edgeprefix.bench.machine_card import machine_card, versions
from edgeprefix.bench.memory_bandwidth import SINGLE_BLAS_THREAD

NOTHING_DONE_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be raced."""

    models: tuple[str, ...]
    peers: tuple[str, ...]
    precisions: tuple[str, ...]
    sections: tuple[str, ...]
    rounds: int
    threads: int
    again: bool = False
    """Whether cells that failed are tried again."""

    def turns(self, round_number: int) -> Iterator[Record]:
        """The round's turns, as records without a cell."""
        for model in self.models:
            for precision in self.precisions:
                for peer in _rotated(self.peers, round_number):
                    yield Record(round=round_number, peer=peer, model=model, precision=precision)


def run_race(work: Path, plan: Plan, kept: RecordFile) -> None:
    """Measures whatever of the plan is not in `kept`."""
    kept.append("session", session_facts(plan.threads))
    for turn, sections in open_turns(plan, kept):
        began, others = time.perf_counter(), Others()
        for record in _take_turn(work, plan, turn, sections):
            kept.append("cell", record)
        took, cores = time.perf_counter() - began, others.cores()
        if took > NOTHING_DONE_S:
            facts = {"seconds": round(took, 1), "others_cores": round(cores, 3)}
            kept.append("turn", {**dataclasses.asdict(turn), **facts})
            print(f"{_name(turn)}: {took:.1f} s, others took {cores:.2f} cores", flush=True)


def open_turns(plan: Plan, kept: RecordFile) -> Iterator[tuple[Record, list[str]]]:
    """The turns that are left, each with the sections that it lacks."""
    known = {
        _key(record) for record in kept.records() if record.value is not None or not plan.again
    }
    for number in range(plan.rounds):
        for turn in plan.turns(number):
            wanted = [
                name
                for name in sections_of(turn.peer)
                if name in plan.sections and not _done(turn, name, known)
            ]
            if wanted:
                yield turn, wanted


def session_facts(threads: int) -> dict[str, Any]:
    """Machine card, measured memory bandwidth, versions and command."""
    return {
        "machine": machine_card(),
        "memory_bytes_per_s": memory_bandwidth(threads),
        "versions": versions(),
        "threads": threads,
        "command": "python -m benchmarks.race " + " ".join(sys.argv[1:]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def memory_bandwidth(threads: int) -> list[float]:
    """Bytes/s that `threads` read from memory, several samples, in a process of its own."""
    job = json.dumps({"threads": threads, "bytes": 1 << 26})
    found = subprocess.run(
        [sys.executable, "-m", "edgeprefix.bench.memory_bandwidth", job],
        check=True, capture_output=True, text=True, env={**os.environ, **SINGLE_BLAS_THREAD},
    )  # fmt: skip
    return [round(sample) for sample in json.loads(found.stdout)["memory"]]


def _take_turn(work: Path, plan: Plan, turn: Record, sections: list[str]) -> Iterator[Record]:
    reason = CONTENDERS[turn.peer].reason_against(turn.model, turn.precision)
    folder = model_of(work, turn.peer, turn.model, turn.precision)
    if reason is None and not folder.is_dir():
        reason = "its model was not converted"
    if reason is not None:
        yield from (
            turn.of(cell, reason=reason) for section in sections for cell in SECTIONS[section]
        )
        return
    log = work / "logs" / f"{turn.peer}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with Worker(python_of(work, turn.peer), turn.peer, threads=plan.threads, log=log) as worker:
        measuring = Turn(worker, turn.model, str(folder), turn.precision, threads=plan.threads)
        for section in sections:
            yield from measuring.measure(section, turn)


def _name(turn: Record) -> str:
    return f"round {turn.round + 1}, {turn.model} {turn.precision}, {turn.peer}"


def _done(turn: Record, section: str, known: set[tuple[object, ...]]) -> bool:
    return all(_key(turn.of(cell)) in known for cell in SECTIONS[section])


def _key(record: Record) -> tuple[object, ...]:
    return (record.round, record.peer, record.model, record.precision, record.cell)


def _rotated(peers: tuple[str, ...], number: int) -> tuple[str, ...]:
    start = number % len(peers)
    return peers[start:] + peers[:start]
