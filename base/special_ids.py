"""Which token ids end a text, begin one, and pad: one answer for training and for the manifest.

Ids that end a text stand in up to three places, and chat models name several (the end of a text,
the end of a turn). All of them end a generation. The order is that of the places: generation
settings, configuration, tokenizer; the first id closes a training target.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from edgeprefix.base.config import CONFIG_FILE
from edgeprefix.base.tokenizer import optional_json, special_tokens
from edgeprefix.runtime.errors import CheckpointError

logger = logging.getLogger(__name__)

GENERATION_FILE = "generation_config.json"


def read_end_ids(
    folder: Path, config: Any, tokenizer: Tokenizer | None, *, vocabulary: int
) -> tuple[int, ...]:
    """Ids that end a text, each once: those of generation_config.json, of config.json, and of the
    tokenizer's eos_token, in this order; transformers' default for the model when none names one.

    Ids that are no token of the vocabulary (GPT-2's 50256 over a smaller one, -1 for "none") are
    left out with a warning. Raises CheckpointError for what is no id at all.
    """
    found: list[int] = []
    for source, value in _stated(folder, config, tokenizer):
        for token in _ids(value, f"{source}: eos_token_id"):
            if not 0 <= token < vocabulary:
                logger.warning(
                    "%s: eos_token_id %d is no token of a vocabulary of %d; it is left out",
                    source, token, vocabulary,
                )  # fmt: skip
            elif token not in found:
                found.append(token)
    return tuple(found)


def single_id(config: Any, name: str, *, vocabulary: int) -> int | None:
    """A configuration's bos_token_id or pad_token_id (of a list the first), None when it states
    none that is a token of the vocabulary.
    """
    ids = _ids(getattr(config, name, None), f"{CONFIG_FILE}: {name}")
    return next((token for token in ids if 0 <= token < vocabulary), None)


def _stated(folder: Path, config: Any, tokenizer: Tokenizer | None) -> Iterator[tuple[str, Any]]:
    """(where, what) of each place that names end ids."""
    generation = optional_json(folder / GENERATION_FILE).get("eos_token_id")
    stated = _of_text_model(optional_json(folder / CONFIG_FILE))
    own = None if tokenizer is None else special_tokens(folder).get("eos_token")
    token = None if own is None or tokenizer is None else tokenizer.token_to_id(own)
    places = (
        (f"{folder / GENERATION_FILE}", generation),
        (f"{folder / CONFIG_FILE}", stated),
        (f"the tokenizer of {folder}", token),
    )
    named = [(source, value) for source, value in places if value is not None]
    default = getattr(config, "eos_token_id", None)
    # A class's default is no statement about this model, but all there is when it makes none.
    yield from named or [(f"{folder / CONFIG_FILE}", default)]


def _of_text_model(facts: Mapping[str, Any]) -> Any:
    """eos_token_id as config.json states it, of a composite model that of its text part."""
    part = facts.get("text_config")
    own = part.get("eos_token_id") if isinstance(part, dict) else None
    return facts.get("eos_token_id") if own is None else own


def _ids(value: Any, where: str) -> list[int]:
    if value is None:
        return []
    ids = value if isinstance(value, list | tuple) else [value]
    for token in ids:
        if not isinstance(token, int) or isinstance(token, bool):
            raise CheckpointError(
                f"{where} is {value!r}, expected a token's id or a list of ids; correct the file"
            )
    return list(ids)
