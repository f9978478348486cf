"""One target under atheris (libFuzzer), with libFuzzer's own arguments; fuzz.py calls it.

    python tests/fuzz/harness.py TARGET [FOLDER …] [-max_total_time=60 …]

libFuzzer ends the process itself, so nothing behind `Fuzz` is run.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import atheris

OURS = ["edgeprefix.runtime.contracts", "edgeprefix.runtime.tasks", "edgeprefix.cli.rows"]
with atheris.instrument_imports(include=[*OURS, "json", "csv", "jinja2"]):
    import jinja2.sandbox  # noqa: F401  # the runtime imports it when it is asked for

    sys.path.append(str(Path(__file__).parents[1] / "hostile"))
    from targets import TARGETS

MOST_SECONDS = 5.0


def quick(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The target, which must not take long. In seconds of this process' own: libFuzzer's limit is
    on the clock, and a busy machine is no hang.
    """

    def run(data: bytes) -> None:
        began = time.process_time()
        target(data)
        took = time.process_time() - began
        assert took < MOST_SECONDS, f"{took:.1f} s"

    return run


def main() -> None:
    name, *arguments = sys.argv[1:]
    # A merge starts processes with this line, which a shell reads.
    command = shlex.join([sys.executable, __file__, name])
    atheris.Setup([command, *arguments], quick(TARGETS[name]))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
