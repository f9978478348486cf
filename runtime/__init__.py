"""Run tasks: one exported base in memory, prefix files swapped under it, many tasks in one batch.
No torch.

>>> from edgeprefix.runtime import Engine
>>> with Engine.load("bundle", prefixes="prefixes/") as engine:  # doctest: +SKIP
...     print(engine.generate("name: Aromi", prefix="e2e").text)
"""

from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.contracts.task_pack import GenerationDefaults, TaskPack
from edgeprefix.runtime.engine import Engine
from edgeprefix.runtime.engine.requests import Request
from edgeprefix.runtime.errors import EdgePrefixError
from edgeprefix.runtime.generation.options import GenerationOptions
from edgeprefix.runtime.scoring.scores import Scores, TextLogprobs
from edgeprefix.runtime.tasks.prefix_store import PrefixInfo
from edgeprefix.runtime.version import __version__
from edgeprefix.runtime.work.completion import Completion, Piece, Timings, TokenLogprob

__all__ = [
    "Completion",
    "EdgePrefixError",
    "Engine",
    "GenerationDefaults",
    "GenerationOptions",
    "Piece",
    "Prefix",
    "PrefixInfo",
    "Request",
    "Scores",
    "TaskPack",
    "TextLogprobs",
    "Timings",
    "TokenLogprob",
    "__version__",
]
