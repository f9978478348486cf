"""A batch job that may be interrupted: python docs/examples/batch_job.py BUNDLE PREFIX ROWS.jsonl
OUT.jsonl

Rows are answered in their order, as many at once as the engine has slots. Started again, it goes on
after the last whole row of OUT.
"""

import json
import sys
from pathlib import Path

from edgeprefix.runtime import Engine, Request

bundle, prefix, rows_path, out_path = sys.argv[1:]
rows = [json.loads(line) for line in Path(rows_path).read_text(encoding="utf-8").splitlines()]
out = Path(out_path)
written = out.read_text(encoding="utf-8").splitlines(keepends=True) if out.exists() else []
whole = [line for line in written if line.endswith("\n")]  # a line cut off by the interruption goes
out.write_text("".join(whole), encoding="utf-8")

with (
    Engine.load(bundle, max_batch=8, max_length=128) as engine,
    out.open("a", encoding="utf-8") as file,
):
    task = engine.load_prefix(prefix).name
    left = rows[len(whole) :]
    # Taken only as slots become free
    requests = (Request(row, task=task, max_new_tokens=16) for row in left)
    for index, completion in engine.generate_each(requests):
        file.write(json.dumps({**left[index], "output": completion.text}) + "\n")
        file.flush()
        print(f"\r{len(whole) + index + 1} of {len(rows)}", end="", file=sys.stderr)
