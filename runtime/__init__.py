"""Run tasks: one exported base in memory, prefix files swapped under it, many tasks in one batch.
No torch.

>>> from edgeprefix.runtime import Engine
>>> with Engine.load("bundle", prefixes="prefixes/") as engine:  # doctest: +SKIP
...     print(engine.generate("name: Aromi", prefix="e2e").text)
"""

from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.contracts.task_pack import GenerationDefaults, TaskPack
from edgeprefix.runtime.engine import Engine
from edgeprefix.runtime.errors import EdgePrefixError
from edgeprefix.runtime.generation.options import GenerationOptions
from edgeprefix.runtime.prefix_store import PrefixInfo
from edgeprefix.runtime.request import Completion, Piece, Request, Timings, TokenLogprob
from edgeprefix.runtime.scoring import Scores, TextLogprobs
from edgeprefix.runtime.version import __version__

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
