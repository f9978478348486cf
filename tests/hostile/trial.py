"""Feeds hostile files to the readers that users' files go through, and counts what came of it.

    python tests/hostile/trial.py --prefix-files 10000 --manifests 2000 --tokenizers 2000

Every file has to be refused with an error of ours, quickly and within bounded memory; honest files
of the same generators have to be accepted, or the trial shows nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from manifests import honest_manifest, hostile_manifest
from prefix_files import honest_prefix_file, hostile_prefix_file, swelling_prefix_file
from tokenizer_files import honest_tokenizers, hostile_tokenizer

from edgeprefix.runtime.contracts.manifest import MANIFEST_FILE, Manifest
from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.contracts.tokenizer import TextTokenizer
from edgeprefix.runtime.errors import BundleError, FileFormatError, PrefixFileError
from edgeprefix.runtime.version import __version__

MOST_SECONDS = 5.0
MOST_BYTES = 512 << 20


@dataclass
class Outcome:
    """Of one kind of file."""

    files: int = 0
    refused: int = 0
    accepted: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    """Exceptions that are not ours."""
    ways: dict[str, int] = field(default_factory=dict)
    """How often each kind of damage was done."""
    slowest_s: float = 0.0
    grown_bytes: int = 0
    """How far the process' peak memory rose."""

    @property
    def passed(self) -> bool:
        """Whether nothing was accepted, nothing foreign was raised, nothing hung or swelled."""
        clean = self.refused == self.files and not self.accepted and not self.foreign
        return clean and self.slowest_s < MOST_SECONDS and self.grown_bytes < MOST_BYTES


def feed(
    make: Callable[[int], tuple[str, bytes]],
    read: Callable[[Path], object],
    refusal: type[FileFormatError],
    *,
    path: Path,
    count: int,
) -> Outcome:
    """Writes each file to `path` and reads it from there."""
    outcome, ways = Outcome(files=count), Counter[str]()
    before = _new_peak()
    for seed in range(count):
        way, data = make(seed)
        ways[way] += 1
        path.write_bytes(data)
        started = time.process_time()  # a busy machine is no hang
        try:
            read(path)
            outcome.accepted.append(f"seed {seed}: {way}")
        except refusal:
            outcome.refused += 1
        except BaseException as error:  # a panic of a Rust library is no Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            outcome.foreign.append(f"seed {seed}: {way}: {type(error).__name__}: {error}"[:200])
        outcome.slowest_s = max(outcome.slowest_s, time.process_time() - started)
    outcome.ways = dict(sorted(ways.items()))
    outcome.grown_bytes = _peak_bytes() - before
    return outcome


def trial(
    *, prefix_files: int, manifests: int, tokenizers: int, swelling: int = 6
) -> dict[str, Outcome]:
    """All three kinds. Raises when an honest file is refused."""
    with TemporaryDirectory() as folder:
        place = Path(folder)
        for seed in range(8):
            Prefix.from_bytes(honest_prefix_file(seed))
        (place / MANIFEST_FILE).write_text(json.dumps(honest_manifest()))
        Manifest.load(place)
        for data in honest_tokenizers():
            (place / "tokenizer.json").write_text(json.dumps(data))
            _tokenizer(place / "tokenizer.json")
        return {
            "prefix files": feed(
                hostile_prefix_file, Prefix.load, PrefixFileError,
                path=place / "t.safetensors", count=prefix_files,
            ),
            "swelling headers": feed(
                swelling_prefix_file, Prefix.load, PrefixFileError,
                path=place / "t.safetensors", count=swelling,
            ),
            "manifests": feed(
                hostile_manifest, lambda path: Manifest.load(path.parent), BundleError,
                path=place / MANIFEST_FILE, count=manifests,
            ),
            "tokenizers": feed(
                hostile_tokenizer, _tokenizer, BundleError,
                path=place / "tokenizer.json", count=tokenizers,
            ),
        }  # fmt: skip


def _tokenizer(path: Path) -> TextTokenizer:
    return TextTokenizer.from_file(path, end_ids=(0,))


def _new_peak() -> int:
    """Forgets the process' peak memory (of its imports); returns what it has now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak_bytes()


def _peak_bytes() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "this trial needs Linux"
    return int(found[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prefix-files", type=int, default=10_000)
    parser.add_argument("--manifests", type=int, default=2_000)
    parser.add_argument("--tokenizers", type=int, default=2_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    started = time.perf_counter()
    found = trial(
        prefix_files=arguments.prefix_files,
        manifests=arguments.manifests,
        tokenizers=arguments.tokenizers,
    )
    for name, outcome in found.items():
        sys.stdout.write(
            f"{name}: {outcome.refused} of {outcome.files} refused in {len(outcome.ways)} ways, "
            f"{len(outcome.accepted)} accepted, {len(outcome.foreign)} foreign exceptions, slowest "
            f"{outcome.slowest_s * 1000:.0f} ms, peak memory + {outcome.grown_bytes >> 20} MiB\n"
        )
        sys.stdout.writelines(f"  {line}\n" for line in outcome.accepted + outcome.foreign)
    passed = all(outcome.passed for outcome in found.values())
    report = {
        "passed": passed,
        "seconds": round(time.perf_counter() - started, 1),
        "kinds": {
            name: asdict(outcome) | {"passed": outcome.passed} for name, outcome in found.items()
        },
        "versions": {"edgeprefix": __version__, "python": platform.python_version()},
        "machine": platform.platform(),
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
    }
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    sys.exit(not passed)


if __name__ == "__main__":
    main()
