"""Importing the runtime brings little with it and says nothing to anybody."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import edgeprefix.runtime
import os, sys
print(os.environ["ORT_DISABLE_TELEMETRY"], *sys.modules)
"""


COSTLY = {
    "asyncio", "ssl", "http.client", "huggingface_hub", "jinja2", "cryptography", "rich", "typer"
}  # fmt: skip
"""Time and memory of processes that never use them; `edgeprefix bench` measures the rest."""


def test_import_brings_nothing_costly_and_turns_telemetry_off() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    telemetry, *modules = run.stdout.split()
    assert telemetry == "1"
    assert not COSTLY.intersection(modules)


def test_a_users_own_choice_of_telemetry_stays() -> None:
    program = "import os\nos.environ['ORT_DISABLE_TELEMETRY'] = '0'\n" + PROGRAM
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.split()[0] == "0"


def test_the_public_names_are_all_there() -> None:
    import edgeprefix.runtime as runtime

    assert sorted(runtime.__all__) == runtime.__all__
    assert all(hasattr(runtime, name) for name in runtime.__all__)
