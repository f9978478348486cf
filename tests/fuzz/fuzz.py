"""Fuzzes the readers until each has had its time, in rounds that add up over many runs.

    make fuzz SECONDS=3600 RESULT=benchmarks/results/fuzz-DATE.json
    python tests/fuzz/fuzz.py manifest rows --seconds 600

Seconds are those of the processor, so that a busy machine does not count as work. After each round
the corpus of the target (build/fuzz/TARGET) is reduced to the inputs that reach something of their
own, and the counts go to the result file; the next run goes on from there. What breaks a promise is
left in build/fuzz, ends its target's turn, and makes the exit status 1: mend it, copy the input to
tests/fuzz/corpus, run again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FOUND = Path("build/fuzz")
CORPUS = HERE / "corpus"
NAMES = tuple(sorted(folder.name for folder in CORPUS.iterdir()))
ROUND_SECONDS = 300
NOTHING: dict[str, Any] = {"cpu_seconds": 0.0, "executions": 0, "rounds": 0, "crashes": []}


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the scratch folder goes
    result = Result(options.result or FOUND / "result.json")
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="edgeprefix-fuzz-", dir=memory) as scratch:
        broken = fuzz_in_turn(options.targets or NAMES, options.seconds, result, Path(scratch))
    print(f"{', '.join(broken) or 'nothing'} broke its promise; {result.path}")
    return 1 if broken else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)}")
    parser.add_argument(
        "--seconds",
        type=float,
        default=60,
        help="processor time of each target in all, of all runs",
    )
    parser.add_argument("--result", type=Path, help="the counts so far, JSON; goes on from them")
    options = parser.parse_args()
    if unknown := set(options.targets) - {*NAMES}:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return options


class Result:
    """The counts of all runs, written after every round."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.targets: dict[str, dict[str, Any]] = {}
        if path.exists():
            self.targets = json.loads(path.read_text())["targets"]

    def of(self, name: str) -> dict[str, Any]:
        return self.targets.setdefault(name, {**NOTHING, "crashes": []})

    def save(self) -> None:
        report = {
            "command": "make fuzz SECONDS=… RESULT=…",
            "targets": dict(sorted(self.targets.items())),
            "versions": {"atheris": version("atheris"), "python": platform.python_version()},
            "machine": platform.platform(),
            "commit": subprocess.run(
                ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
            ).stdout.strip(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(self.path.name + ".tmp")
        beside.write_text(json.dumps(report, indent=2) + "\n")
        beside.replace(self.path)


def fuzz_in_turn(names: Sequence[str], seconds: float, result: Result, scratch: Path) -> list[str]:
    """A round of each target, until all have had their seconds. Returns those that broke a
    promise, which get no further round.
    """
    waiting, broken = list(names), []
    while waiting:
        name = waiting.pop(0)
        if (left := seconds - result.of(name)["cpu_seconds"]) < 1:
            continue
        if fuzz(name, min(ROUND_SECONDS, round(left)), result, scratch):
            waiting.append(name)
        else:
            broken.append(name)
    return broken


def fuzz(name: str, seconds: int, result: Result, scratch: Path) -> bool:
    """One round. False when the target broke a promise."""
    facts = result.of(name)
    status, said, spent = fuzz_once(name, seconds, scratch)
    facts["cpu_seconds"] = round(facts["cpu_seconds"] + spent, 1)
    facts["executions"] += counted(r"stat::number_of_executed_units:\s*(\d+)", said)
    facts["features"] = counted(r"\bft: (\d+)", said)
    facts["rounds"] += 1
    if status == 0:
        facts |= reduce_corpus(name, scratch)
    else:
        facts["crashes"].append(crash(said))
        print(said[-4000:], file=sys.stderr)
    result.save()
    sizes = f"{facts['features']} features, {facts.get('inputs', 0)} inputs"
    print(f"{name}: {facts['cpu_seconds']:.0f} s, {facts['executions']} executions, {sizes}")
    return status == 0


def fuzz_once(name: str, seconds: int, scratch: Path) -> tuple[int, str, float]:
    """One process of so many seconds: its exit status, what it said, and its processor time."""
    grown = FOUND / name
    grown.mkdir(parents=True, exist_ok=True)
    words = scratch / "words.txt"
    words.write_text(dictionary(name))
    return harness(
        name,
        [
            str(grown),  # new inputs go to the first folder
            str(CORPUS / name),
            f"-max_total_time={seconds}",
            f"-artifact_prefix={FOUND}/{name}-",
            f"-dict={words}",
            "-max_len=4096",
            "-timeout=600",  # of the clock; harness.py has the limit that counts
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
        ],
        scratch,
    )


def harness(name: str, args: Sequence[str], scratch: Path) -> tuple[int, str, float]:
    """Runs harness.py with its temporary files in a folder that the parent removes: libFuzzer ends
    its process without a word to Python.
    """
    place = scratch / "place"
    place.mkdir(exist_ok=True)
    before = os.times()
    done = subprocess.run(
        [sys.executable, str(HERE / "harness.py"), name, *args],
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "TMPDIR": str(place)},
        check=False,
    )
    after = os.times()
    shutil.rmtree(place)
    spent = after.children_user + after.children_system
    return done.returncode, done.stdout, spent - before.children_user - before.children_system


def reduce_corpus(name: str, scratch: Path) -> dict[str, int]:
    """Keeps the fewest, smallest inputs that reach all that the corpus reaches."""
    grown, fewer = FOUND / name, scratch / "fewer"
    fewer.mkdir()
    status, said, _ = harness(
        name, ["-merge=1", str(fewer), str(CORPUS / name), str(grown)], scratch
    )
    assert status == 0, said[-4000:]
    assert any(fewer.iterdir()), f"a merge that keeps nothing: {said[-4000:]}"
    shutil.rmtree(grown)
    shutil.move(fewer, grown)
    sizes = [path.stat().st_size for path in grown.iterdir()]
    return {"inputs": len(sizes), "bytes": sum(sizes)}


def dictionary(name: str) -> str:
    """Words of the corpus that are worth trying elsewhere, as libFuzzer reads them."""
    found = {
        word
        for path in (CORPUS / name).iterdir()
        for word in re.findall(rb"[A-Za-z_]{3,24}", path.read_bytes())
    }
    return "".join(f'"{word.decode()}"\n' for word in sorted(found))


def counted(pattern: str, text: str) -> int:
    """The last number of this form; 0 when there is none."""
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def crash(said: str) -> dict[str, str]:
    """What a broken promise looked like, and the file that shows it."""
    file = re.findall(r"Test unit written to (\S+)", said)
    error = re.findall(r"^(\w*(?:Error|Exception)\b.*)$", said, re.MULTILINE)
    return {
        "file": file[-1] if file else "",
        "error": (error[-1] if error else said.strip().splitlines()[-1])[:200],
    }


if __name__ == "__main__":
    sys.exit(main())
