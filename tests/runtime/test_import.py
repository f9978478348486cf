"""Importing the runtime is quick and says nothing to anybody."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import time
before = time.process_time()
import edgeprefix.runtime
took = time.process_time() - before
import os
print(took, os.environ["ORT_DISABLE_TELEMETRY"])
"""


def test_import_takes_less_than_half_a_second_with_telemetry_off() -> None:
    runs = [
        subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    times, telemetry = zip(*(run.stdout.split() for run in runs), strict=True)
    assert set(telemetry) == {"1"}
    assert min(map(float, times)) < 0.5


def test_a_users_own_choice_of_telemetry_stays() -> None:
    program = "import os\nos.environ['ORT_DISABLE_TELEMETRY'] = '0'\n" + PROGRAM
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.split()[1] == "0"


def test_the_public_names_are_all_there() -> None:
    import edgeprefix.runtime as runtime

    assert sorted(runtime.__all__) == runtime.__all__
    assert all(hasattr(runtime, name) for name in runtime.__all__)
