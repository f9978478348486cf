"""`python -m benchmarks.race build|convert|run|table|plot`; see `docs/race.md`."""

from __future__ import annotations

from benchmarks.race.cli import main

if __name__ == "__main__":
    main()
