"""Where a prefix starts: noise of the base's own size, its keys and values over a text or over
random words, or another prefix.

Statistics and texts come from the training rows themselves, so that the start lies where the base's
own cache would lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.errors import TrainingError
from edgeprefix.train.batches import text_of_rows
from edgeprefix.train.config import PrefixConfig
from edgeprefix.train.data import Example
from edgeprefix.train.model import FrozenModel
from edgeprefix.train.parametrisation import PrefixTensors, random_prefix
from edgeprefix.train.units import Unit


def start_prefix(
    base: FrozenModel,
    config: PrefixConfig,
    *,
    length: int,
    examples: Sequence[Example],
    units: Sequence[Unit],
    seed: int,
) -> PrefixTensors:
    """Keys [H, P, Dk] and values [H, P, Dv] per layer, fp32, on the base's device.

    Raises TrainingError when a prefix file is of another base or length, or an init text is too
    short to fill P positions.
    """
    generator = torch.Generator().manual_seed(seed)
    if config.init == "random":
        start = random_prefix(base.layers, length, units, generator)
    elif config.init == "vocab":
        ids = torch.randint(base.tokenizer.vocabulary_size, (length,), generator=generator).tolist()
        start = base.key_values(ids)
    elif config.init == "text":
        start = base.key_values(_text_ids(base, config.init_text, length, examples, seed))
    else:
        start = _from_file(base, config.init, length)
    return [(key.to(base.device), value.to(base.device)) for key, value in start]


def start_embeddings(
    base: FrozenModel, config: PrefixConfig, *, length: int, examples: Sequence[Example], seed: int
) -> Tensor:
    """Input embeddings [P, width] for prompt tuning: of a text, of random words, or noise of the
    embedding table's size.
    """
    generator = torch.Generator().manual_seed(seed)
    if config.init == "text":
        return base.embeddings(_text_ids(base, config.init_text, length, examples, seed))
    ids = torch.randint(base.tokenizer.vocabulary_size, (length,), generator=generator).tolist()
    words = base.embeddings(ids)
    if config.init == "vocab":
        return words
    return (torch.randn(words.shape, generator=generator) * float(words.std())).to(base.device)


def _text_ids(
    base: FrozenModel, text: str | None, length: int, examples: Sequence[Example], seed: int
) -> list[int]:
    """`length` ids: the text, repeated or cut, or training rows with their targets one after
    another.
    """
    if text is not None:
        ids = base.tokenizer.encode_prompt(text)
        if not ids:
            raise TrainingError(
                "the init text is empty; give an instruction, label words or an example"
            )
        return (ids * (length // len(ids) + 1))[:length]
    return text_of_rows(examples, length, f"{seed}/text")


def _from_file(base: FrozenModel, path: str, length: int) -> PrefixTensors:
    prefix = Prefix.load(Path(path))
    base.identity.require_same(prefix.base, what=f"prefix {path}")
    if prefix.length != length:
        raise TrainingError(
            f"prefix {path} has {prefix.length} positions and --length is {length}; leave "
            "--length out"
        )
    return [
        (torch.from_numpy(layer.key.copy()), torch.from_numpy(layer.value.copy()))
        for layer in prefix.layers
    ]


def prefix_file_length(prefix: PrefixConfig) -> int | None:
    """Positions of the prefix file that training starts from, when it does."""
    return Prefix.load(prefix.init).length if prefix.init.endswith(".safetensors") else None
