"""Run tasks: one exported base in memory, prefix files swapped under it, many tasks in one batch.
No torch.

>>> from edgeprefix.runtime import Engine
>>> with Engine.load("bundle", prefixes="prefixes/") as engine:  # doctest: +SKIP
...     print(engine.generate("name: Aromi", task="e2e").text)
"""

from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.contracts.task_pack import GenerationDefaults, TaskPack
from edgeprefix.runtime.contracts.template_text import TemplateText
from edgeprefix.runtime.engine import Engine
from edgeprefix.runtime.engine.compile_request import CompileRequest
from edgeprefix.runtime.engine.requests import (
    ChatRequest,
    LogprobsRequest,
    NextLogprobsRequest,
    Request,
)
from edgeprefix.runtime.engine.score_request import ScoreRequest
from edgeprefix.runtime.errors import EdgePrefixError
from edgeprefix.runtime.generation.options import GenerationOptions
from edgeprefix.runtime.scoring.scores import Scores, TextLogprobs
from edgeprefix.runtime.tasks.prefix_store import PrefixInfo
from edgeprefix.runtime.version import __version__
from edgeprefix.runtime.work.completion import Completion, Piece, Timings, TokenLogprob
from edgeprefix.runtime.work.ticket import Ticket

__all__ = [
    "ChatRequest",
    "CompileRequest",
    "Completion",
    "EdgePrefixError",
    "Engine",
    "GenerationDefaults",
    "GenerationOptions",
    "LogprobsRequest",
    "NextLogprobsRequest",
    "Piece",
    "Prefix",
    "PrefixInfo",
    "Request",
    "ScoreRequest",
    "Scores",
    "TaskPack",
    "TemplateText",
    "TextLogprobs",
    "Ticket",
    "Timings",
    "TokenLogprob",
    "__version__",
]
