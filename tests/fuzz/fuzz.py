"""Fuzzes one reader, or all of them, with atheris (libFuzzer): `make fuzz SECONDS=60`.

    python tests/fuzz/fuzz.py TARGET SECONDS     one, in this process
    python tests/fuzz/fuzz.py all SECONDS        each for so many seconds, one after the other

What breaks a promise is left in build/fuzz, and the exit status is 1. New inputs that reach further
stay in build/fuzz/TARGET; a few of them, small ones, may be copied to tests/fuzz/corpus.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import atheris

OURS = ["edgeprefix.runtime.contracts", "edgeprefix.runtime.tasks"]
with atheris.instrument_imports(include=[*OURS, "json", "csv", "jinja2"]):
    import jinja2.sandbox  # noqa: F401  # the runtime imports it when it is asked for

    sys.path.append(str(Path(__file__).parents[1] / "hostile"))
    from targets import TARGETS

FOUND = Path("build/fuzz")
CORPUS = Path(__file__).parent / "corpus"


def fuzz(target: str, seconds: int) -> None:
    """Never returns: libFuzzer ends the process."""
    grown = FOUND / target
    grown.mkdir(parents=True, exist_ok=True)
    atheris.Setup(
        [
            sys.argv[0],
            str(grown),  # new inputs go to the first folder
            str(CORPUS / target),
            f"-max_total_time={seconds}",
            f"-artifact_prefix={FOUND}/{target}-",
            "-max_len=4096",
            "-timeout=20",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
        ],
        TARGETS[target],
    )
    atheris.Fuzz()


def main() -> None:
    target, seconds = sys.argv[1], int(sys.argv[2])
    if target != "all":
        fuzz(target, seconds)
    failed = [
        name
        for name in TARGETS
        if subprocess.run([sys.executable, __file__, name, str(seconds)], check=False).returncode
    ]
    sys.stdout.write(f"{len(TARGETS) - len(failed)} of {len(TARGETS)} targets held\n")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
