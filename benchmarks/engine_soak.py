"""Ten thousand requests over fifty tasks, with cancels and replacements at random: is every token
right, is memory flat?

    python benchmarks/engine_soak.py BUNDLE --requests 10000 --json
    benchmarks/results/engine_soak-DATE.json

Several threads send requests of random tasks, prompts and lengths; some are cancelled, some are
streamed and left, some score; all the while tasks are replaced by other versions of themselves. A
result must be what the request gives alone on one of the versions of its task. Resident memory is
sampled after every hundredth of the requests; the peak of the last tenth must be within 2 % of the
peak of the second tenth (the first tenth warms up).

In fp32 no result differs. Quantised kernels round an odd row otherwise, and then a token may
differ: `--tolerated` says for what share of the results that is accepted, `--steady` avoids it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgeprefix.runtime import Engine, Prefix, Request
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.prefix_file import PrefixLayer
from edgeprefix.runtime.decoding.machine import resident_bytes
from edgeprefix.runtime.decoding.quiet_ort import ort
from edgeprefix.runtime.errors import RequestCancelled

TASKS, VERSIONS, PROMPTS, SENDERS = 50, 2, 6, 6
LENGTHS = (4, 12, 20)


class Soak:
    """The state that the sending threads share."""

    def __init__(self, bundle: Path, requests: int, threads: int | None, *, steady: bool) -> None:
        self.engine = Engine.load(
            bundle, max_batch=8, max_length=160, threads=threads, chunk_tokens=32, steady=steady
        )
        self.manifest, self.requests, self.steady = self.engine.manifest, requests, steady
        self.files = {
            (task, version): make_prefix(self.manifest, task, version).to_bytes()
            for task in range(TASKS)
            for version in range(VERSIONS)
        }
        self.prompts = [
            np.random.default_rng(seed).integers(3, 500, 5 + 9 * seed).tolist()
            for seed in range(PROMPTS)
        ]
        self.expected: dict[tuple[int, int, int], tuple[int, ...]] = {}
        self.counts = dict.fromkeys(
            ("right", "wrong", "cancelled", "streams_left", "scores", "replaced"), 0
        )
        self.memory: list[int] = []
        self._lock = threading.Lock()
        self._sent = 0

    def prepare(self) -> None:
        """What every (task, version, prompt) gives alone, at the greatest length; shorter ones are
        its beginning.
        """
        for (task, version), data in self.files.items():
            self.engine.load_prefix(data)
            for number, prompt in enumerate(self.prompts):
                completion = self.engine.generate(
                    prompt, task=f"task{task}", max_new_tokens=max(LENGTHS), ignore_end=True
                )
                self.expected[task, version, number] = completion.tokens

    def run(self) -> None:
        threads = [threading.Thread(target=self._send, args=(seed,)) for seed in range(SENDERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.engine.close()

    def _send(self, seed: int) -> None:
        chance = random.Random(seed)
        while self._next():
            task, number, length = (
                chance.randrange(TASKS),
                chance.randrange(PROMPTS),
                chance.choice(LENGTHS),
            )
            fate = chance.random()
            if fate < 0.05:
                self.engine.load_prefix(self.files[task, chance.randrange(VERSIONS)])
                self._count("replaced")
            elif fate < 0.10:
                self._leave_stream(task, number)
            elif fate < 0.15:
                self.engine.score(
                    self.prompts[number],
                    ["a", "b c", "b d"],
                    task=f"task{task}",
                    include_end=False,
                )
                self._count("scores")
            else:
                self._ask(task, number, length, cancel=fate < 0.25)

    def _ask(self, task: int, number: int, length: int, *, cancel: bool) -> None:
        request = Request(
            self.prompts[number], task=f"task{task}", max_new_tokens=length, ignore_end=True
        )
        ticket = self.engine.submit(request)
        if cancel:
            time.sleep(0.0005)
            ticket.cancel()
        try:
            tokens = ticket.result().tokens
        except RequestCancelled:
            self._count("cancelled")
            return
        versions = [self.expected[task, version, number][:length] for version in range(VERSIONS)]
        self._count("right" if tokens in versions else "wrong")

    def _leave_stream(self, task: int, number: int) -> None:
        for _ in self.engine.stream(
            self.prompts[number], task=f"task{task}", max_new_tokens=20, ignore_end=True
        ):
            break
        self._count("streams_left")

    def _next(self) -> bool:
        with self._lock:
            if self._sent >= self.requests:
                return False
            self._sent += 1
            if self._sent % max(1, self.requests // 100) == 0:
                self.memory.append(resident_bytes() or 0)
            return True

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1


def make_prefix(manifest: Manifest, task: int, version: int) -> Prefix:
    random_numbers = np.random.default_rng(1000 * version + task)
    length = 3 + (task + 5 * version) % 17
    layers = [
        PrefixLayer(
            *(
                random_numbers.standard_normal((layer.kv_heads, length, layer.head_size)).astype(
                    np.float32
                )
                for _ in range(2)
            )
        )
        for layer in manifest.layers
    ]
    return Prefix(name=f"task{task}", base=manifest.base, layers=tuple(layers))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--tolerated",
        type=float,
        default=0.0,
        help="share of differing results that rounding may explain",
    )
    parser.add_argument("--steady", action="store_true", help="the engine's option of that name")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    soak = Soak(arguments.bundle, arguments.requests, arguments.threads, steady=arguments.steady)
    soak.prepare()
    started = time.perf_counter()
    soak.run()
    results = report(soak, time.perf_counter() - started, arguments.tolerated)
    print(json.dumps(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if not results["passed"]:
        sys.exit(1)


def report(soak: Soak, seconds: float, tolerated: float) -> dict[str, Any]:
    tenth = max(1, len(soak.memory) // 10)
    second, last = max(soak.memory[tenth : 2 * tenth]), max(soak.memory[-tenth:])
    differing = soak.counts["wrong"] / max(1, soak.counts["right"] + soak.counts["wrong"])
    return {
        "base": soak.manifest.base.name,
        "precision": soak.manifest.precision,
        "steady": soak.steady,
        "requests": soak.requests,
        "tasks": TASKS,
        **soak.counts,
        "seconds": round(seconds, 1),
        "requests_per_s": round(soak.requests / seconds, 1),
        "memory_second_tenth_bytes": second,
        "memory_last_tenth_bytes": last,
        "memory_growth": last / second - 1,
        "differing_share": differing,
        "tolerated_share": tolerated,
        "passed": differing <= tolerated and last <= 1.02 * second,
        "onnxruntime": ort.__version__,
        "cores": os.cpu_count(),
        "load_average": list(os.getloadavg()),
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


if __name__ == "__main__":
    main()
