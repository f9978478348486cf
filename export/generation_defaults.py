"""What a base asks of a generation (generation_config.json) and a bundle does not hold.

A task says how its text is generated (the prefix file's pack), and requests do; a base's own wish
would change both without their saying so. So it is not taken over, and not dropped in silence.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)

_OFF: dict[str, Any] = {  # what transformers does when the file does not say
    "do_sample": False, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": None,
    "typical_p": 1.0, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "num_beams": 1,
    "length_penalty": 1.0, "max_length": 20, "max_new_tokens": None, "min_length": 0,
    "min_new_tokens": None, "suppress_tokens": None, "begin_suppress_tokens": None,
    "bad_words_ids": None, "forced_bos_token_id": None, "forced_eos_token_id": None,
}  # fmt: skip


def say_dropped_defaults(settings: Mapping[str, Any], name: str) -> None:
    """A warning that names the generation settings of the base `name`, if there are any."""
    asked = {
        key: settings[key] for key, off in _OFF.items() if settings.get(key, off) not in (off, None)
    }
    if asked:
        logger.warning(
            "base %s: its generation settings ask for %s; a bundle holds no such defaults: give "
            "them with each request, or in the task's own generation defaults",
            name, ", ".join(f"{key} {value}" for key, value in asked.items()),
        )  # fmt: skip
