"""One round of each kind of cell, timed as a caller sees it: through the engine's public calls, on
a loaded bundle.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from edgeprefix.bench.cells import Cell, Setup, slack
from edgeprefix.bench.swaps import SwapMeter
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.prefix_file import Prefix, PrefixLayer
from edgeprefix.runtime.engine import Engine
from edgeprefix.runtime.engine.requests import Request

Samples = dict[str, list[float]]
"""By number: all times of the round, or the one value that it gave."""

POOLED = {("decode", "token_ms"), ("prefix", "swap_ms"), ("prefix", "load_ms")}
"""Numbers of which a round gives many times, all of which count."""
LEAST_ROUND_S = 0.15
"""A round goes on for so long: what takes a millisecond, measured once, would be a lottery."""
# Tokens of the prompt where decoding is measured: the context before it is a prefix, which costs no
# prefill
_SHORT = 8
_SWAPS = 100  # between two loads of every file
_MIXED_TASKS = 8


class Stopwatch:
    """Measures cells over one engine. `measure` takes one round of a cell."""

    def __init__(self, engine: Engine, setup: Setup, folder: Path) -> None:
        self._engine, self._setup, self._folder = engine, setup, folder
        self._task = None if setup.prefix is None else engine.load_prefix(setup.prefix).name
        self._meter: SwapMeter | None = None
        self._mixed: list[str] = []
        self._measures: dict[str, Callable[[Cell], Samples]] = {
            "decode": self._decode,
            "prefill": self._prefill,
            "prefix": self._swaps,
            "mixed": self._mix,
            "instead_of_text": self._instead_of_text,
        }

    def measure(self, cell: Cell) -> Samples:
        """One round of a cell."""
        if cell.kind == "threads":
            return self._threads(cell)
        return self._repeated(cell)

    def _repeated(self, cell: Cell) -> Samples:
        """Back to back until LEAST_ROUND_S have passed; the median of the repetitions counts, or
        all their times.
        """
        began = time.perf_counter()
        found = [self._measures[cell.kind](cell)]
        while time.perf_counter() - began < LEAST_ROUND_S:
            found.append(self._measures[cell.kind](cell))
        merged: Samples = {}
        for name in found[0]:
            times = [time for samples in found for time in samples[name]]
            merged[name] = times if (cell.kind, name) in POOLED else [float(np.median(times))]
        return merged

    def prepare(self, cell: Cell) -> None:
        """Makes the prefixes that a cell needs, so that no round pays for it."""
        if cell.kind == "decode":
            self._context_task(cell.context or 0)
        elif cell.kind == "prefix" and self._meter is None:
            files = [self._prefix_file(f"swap-{number}") for number in range(_MIXED_TASKS)]
            self._meter = SwapMeter(self._setup.bundle, files, providers=self._setup.providers)
        elif cell.kind in ("mixed", "instead_of_text") and not self._mixed:
            for number in range(_MIXED_TASKS):
                self._mixed.append(self._engine.load_prefix(self._prefix(f"mixed-{number}")).name)

    # Kinds ----------------------------------------------------------------------------------------

    def _prefill(self, cell: Cell) -> Samples:
        tokens = cell.prompt_tokens or 1
        took = self._first_token_ms(tokens, self._task)
        return {"first_token_ms": [took], "tokens_per_s": [1000 * tokens / took]}

    def _decode(self, cell: Cell) -> Samples:
        """Rows that all decode at once; the last to join is timed token by token, while the others
        go on beside it.
        """
        context, batch = cell.context or 0, cell.batch or 1
        task = self._context_task(context)
        prompt = self._prompt(min(_SHORT, context))
        steps = self._setup.new_tokens
        rest = Request(prompt, task=task, max_new_tokens=steps + slack(batch), ignore_end=True)
        tickets = [self._engine.submit(rest) for _ in range(batch - 1)]
        stream = self._engine.stream(prompt, task=task, max_new_tokens=steps, ignore_end=True)
        moments = [time.perf_counter() for piece in stream if piece.token is not None]
        for ticket in tickets:
            ticket.wait()
        gaps = [1000 * (after - before) for before, after in pairwise(moments)]
        return {"token_ms": gaps, "tokens_per_s": [batch * len(gaps) / (moments[-1] - moments[0])]}

    def _swaps(self, cell: Cell) -> Samples:
        assert self._meter is not None  # prepared
        return {"swap_ms": self._meter.swap_ms(_SWAPS), "load_ms": self._meter.load_ms(1)}

    def _mix(self, cell: Cell) -> Samples:
        """Rows of as many tasks as there are, then the same rows of one task, prompts included."""
        batch = cell.batch or 1
        mixed = self._batch_rate([self._mixed[row % len(self._mixed)] for row in range(batch)])
        single = self._batch_rate(self._mixed[:1] * batch)
        return {
            "mixed_tokens_per_s": [mixed],
            "single_task_tokens_per_s": [single],
            "mixed_to_single_ratio": [mixed / single],
        }

    def _instead_of_text(self, cell: Cell) -> Samples:
        """A prompt behind a prefix, against the same number of positions as text."""
        tokens = cell.prompt_tokens or 1
        behind = self._first_token_ms(tokens, self._mixed[0])
        text = self._first_token_ms(tokens + (cell.prefix_positions or 0), None)
        return {
            "with_prefix_ms": [behind],
            "as_text_ms": [text],
            "text_to_prefix_ratio": [text / behind],
        }

    def _threads(self, cell: Cell) -> Samples:
        """The three numbers that threads change most, each in rounds of its own."""
        longest = self._setup.max_length - self._setup.new_tokens - slack(cell.batch or 1)
        context = max(1, min(128, longest))
        one = self._repeated(Cell("decode", batch=1, context=context))
        full = self._repeated(Cell("decode", batch=cell.batch, context=context))
        first = self._repeated(Cell("prefill", prompt_tokens=context))
        return {
            "first_token_ms": first["first_token_ms"],
            "tokens_per_s": one["tokens_per_s"],
            "batch_tokens_per_s": full["tokens_per_s"],
        }

    # Parts ----------------------------------------------------------------------------------------

    def _first_token_ms(self, tokens: int, task: str | None) -> float:
        prompt = self._prompt(tokens)
        began = time.perf_counter()
        self._engine.generate(prompt, task=task, max_new_tokens=1, ignore_end=True)
        return 1000 * (time.perf_counter() - began)

    def _batch_rate(self, tasks: list[str]) -> float:
        prompt, steps = self._prompt(_SHORT), self._setup.new_tokens
        requests = [
            Request(prompt, task=task, max_new_tokens=steps, ignore_end=True) for task in tasks
        ]
        began = time.perf_counter()
        self._engine.generate_many(requests)
        return len(tasks) * steps / (time.perf_counter() - began)

    def _prompt(self, tokens: int) -> list[int]:
        return prompt_ids(tokens, self._engine.manifest.vocabulary)

    def _context_task(self, context: int) -> str | None:
        """A prefix that fills a context but for the short prompt; None when the prompt
        alone does.
        """
        name, positions = f"context-{context}", context - _SHORT
        if positions < 1:
            return None
        if name not in {info.name for info in self._engine.tasks()}:
            self._engine.load_prefix(random_prefix(self._engine.manifest, name, positions))
        return name

    def _prefix(self, name: str) -> Prefix:
        """The given prefix under another name, or a generated one."""
        if self._setup.prefix is not None:
            return dataclasses.replace(Prefix.load(self._setup.prefix), name=name)
        return random_prefix(self._engine.manifest, name, self._setup.prefix_positions)

    def _prefix_file(self, name: str) -> Path:
        path = self._folder / f"{name}.safetensors"
        prefix = self._prefix(name)
        (prefix if self._setup.prefix is not None else prefix.with_dtype("fp16")).save(path)
        return path


def prompt_ids(tokens: int, vocabulary: int) -> list[int]:
    """A prompt of so many different ids; what a matrix product costs does not depend on its
    numbers.
    """
    return [2 + number * 7919 % max(vocabulary - 2, 1) for number in range(tokens)]


def random_prefix(manifest: Manifest, name: str, positions: int) -> Prefix:
    """A prefix of `positions` positions of random keys and values for a bundle's base."""
    random = np.random.default_rng(positions)

    def numbers(heads: int, size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return random.standard_normal((heads, positions, size), dtype=np.float32)

    layers = tuple(
        PrefixLayer(
            numbers(layer.kv_heads, layer.head_size), numbers(layer.kv_heads, layer.head_size)
        )
        for layer in manifest.layers
    )
    return Prefix(name=name, base=manifest.base, layers=layers)


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """Where generated prefix files lie while they are measured."""
    return tempfile.TemporaryDirectory(prefix="edgeprefix-bench-")
