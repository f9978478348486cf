"""What report.json says, put together from what the stages found."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgeprefix.bench.machine_card import RUNTIME_PACKAGES, machine_card, versions
from edgeprefix.demo.measuring import samples, score
from edgeprefix.demo.tasks import DemoRow, DemoTask
from edgeprefix.demo.training import read_curves
from edgeprefix.export import ParityReport
from edgeprefix.train import FrozenModel, TrainResult

_SHOWN_MIXED = 9
_PACKAGES = (*RUNTIME_PACKAGES, "torch", "transformers", "onnx", "sacrebleu")


@dataclass(frozen=True, kw_only=True)
class TaskFindings:
    """One task after training and export."""

    task: DemoTask
    test_rows: Sequence[DemoRow]
    training: TrainResult
    prefix_file: Path


@dataclass(frozen=True, kw_only=True)
class BundleFindings:
    """One precision after export, verification and measuring."""

    bytes: int
    parity: Sequence[ParityReport]
    measured: Mapping[str, Any]

    @property
    def max_difference(self) -> float:
        """Largest difference of a logit to torch, over all trained prefixes."""
        return max(report.max_abs for report in self.parity)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that a run found."""

    base: FrozenModel
    base_name: str
    base_source: str
    tasks: Sequence[TaskFindings]
    bundles: Mapping[str, BundleFindings]
    """By precision; the first is the one of the headline numbers."""
    seconds: Mapping[str, float]
    sample_count: int
    seed: int
    quick: bool


def build_report(findings: Findings, *, out: Path) -> dict[str, Any]:
    """The value of report.json. `out` is the folder that the user asked for: commands name files in
    it.
    """
    precision, main = next(iter(findings.bundles.items()))
    measured, latency = main.measured, main.measured["latency"]
    return {
        "tasks": [_task(found, findings) for found in findings.tasks],
        "swap_ms": measured["swap_ms"],
        "load_ms": measured["load_ms"],
        "decode_tokens_per_s": latency["decode_tokens_per_s"],
        "first_token_ms": latency["first_token_ms"]["p50"],
        "token_ms": latency["token_ms"],
        "engine_load_ms": measured["engine_load_ms"],
        "latency": _latency_facts(main, findings),
        "mixed_equals_alone": all(row["equal"] for row in _mixed_rows(findings)),
        "mixed": _mixed(findings),
        "max_difference_to_torch": main.max_difference,
        "torch_in_measuring_process": any(
            bundle.measured["torch_loaded"] for bundle in findings.bundles.values()
        ),
        "precision": precision,
        "precisions": {name: _precision(bundle) for name, bundle in findings.bundles.items()},
        "base": {
            "name": findings.base_name,
            "source": findings.base_source,
            "parameters": findings.base.parameters,
            "sha256": findings.base.identity.sha256,
        },
        "seconds": dict(findings.seconds),
        "machine": machine_card(),
        "versions": versions(_PACKAGES),
        "created": datetime.now(UTC).strftime("%-d %B %Y, %H:%M UTC"),
        "seed": findings.seed,
        "quick": findings.quick,
        "commands": _commands(findings, out),
    }


def _task(found: TaskFindings, findings: Findings) -> dict[str, Any]:
    main = next(iter(findings.bundles.values())).measured["answers"][found.task.name]
    training, validation = read_curves(found.training.run)
    plan = found.training.plan
    return {
        "name": found.task.name,
        "title": found.task.title,
        "metric": found.task.metric,
        "base": score(found.task, main["base"], found.test_rows),
        "prefix": score(found.task, main["prefix"], found.test_rows),
        "prefix_bytes": found.prefix_file.stat().st_size,
        "prefix_length": plan.length,
        "test_rows": len(found.test_rows),
        "by_precision": {
            name: {
                "prefix": score(
                    found.task,
                    bundle.measured["answers"][found.task.name]["prefix"],
                    found.test_rows,
                )
            }
            for name, bundle in findings.bundles.items()
        },
        "training": {
            "rows": found.training.report.train_rows,
            "steps": found.training.steps,
            "best_step": found.training.best_step,
            "batch_size": plan.batch_size,
            "lr": plan.lr,
            "seconds": found.training.seconds,
            "tokens_per_s": found.training.tokens_per_s,
            "validation_loss": found.training.validation_loss,
            "base_validation_loss": found.training.base_validation_loss,
            "curve": training,
            "validation": validation,
        },
        "samples": samples(main, found.test_rows, findings.sample_count),
    }


def _precision(bundle: BundleFindings) -> dict[str, Any]:
    latency = bundle.measured["latency"]
    return {
        "bundle_bytes": bundle.bytes,
        "decode_tokens_per_s": latency["decode_tokens_per_s"],
        "first_token_ms": latency["first_token_ms"]["p50"],
        "max_difference_to_torch": bundle.max_difference,
        "kl_to_torch": max(report.kl for report in bundle.parity),
        "top1_agreement": min(report.top1 for report in bundle.parity),
        "mixed_equals_alone": all(row["equal"] for row in bundle.measured["mixed"]),
    }


def _latency_facts(main: BundleFindings, findings: Findings) -> dict[str, Any]:
    latency = main.measured["latency"]
    return {
        "requests": latency["requests"],
        "tokens": latency["tokens"],
        "prompt_tokens": round(latency["prompt_tokens"]),
        "prefix_length": latency["prefix_length"],
        "swaps": main.measured["swaps"],
        "loads": main.measured["loads"],
    }


def _mixed_rows(findings: Findings) -> list[Mapping[str, Any]]:
    return [row for bundle in findings.bundles.values() for row in bundle.measured["mixed"]]


def _mixed(findings: Findings) -> dict[str, Any]:
    rows = _mixed_rows(findings)
    return {
        "requests": len(rows),
        "equal": sum(row["equal"] for row in rows),
        "precisions": list(findings.bundles),
        "rows": rows[:_SHOWN_MIXED],
    }


def _commands(findings: Findings, out: Path) -> list[dict[str, str]]:
    """What to type next, with this run's own files."""
    generating = next(found for found in findings.tasks if not found.task.labels)
    labelling = next(found for found in findings.tasks if found.task.labels)
    bundle = out / "bundles" / list(findings.bundles)[-1]

    def prefix(found: TaskFindings) -> Path:
        return out / "prefixes" / found.prefix_file.name

    def test(found: TaskFindings) -> Path:
        return out / "data" / found.task.name / "test.jsonl"

    def line(*words: object) -> str:
        return shlex.join(["edgeprefix", *map(str, words)])

    example = generating.test_rows[0].input
    steps = (
        (
            "Generate with one task's file",
            line("run", bundle, "--prefix", prefix(generating), "--input", example),
        ),
        (
            "Label rows and count",
            line("score", bundle, "--prefix", prefix(labelling), "--data", test(labelling)),
        ),
        ("See what a task's file holds", line("inspect", prefix(generating))),
        (
            "Compare a bundle with torch",
            line("verify", bundle, "--base", findings.base_source, "--prefix", prefix(generating)),
        ),
        (
            "Train a task of your own",
            line(
                "train",
                "--base",
                findings.base_source,
                "--data",
                "rows.jsonl",
                "--task",
                "mine",
                "--out",
                "run",
            ),
        ),
    )
    return [{"what": what, "command": command} for what, command in steps]
