"""Two tasks over one base in ten lines: python docs/examples/ten_lines.py BUNDLE PREFIXES"""

import sys

from edgeprefix.runtime import Engine, Request

with Engine.load(sys.argv[1], prefixes=sys.argv[2], max_length=128) as engine:
    first, second, *_ = [task.name for task in engine.tasks()]
    for piece in engine.stream("name: Ann | city: Rome", task=first, max_new_tokens=20):
        print(piece.text, end="", flush=True)
    requests = [
        Request("Where is my parcel?", task=task, max_new_tokens=20) for task in (first, second)
    ]
    for completion in engine.generate_many(requests):  # both tasks in one batch
        print(f"\n{completion.task}: {completion.text!r} ({completion.timings.total_ms:.0f} ms)")
