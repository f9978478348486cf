"""Prefixes for bundles of tiny bases, and the slow, obvious way to generate, which the engine must
agree with.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.cache_utils import DynamicCache

from edgeprefix.runtime import Prefix, TaskPack
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.prefix_file import PrefixLayer

TASKS = {"news": 5, "mail": 3, "poem": 9, "code": 1}
"""Names and prefix lengths of the tasks that the fixtures load."""


def make_prefix(
    manifest: Manifest,
    name: str,
    length: int,
    *,
    pack: TaskPack | None = None,
    seed: int | None = None,
) -> Prefix:
    """A random prefix, strong enough to change what the tiny bases say."""
    random = np.random.default_rng(length if seed is None else seed)
    layers = tuple(
        PrefixLayer(
            *(
                random.standard_normal((layer.kv_heads, length, layer.head_size)).astype(np.float32)
                for _ in range(2)
            )
        )
        for layer in manifest.layers
    )
    return Prefix(name=name, base=manifest.base, layers=layers, pack=pack or TaskPack())


def torch_model(base: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()


def torch_cache(model: PreTrainedModel, prefix: Prefix | None) -> DynamicCache:
    """transformers' cache with the prefix in it."""
    cache = DynamicCache(config=model.config)
    if prefix is not None:
        for index, layer in enumerate(prefix.layers):
            cache.update(torch.tensor(layer.key[None]), torch.tensor(layer.value[None]), index)
    return cache


def torch_logits(model: PreTrainedModel, prefix: Prefix | None, ids: Sequence[int]) -> np.ndarray:
    """Logits [S, V] of a text behind a prefix."""
    with torch.no_grad():
        return (
            model(torch.tensor([list(ids)]), past_key_values=torch_cache(model, prefix))
            .logits[0]
            .numpy()
        )


def torch_greedy(
    model: PreTrainedModel, prefix: Prefix | None, ids: Sequence[int], count: int
) -> list[int]:
    """Greedy tokens, the whole text computed anew for each."""
    text = list(ids)
    for _ in range(count):
        text.append(int(torch_logits(model, prefix, text)[-1].argmax()))
    return text[len(ids) :]
