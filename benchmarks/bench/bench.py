"""A whole bench: the machine, a first start, a probe, a plan, and then rounds over all cells in
turn.

Rounds go over all cells before any cell has its next one, so that a machine that slows down or gets
company does so to all of them, and whatever ends the bench early (Ctrl-C, the budget) finds the
most important cells measured.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeprefix.bench.budget import Candidate, Plan, make_plan
from edgeprefix.bench.cells import Cell, Setup, positions_of
from edgeprefix.bench.child import Answer, Worker, measure_bandwidth, start_cold
from edgeprefix.bench.collector import Collector
from edgeprefix.bench.company import CompanyWatch, Shares, shares_for
from edgeprefix.bench.costs import Costs
from edgeprefix.bench.spread import Number
from edgeprefix.runtime.decoding.machine import physical_cores
from edgeprefix.runtime.decoding.session import CPU
from edgeprefix.runtime.errors import RequestError

Tell = Callable[[float, str], None]
"""Progress: the share that is done, and what is being measured."""

_LOOK_AROUND_S = 0.3
# Rounds may take this much more than planned before they are cut; the first one twice as much
_OVER = 1.15
_START_PARTS = ("interpreter_ms", "import_ms", "load_ms", "first_token_ms", "total_ms")


@dataclass(kw_only=True)
class Findings:
    """What is known so far; an interrupted bench leaves what it had."""

    collector: Collector = field(default_factory=Collector)
    bandwidth: dict[str, Number] = field(default_factory=dict)
    memory: dict[str, int | None] = field(default_factory=dict)
    first_start_ms: float | None = None
    before: Shares | None = None
    """What others used of the machine before anything began."""
    during: Shares | None = None
    plan: Plan | None = None
    torch_loaded: bool = False
    seconds: float = 0.0
    complete: bool = False


class Bench:
    """Measures the cells of a bundle within a budget. `run` may be interrupted; `findings` holds
    what there is.
    """

    def __init__(
        self,
        setup: Setup,
        cells: Sequence[Cell],
        *,
        rounds: int,
        budget_s: float | None,
        weight_bytes: int,
    ) -> None:
        self._setup, self._cells, self._rounds, self._budget = setup, cells, rounds, budget_s
        self._weight_bytes = weight_bytes
        cold = next(
            (cell for cell in cells if cell.kind == "cold_start"),
            Cell("cold_start", prompt_tokens=1),
        )
        self._prompt = cold.prompt_tokens or 1
        behind = 0 if setup.prefix is None else setup.prefix_positions
        # A start opens no more cache than its one sequence needs: its peak memory is that of the
        # smallest honest use.
        self._start = dataclasses.replace(
            setup, max_length=positions_of(cold, setup.new_tokens, behind)
        )
        self.findings = Findings()

    def run(self, tell: Tell) -> None:
        """Everything. Raises what opening the bundle raises, and RequestError when the budget is
        too short for any cell.
        """
        began, found = time.perf_counter(), self.findings
        found.before = shares_for(_LOOK_AROUND_S)
        company = CompanyWatch()
        try:
            self._all(tell, began)
            found.complete = True
        finally:
            found.seconds = time.perf_counter() - began
            found.during = company.shares()

    def _all(self, tell: Tell, began: float) -> None:
        found = self.findings
        if on_cpu(self._setup.providers):
            tell(0.0, "memory bandwidth")
            self._bandwidth()
        tell(0.02, "first start")
        first = start_cold(self._start, self._prompt)
        found.first_start_ms = first["total_ms"]
        self._note_start(first)
        with Worker(self._setup) as worker:
            tell(0.04, "probe")
            plan = found.plan = self._plan(
                worker.open(), first["total_ms"] / 1000, time.perf_counter() - began
            )
            clock = _Clock(plan, tell)
            self._in_rounds(plan, clock, worker)
            self._note_end(worker.finish())
        for candidate in plan.chosen:
            if candidate.cell.kind == "cold_start":
                self._cold_starts(candidate, plan.rounds, clock)
            elif candidate.cell.kind == "threads":
                self._threads(candidate, plan.rounds, clock)

    def _bandwidth(self) -> None:
        samples = measure_bandwidth(
            self._setup.threads or physical_cores(), max(self._weight_bytes, 1)
        )
        for name in ("memory", "memory_one_thread", "weights"):
            self.findings.bandwidth[name] = Number.of(samples[name])

    def _plan(self, facts: Answer, start_s: float, passed_s: float) -> Plan:
        self.findings.memory["cache"] = facts["cache_bytes"]
        setup = self._setup
        costs = Costs(
            token_s=facts["token_s"],
            step_s=facts["step_s"],
            full_step_s=facts["full_step_s"],
            start_s=start_s,
            max_batch=setup.max_batch,
            new_tokens=setup.new_tokens,
            cores=setup.threads or physical_cores(),
        )
        candidates = costs.candidates(self._cells)
        plan = make_plan(
            candidates, None if self._budget is None else self._budget - passed_s, self._rounds
        )
        if not plan.chosen:
            need = passed_s + min(candidate.seconds(1) for candidate in candidates) * 3
            raise RequestError(
                f"a budget of {self._budget:g} s is too short: {passed_s:.1f} s went by to open "
                "the bundle and look at the "
                f"machine; type --budget {need + 1:.0f}s or more"
            )
        return plan

    def _in_rounds(self, plan: Plan, clock: _Clock, worker: Worker) -> None:
        """Warms every cell once, then measures round by round."""
        mine = [
            candidate
            for candidate in plan.chosen
            if candidate.cell.kind not in ("cold_start", "threads")
        ]
        planned, began = (
            sum(candidate.seconds(plan.rounds) for candidate in mine),
            time.perf_counter(),
        )
        for number in range(plan.rounds + 1):
            patience = planned * _OVER * (1 if number > 1 else 2)
            for candidate in mine:
                if self._budget is not None and time.perf_counter() - began > patience:
                    return
                clock.show(candidate)
                samples = worker.measure(candidate.cell)
                if number:
                    self.findings.collector.add(candidate.cell, samples)

    def _cold_starts(self, candidate: Candidate, rounds: int, clock: _Clock) -> None:
        """Fresh processes one after another; the first start of all has warmed the files."""
        for _ in range(min(rounds, candidate.rounds_most)):
            clock.show(candidate)
            answer = start_cold(self._start, self._prompt)
            samples = {name: [answer[name]] for name in _START_PARTS}
            if answer["memory"]["generate"] is not None:
                samples["peak_bytes"] = [answer["memory"]["generate"]]
            self.findings.collector.add(candidate.cell, samples)
            self._note_start(answer)

    def _threads(self, candidate: Candidate, rounds: int, clock: _Clock) -> None:
        """An engine of so many threads, in a process of its own."""
        setup = dataclasses.replace(self._setup, threads=candidate.cell.threads)
        with Worker(setup) as worker:
            worker.open()
            for number in range(min(rounds, candidate.rounds_most) + 1):
                clock.show(candidate)
                samples = worker.measure(candidate.cell)
                if number:
                    self.findings.collector.add(candidate.cell, samples)
            self._note_end(worker.finish(), memory=False)

    def _note_start(self, answer: dict[str, Any]) -> None:
        memory, found = answer["memory"], self.findings
        for name, key in (("import", "after_import"), ("load", "after_load"), ("generate", "peak")):
            if memory[name] is not None:
                found.memory[key] = max(memory[name], found.memory.get(key) or 0)
        found.torch_loaded = found.torch_loaded or answer["torch_loaded"]

    def _note_end(self, answer: Answer, *, memory: bool = True) -> None:
        if memory:
            self.findings.memory["peak_full_batch"] = answer["peak_bytes"]
        self.findings.torch_loaded = self.findings.torch_loaded or answer["torch_loaded"]


def on_cpu(providers: Sequence[str]) -> bool:
    """Whether the weights lie in main memory: only then its bandwidth bounds decoding."""
    return all(provider == CPU for provider in providers)


class _Clock:
    """Progress in planned seconds."""

    def __init__(self, plan: Plan, tell: Tell) -> None:
        self._plan, self._tell, self._done = plan, tell, 0.0

    def show(self, candidate: Candidate) -> None:
        """A round of a cell begins."""
        self._tell(
            0.06 + 0.94 * min(self._done / max(self._plan.seconds, 1e-9), 1.0), candidate.cell.label
        )
        self._done += candidate.round_s
