"""A process that has imported everything and forks a child for each command, so that hundreds of
commands take seconds each instead of the time of their imports.

It reads a JSON object a line and answers with one: `{"args", "stdout", "mode", "at", "root",
"after_s"}` → `{"rc", "seconds", "operations"}`. `rc` is negative for the signal that ended the
child. fault.c is loaded into it with LD_PRELOAD; `mode` "kill" or "full" arms it at operation `at`
below the folder `root`, `after_s` kills at that time instead.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

# Seconds of a command that nobody kills: far beyond what a busy machine needs, so that only a hang
# reaches it. The child then has ended with SIGKILL, and nothing in its output.
LONGEST_S = 1800.0
MODES = {"off": 0, "count": 1, "kill": 2, "full": 3}


def main() -> None:
    import_everything()
    shim = ctypes.CDLL(None)
    for line in sys.stdin:
        print(json.dumps(answer(shim, json.loads(line))), flush=True)


def import_everything() -> None:
    """All that the commands import; nothing is computed, so that no thread is left behind."""
    import onnxscript  # noqa: F401
    import torch.export
    import torch.onnx._internal.exporter._core  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    import edgeprefix.cli.compile
    import edgeprefix.cli.run
    import edgeprefix.cli.score
    import edgeprefix.export.cli.app
    import edgeprefix.train.cli  # noqa: F401


def answer(shim: Any, job: dict[str, Any]) -> dict[str, Any]:
    count = Path(job["stdout"] + ".operations")
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        run(shim, job, count)
    status = wait(child, job.get("after_s"), LONGEST_S)
    rc = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    operations = int(count.read_text()) if count.exists() else None
    count.unlink(missing_ok=True)
    return {"rc": rc, "seconds": time.monotonic() - began, "operations": operations}


def run(shim: Any, job: dict[str, Any], count: Path) -> NoReturn:
    """The child: the command line with its output in a file."""
    os.setsid()
    descriptor = os.open(job["stdout"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["edgeprefix", *job["args"]]
    from edgeprefix.cli.root import main as command_line

    shim.fault_arm(MODES[job["mode"]], ctypes.c_long(job.get("at", 0)), job["root"].encode())
    code = 70
    try:
        command_line()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        shim.fault_operations.restype = ctypes.c_long
        operations = shim.fault_operations()
        shim.fault_arm(0, ctypes.c_long(0), b"/")
        sys.stdout.flush()
        sys.stderr.flush()
        count.write_text(str(operations))
        os._exit(code)


def wait(child: int, after_s: float | None, limit_s: float) -> int:
    """The child's status; it is killed after `after_s`, or when it takes longer than `limit_s`."""
    end = time.monotonic() + (limit_s if after_s is None else after_s)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if time.monotonic() >= end:
            os.killpg(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1]
        time.sleep(0.002)


if __name__ == "__main__":
    main()
