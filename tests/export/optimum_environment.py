"""Builds the environment in which Optimum can run: `python tests/export/optimum_environment.py
FOLDER`.

Optimum's exporter wants transformers 4.57 and edgeprefix's own wants 5, so both cannot stand in
one. `make test-optimum` calls it.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ("pytest>=8", "pytest-timeout>=2.3")


def pinned_torch() -> str:
    """The torch of constraints.txt, whose CPU build is small. The other pins are for transformers
    5.
    """
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def build(folder: Path) -> Path:
    """Makes the environment, or completes it; gives its python."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    quiet = ("--quiet", "--disable-pip-version-check")
    subprocess.run(
        [
            python,
            "-m",
            "pip",
            "install",
            *quiet,
            pinned_torch(),
            *TESTS,
            "--editable",
            f"{ROOT}[optimum]",
        ],
        check=True,
    )
    return python


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: optimum_environment.py FOLDER")
    sys.stdout.write(f"{build(Path(sys.argv[1]))}\n")
