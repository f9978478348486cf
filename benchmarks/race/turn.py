"""One turn: a peer's process is started, measures the sections that are asked for, and ends."""

from __future__ import annotations

import statistics
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.race.cells import CELLS, PROMPT, ROWS, SECTIONS, SHORT, SMALL, long_capacity
from benchmarks.race.records import Record
from benchmarks.race.shapes import SHAPES
from benchmarks.race.worker import Worker, WorkerError

Measured = dict[str, tuple[list[float], list[list[int]]]]
"""By cell: samples in the cell's unit, and the first tokens that came out."""
SHOWN_TOKENS = 8


class Turn:
    """Measures over one worker. Prompts are the same for every peer of a round, and never repeat
    within it.
    """

    def __init__(
        self, worker: Worker, model: str, folder: str, precision: str, *, threads: int
    ) -> None:
        self._worker, self._shape = worker, SHAPES[model]
        self._job = {"model": folder, "precision": precision, "threads": threads}
        self._random = np.random.default_rng()
        self._sections: dict[str, Callable[[], Measured]] = {
            "short": self._short,
            "long": self._long,
            "batch": self._batch,
            "compiled": self._compiled,
        }

    def measure(self, section: str, base: Record) -> Iterator[Record]:
        """One record for each cell of the section; a failure is a record with its reason."""
        self._random = np.random.default_rng(
            zlib.crc32(f"{base.model} {base.round} {section}".encode())
        )
        try:
            measured = self._sections[section]()
        except WorkerError as error:
            yield from (base.of(cell, reason=str(error)) for cell in SECTIONS[section])
            return
        for cell, (samples, tokens) in measured.items():
            yield base.of(cell, value=statistics.median(samples), samples=samples, tokens=tokens)

    def _short(self) -> Measured:
        loaded = self._load(1, SMALL)
        self._generate(SHORT, 4)  # warms up
        shape = self._shape
        shortest = [self._generate(SHORT, 1) for _ in range(shape.repeats)]
        runs = [self._generate(PROMPT, shape.new) for _ in range(shape.repeats)]
        peak = self._worker.ask("memory")["peak_bytes"] / 1e6
        return {
            "load": ([loaded], []),
            "first_16": _firsts(shortest),
            "first_128": _firsts(runs),
            "decode_128": _speeds(runs, rows=1),
            "peak": ([peak], []),
        }

    def _long(self) -> Measured:
        self._load(1, long_capacity(self._shape))
        self._generate(SHORT, 2)
        runs = [self._generate(self._shape.long, self._shape.few)]
        return {"first_1024": _firsts(runs), "decode_1024": _speeds(runs, rows=1)}

    def _batch(self) -> Measured:
        self._load(ROWS, SMALL)
        self._generate(SHORT, 2, rows=ROWS)
        runs = [self._generate(PROMPT, self._shape.few, rows=ROWS)]
        return {"batch_first": _firsts(runs), "batch_decode": _speeds(runs, rows=ROWS)}

    def _compiled(self) -> Measured:
        self._load(1, long_capacity(self._shape))
        # A token each
        text = "".join(map(chr, self._random.integers(ord("a"), ord("z") + 1, self._shape.long)))
        prompt = self._ids(SHORT)
        behind = [
            self._worker.ask("compile", text=text, prompt=prompt)
            for _ in range(self._shape.repeats + 1)
        ]
        whole = [self._worker.ask("prompt_text", text=text, prompt=prompt)]
        return {"compiled": _firsts(behind[1:]), "prompted": _firsts(whole)}

    def _load(self, batch: int, capacity: int) -> float:
        return float(
            self._worker.ask("load", **self._job, batch=batch, capacity=capacity)["load_ms"]
        )

    def _generate(self, length: int, new: int, *, rows: int = 1) -> dict[str, Any]:
        answer = self._worker.ask(
            "generate", prompts=[self._ids(length) for _ in range(rows)], new=new
        )
        if len(answer["step_ms"]) != new - 1:
            raise WorkerError(f"{len(answer['step_ms']) + 1} tokens came, {new} were asked for")
        return answer

    def _ids(self, length: int) -> list[int]:
        return [int(one) for one in self._random.integers(1, self._shape.vocabulary, length)]


def _firsts(runs: list[dict[str, Any]]) -> tuple[list[float], list[list[int]]]:
    return [run["first_ms"] for run in runs], [runs[0]["tokens"][-1][:SHOWN_TOKENS]]


def _speeds(runs: list[dict[str, Any]], *, rows: int) -> tuple[list[float], list[list[int]]]:
    """Tokens/s of all rows over a run's steps after the first token."""
    return [1000 * rows / statistics.mean(run["step_ms"]) for run in runs], []


assert {cell for cells in SECTIONS.values() for cell in cells} == set(CELLS)
