"""The demo's three tasks, one file each: record → sentence, text → label, text → rewritten text."""

from edgeprefix.demo.tasks.polite import POLITE
from edgeprefix.demo.tasks.task import PARTS, DemoRow, DemoTask, Part, Sizes, make_rows, write_rows
from edgeprefix.demo.tasks.trails import TRAILS
from edgeprefix.demo.tasks.triage import TRIAGE

TASKS: tuple[DemoTask, ...] = (TRAILS, TRIAGE, POLITE)
"""In the order in which the demo trains and shows them."""

__all__ = [
    "PARTS",
    "POLITE",
    "TASKS",
    "TRAILS",
    "TRIAGE",
    "DemoRow",
    "DemoTask",
    "Part",
    "Sizes",
    "make_rows",
    "write_rows",
]
