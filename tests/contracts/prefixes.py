"""A small prefix of known numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.contracts.prefix_file import Prefix, PrefixLayer
from edgeprefix.runtime.contracts.task_pack import GenerationDefaults, TaskPack

BASE = BaseIdentity(
    name="b", weights_sha256="1" * 64, config_sha256="2" * 64, tokenizer_sha256="3" * 64
)
PACK = TaskPack(
    prompt="{input}\n",
    labels=("a", "b"),
    stop=("\n",),
    generation=GenerationDefaults(max_new_tokens=9),
)


def small_prefix(**changes: Any) -> Prefix:
    values = np.arange(1, 9, dtype=np.float32).reshape(1, 2, 4) / 8
    fields: dict[str, Any] = {
        "name": "t",
        "base": BASE,
        "layers": (PrefixLayer(values, -values),),
        "pack": PACK,
    }
    return Prefix(**(fields | changes))
