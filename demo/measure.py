"""The measuring process: `python -m edgeprefix.demo.measure JOB.json OUT.json`.

It loads bundles and prefix files as any user of the runtime would, and no torch: the result says
whether it was there. It writes texts and labels, not BLEU, which is the parent's work. Progress
goes to stdout, a JSON line {"done", "words"} a time.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprefix.bench.swaps import SwapMeter
from edgeprefix.demo.latency import measure_latency, summary
from edgeprefix.runtime import Engine, Request

_MAX_BATCH = 8
_MAX_LENGTH = 512

Tell = Callable[[float, str], None]


@dataclass(frozen=True, kw_only=True)
class TaskJob:
    """A task as the measuring process needs it."""

    name: str
    prompt: str
    prefix: str
    """Path of the prefix file."""
    inputs: tuple[str, ...]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be measured."""

    bundle: str
    """Path of the bundle."""
    tasks: tuple[TaskJob, ...]
    base_alone: bool
    """Whether the base is measured without prefixes too."""
    mixed: int
    latency: int
    swaps: int
    loads: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Job:
        """Reads `to_json`'s form."""
        tasks = tuple(
            TaskJob(**task | {"inputs": tuple(task["inputs"]), "labels": tuple(task["labels"])})
            for task in data["tasks"]
        )
        return cls(**data | {"tasks": tasks})


def measure(job: Job, tell: Tell) -> dict[str, Any]:
    """Everything about one bundle, as plain values."""
    began = time.perf_counter()
    with Engine.load(job.bundle, max_batch=_MAX_BATCH, max_length=_MAX_LENGTH) as engine:
        engine_load_ms = 1000 * (time.perf_counter() - began)
        for task in job.tasks:
            engine.load_prefix(task.prefix, name=task.name)
        tell(0.05, "latency")
        requests = list(_turns(job.tasks, job.latency))
        latency = measure_latency(engine, requests)
        tell(0.2, "mixed batch")
        mixed = _mixed(engine, list(_turns(job.tasks, job.mixed)))
        answers = _answers(engine, job, tell)
    tell(0.95, "swaps")
    meter = SwapMeter(job.bundle, [task.prefix for task in job.tasks])
    load, swap = meter.load_ms(job.loads), meter.swap_ms(job.swaps)
    return {
        "engine_load_ms": engine_load_ms,
        "swap_ms": summary(swap),
        "load_ms": summary(load),
        "swaps": len(swap),
        "loads": len(load),
        "latency": latency,
        "mixed": mixed,
        "answers": answers,
        "torch_loaded": "torch" in sys.modules,
    }


def _answers(engine: Engine, job: Job, tell: Tell) -> dict[str, dict[str, list[str]]]:
    """By task: texts or labels for every input, with the prefix and, if wanted, of the base
    alone.
    """
    answers: dict[str, dict[str, list[str]]] = {task.name: {} for task in job.tasks}
    turns = [
        (task, kind)
        for task in job.tasks
        for kind in (("prefix", "base") if job.base_alone else ("prefix",))
    ]
    for index, (task, kind) in enumerate(turns):
        words = f"{task.name}, base alone" if kind == "base" else f"{task.name} with its prefix"
        tell(0.25 + 0.7 * index / len(turns), words)
        answers[task.name][kind] = _answer(engine, task, task.name if kind == "prefix" else None)
    return answers


def _answer(engine: Engine, task: TaskJob, prefix: str | None) -> list[str]:
    """Without a prefix the same prompt template, length limit and labels are used: only keys and
    values are missing.
    """
    if task.labels:
        return [
            engine.score(text, task.labels, task=prefix, template=task.prompt).best
            for text in task.inputs
        ]
    limit = next(
        info for info in engine.tasks() if info.name == task.name
    ).pack.generation.max_new_tokens
    requests = [
        Request(text, task=prefix, template=task.prompt, max_new_tokens=limit, temperature=0.0)
        for text in task.inputs
    ]
    return [completion.text.strip() for completion in engine.generate_many(requests)]


def _turns(tasks: tuple[TaskJob, ...], count: int) -> Iterator[tuple[str, str]]:
    """(task, input) pairs, the tasks taking turns."""
    for index in range(count):
        task = tasks[index % len(tasks)]
        yield task.name, task.inputs[index // len(tasks) % len(task.inputs)]


def _mixed(engine: Engine, pairs: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Every request in one mixed batch, then each alone; equal when all token ids are."""
    together = engine.generate_many(
        Request(text, task=task, temperature=0.0) for task, text in pairs
    )
    rows = []
    for (task, text), completion in zip(pairs, together, strict=True):
        alone = engine.generate(text, task=task, temperature=0.0)
        equal = alone.tokens == completion.tokens
        rows.append({"task": task, "input": text, "text": completion.text.strip(), "equal": equal})
    return rows


def main(arguments: list[str]) -> None:
    """Reads the job, measures, writes the result."""
    job_file, result_file = map(Path, arguments)
    job = Job.from_json(json.loads(job_file.read_text(encoding="utf-8")))

    def tell(done: float, words: str) -> None:
        sys.stdout.write(json.dumps({"done": done, "words": words}) + "\n")
        sys.stdout.flush()

    result = measure(job, tell)
    result_file.write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
