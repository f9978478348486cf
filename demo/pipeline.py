"""The whole pipeline: rows → three prefixes → bundles and prefix files → measured without torch →
report.

Everything is written beside the target folder, which takes its place when the last stage has ended:
an interrupted demo leaves nothing behind and an older report as it was.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprefix.demo.exporting import PRECISIONS, compare_with_torch, write_bundle, write_prefixes
from edgeprefix.demo.measure import Job, TaskJob
from edgeprefix.demo.measuring import run_measuring
from edgeprefix.demo.page import render
from edgeprefix.demo.recipes import Programme, programme_for
from edgeprefix.demo.report import BundleFindings, Findings, TaskFindings, build_report
from edgeprefix.demo.stages import Stages, Watch, unwatched
from edgeprefix.demo.tasks import TASKS, DemoRow, DemoTask, Part, make_rows, write_rows
from edgeprefix.demo.training import train_task
from edgeprefix.runtime.contracts.files import atomic_folder
from edgeprefix.runtime.contracts.manifest import bundle_files
from edgeprefix.runtime.errors import CheckpointError
from edgeprefix.train import FrozenModel, TrainResult, load_base

EMBEDDED_BASE = Path(__file__).parent / "base"

Rows = dict[str, dict[Part, list[DemoRow]]]
"""Rows by task and part."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What the user chose."""

    out: Path
    base: str | None = None
    """A folder or hub id; None is the embedded base."""
    seed: int = 0
    quick: bool = False
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What every stage of one run needs."""

    options: DemoOptions
    source: str
    """Where the base comes from."""
    folder: Path
    """The folder that is being built."""
    stages: Stages
    programme: Programme
    rows: Rows


def run_demo(options: DemoOptions, *, watch: Watch = unwatched) -> dict[str, Any]:
    """Runs all stages and writes `options.out`; gives report.json's value.

    Raises what training, export and runtime raise, and OutputError when the folder exists or cannot
    be written.
    """
    source, stages = _base_source(options), Stages(watch)
    with atomic_folder(options.out, ours=demo_files, force=options.force) as folder:
        with stages.stage("load base"):
            base = load_base(source)
        programme = programme_for(base.parameters, quick=options.quick)
        run = _Run(
            options=options,
            source=source,
            folder=folder,
            stages=stages,
            programme=programme,
            rows=_write_rows(folder, programme, stages, seed=options.seed),
        )
        trained = {task.name: _train(run, base, task) for task in TASKS}
        with stages.stage("export prefixes"):
            prefixes = write_prefixes(folder / "runs", folder / "prefixes", list(trained), source)
        bundles = {precision: _bundle(run, precision, prefixes) for precision in PRECISIONS}
        report = build_report(_findings(run, base, trained, prefixes, bundles), out=options.out)
        (folder / "report.json").write_text(
            json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        (folder / "report.html").write_text(render(report), encoding="utf-8")
    return report


def demo_files(folder: Path) -> set[str]:
    """What an earlier demo wrote to a folder; empty when it is none of a demo's."""
    if not (folder / "report.json").is_file():
        return set()
    tasks = {name for task in TASKS for name in (f"runs/{task.name}/", f"data/{task.name}/")}
    prefixes = {f"prefixes/{task.name}.safetensors" for task in TASKS}
    bundles = {
        f"bundles/{precision}/{name}"
        for precision in PRECISIONS
        for name in bundle_files(folder / "bundles" / precision)
    }
    return {"report.json", "report.html", *tasks, *prefixes, *bundles}


def _base_source(options: DemoOptions) -> str:
    if options.base is not None:
        return options.base
    if not (EMBEDDED_BASE / "config.json").is_file():
        raise CheckpointError(
            f"the embedded base is missing in {EMBEDDED_BASE}; install edgeprefix again, or give "
            "--base"
        )
    return str(EMBEDDED_BASE)


def _base_name(options: DemoOptions) -> str:
    """What to call the base: a folder's own name, or the hub id."""
    if options.base is None:
        return "the embedded base"
    return Path(options.base).resolve().name if Path(options.base).is_dir() else options.base


def _write_rows(folder: Path, programme: Programme, stages: Stages, *, seed: int) -> Rows:
    written: Rows = {}
    with stages.stage("write rows") as advance:
        for index, task in enumerate(TASKS):
            advance(index / len(TASKS), task.name)
            written[task.name] = make_rows(task, programme.recipes[task.name].rows, seed=seed)
            for part, rows in written[task.name].items():
                write_rows(folder / "data" / task.name / f"{part}.jsonl", rows)
    return written


def _train(run: _Run, base: FrozenModel, task: DemoTask) -> TrainResult:
    with run.stages.stage(f"train {task.name}") as advance:
        return train_task(
            base,
            task,
            run.programme.recipes[task.name],
            data=run.folder / "data" / task.name,
            run=run.folder / "runs" / task.name,
            seed=run.options.seed,
            advance=advance,
        )


def _bundle(run: _Run, precision: str, prefixes: dict[str, Path]) -> BundleFindings:
    """Exports, verifies and measures one precision; the base alone is measured with the
    first only.
    """
    bundle = run.folder / "bundles" / precision
    with run.stages.stage(f"export {precision}") as advance:
        size = write_bundle(run.source, bundle, precision=precision, advance=advance)
    with run.stages.stage(f"verify {precision}") as advance:
        parity = compare_with_torch(bundle, run.source, list(prefixes.values()), advance)
    job = _job(run, bundle, prefixes, base_alone=precision == PRECISIONS[0])
    with run.stages.stage(f"measure {precision}") as advance:
        measured = run_measuring(job, advance)
    return BundleFindings(bytes=size, parity=parity, measured=measured)


def _job(run: _Run, bundle: Path, prefixes: dict[str, Path], *, base_alone: bool) -> Job:
    amount = run.programme.amounts
    tasks = tuple(
        TaskJob(
            name=task.name,
            prompt=task.prompt,
            prefix=str(prefixes[task.name]),
            inputs=tuple(row.input for row in run.rows[task.name]["test"]),
            labels=task.labels,
        )
        for task in TASKS
    )
    return Job(
        bundle=str(bundle),
        tasks=tasks,
        base_alone=base_alone,
        mixed=amount.mixed,
        latency=amount.latency,
        swaps=amount.swaps,
        loads=amount.loads,
    )


def _findings(
    run: _Run,
    base: FrozenModel,
    trained: dict[str, TrainResult],
    prefixes: dict[str, Path],
    bundles: dict[str, BundleFindings],
) -> Findings:
    tasks = tuple(
        TaskFindings(
            task=task,
            test_rows=run.rows[task.name]["test"],
            training=trained[task.name],
            prefix_file=prefixes[task.name],
        )
        for task in TASKS
    )
    return Findings(
        base=base,
        base_name=_base_name(run.options),
        base_source=run.source,
        tasks=tasks,
        bundles=bundles,
        seconds=run.stages.seconds | {"total": run.stages.total},
        sample_count=run.programme.amounts.samples,
        seed=run.options.seed,
        quick=run.options.quick,
    )
