"""Kills commands at every operation on their files and at random moments, and fills their disk.

    python tests/faults/kills.py --kills 500 --out benchmarks/results/faults-DATE.json

Half of the kills fall on operations on files, evenly over each command's whole way; half fall at
random moments. The disk is full from each operation on. Takes about half an hour on two cores; the
result counts tries and lists every problem. It is written after each command, and a run with the
same numbers goes on with the commands that are missing or had a problem. Exit code 1 when there is
one.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from faulty import Faulty
from faulty_inputs import make_jobs
from faulty_jobs import Job


def main() -> int:
    options = arguments()
    out: Path | None = options.out
    settings = {"kills": options.kills, "seed": options.seed}
    found = earlier(out, settings)
    with tempfile.TemporaryDirectory(prefix="edgeprefix-faults-") as name:
        folder = Path(name)
        jobs = make_jobs(folder / "inputs")
        each = -(-options.kills // len(jobs))
        with Faulty(folder / "faults") as faulty:
            for job in jobs:
                if options.only in job.name and job.name not in found:
                    found[job.name] = measure(faulty, job, each, options.seed)
                    save(out, settings, found)
    result = summary(settings, found)
    print(json.dumps({key: value for key, value in result.items() if key != "jobs"}))
    return 1 if result["problems"] else 0


def earlier(out: Path | None, settings: dict[str, int]) -> dict[str, Any]:
    """What an earlier run with the same settings found, of the commands without a problem."""
    if out is None or not out.exists():
        return {}
    result = json.loads(out.read_text())
    if result["settings"] != settings:
        raise SystemExit(f"{out} is of a run with {result['settings']}; choose another --out")
    return {name: facts for name, facts in result["jobs"].items() if not facts["problems"]}


def summary(settings: dict[str, int], found: dict[str, Any]) -> dict[str, Any]:
    return {
        "command": "make test-faults RESULT=…",
        "settings": settings,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "kills": sum(facts["kills"] for facts in found.values()),
        "full_disks": sum(facts["full_disks"] for facts in found.values()),
        "problems": sum(len(facts["problems"]) for facts in found.values()),
        "jobs": found,
    }


def save(out: Path | None, settings: dict[str, int], found: dict[str, Any]) -> None:
    if out is not None:
        beside = out.with_name(out.name + ".tmp")
        beside.write_text(json.dumps(summary(settings, found), indent=2) + "\n")
        beside.replace(out)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=500, help="kills in all, over all commands")
    parser.add_argument("--only", default="", help="only jobs with this in their name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file for the result, JSON")
    return parser.parse_args()


def measure(faulty: Faulty, job: Job, kills: int, seed: int) -> dict[str, Any]:
    """All tries of one job."""
    reference, undisturbed = faulty.undisturbed(job)
    again, _ = faulty.undisturbed(job)
    assert again == reference, f"{job.name} does not give the same twice"
    facts: dict[str, Any] = {
        "operations": undisturbed["operations"],
        "seconds": round(undisturbed["seconds"], 2),
        "kills": 0,
        "full_disks": 0,
        "problems": [],
    }
    for how in tries(kills, undisturbed, seed):
        facts["full_disks" if how["mode"] == "full" else "kills"] += 1
        for problem in faulty.try_once(job, reference, **how):
            facts["problems"].append({**how, "problem": problem})
            print(f"{job.name} {how}: {problem}", file=sys.stderr, flush=True)
    print(f"{job.name}: {facts['kills']} kills, {facts['full_disks']} full disks, "
          f"{len(facts['problems'])} problems", file=sys.stderr, flush=True)  # fmt: skip
    return facts


def tries(kills: int, undisturbed: dict[str, Any], seed: int) -> Iterator[dict[str, Any]]:
    """Kills on operations, kills at random moments, full disks."""
    operations = undisturbed["operations"]
    chosen = random.Random(seed)
    half = min(operations, kills - kills // 2)
    for at in spread(operations, half):
        yield {"mode": "kill", "at": at}
    for _ in range(kills - half):
        yield {"mode": "count", "after_s": chosen.uniform(0, undisturbed["seconds"])}
    for at in spread(operations, 40):
        yield {"mode": "full", "at": at}


def spread(operations: int, most: int) -> list[int]:
    """At most so many of the operations 1 … n, the first and the last in."""
    if operations <= most:
        return list(range(1, operations + 1))
    return sorted({1 + round(index * (operations - 1) / (most - 1)) for index in range(most)})


if __name__ == "__main__":
    sys.exit(main())
