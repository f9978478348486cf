"""The other side: adapters trained, saved, loaded and run by peft itself, over tiny bases of
several families.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from peft import (
    CartridgeConfig,
    CPTConfig,
    MultitaskPromptTuningConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from transformers import AutoModelForCausalLM, PreTrainedModel
from zoo import tiny_model

from edgeprefix.export import export_decoder
from edgeprefix.runtime import Engine
from edgeprefix.runtime.contracts.manifest import Manifest
from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.decoding.cache import Cache
from edgeprefix.runtime.decoding.decoder import Decoder
from edgeprefix.runtime.decoding.session import open_graph
from tiny import VOCABULARY, save_checkpoint

P = 5
TASK_ID = 2
NEW_TOKENS = 8
CAPACITY = 64
RELATIVE = 1e-4  # of the largest logit: fp32 rounding, as in export/parity.py
SHORT = [17, 301, 45, 260]
LONG = [
    17,
    301,
    45,
    260,
    8,
    99,
    311,
    23,
    150,
    42,
    77,
    205,
    18,
    366,
    91,
]  # longer than the windows of the Gemma bases

Ids = list[int]
Array = npt.NDArray[np.float32]


# The two last have sliding windows of 12 in every other layer, an embedding table that scales, and
# grouped queries, as Llama.
MARKED_FAMILIES = ["gpt2", "llama", "gemma3_text", pytest.param("gemma2", marks=pytest.mark.slow)]

_ANY: dict[str, Any] = {"task_type": "CAUSAL_LM", "num_virtual_tokens": P}
KINDS: dict[str, Callable[[], Any]] = {
    "prefix": lambda: PrefixTuningConfig(**_ANY),
    "prefix-projection": lambda: PrefixTuningConfig(
        **_ANY, prefix_projection=True, encoder_hidden_size=24
    ),
    "cartridge": lambda: CartridgeConfig(**_ANY, num_frozen_tokens=2),
    "prompt": lambda: PromptTuningConfig(**_ANY),
    "p-mlp": lambda: PromptEncoderConfig(**_ANY, encoder_hidden_size=24),
    "p-lstm": lambda: PromptEncoderConfig(
        **_ANY, encoder_hidden_size=24, encoder_reparameterization_type="LSTM"
    ),
    "multitask": lambda: MultitaskPromptTuningConfig(**_ANY, num_tasks=3, num_ranks=2),
    "cpt": lambda: CPTConfig(
        task_type="CAUSAL_LM",
        cpt_token_ids=[5, 6, 7, 8, 9],
        cpt_mask=[1] * P,
        cpt_tokens_type_mask=[1, 2, 2, 3, 4],
    ),
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """A tiny base in every form that the tests need."""

    name: str
    base: Path
    bundle: Path
    engine: Engine


_MADE: dict[str, Family] = {}


def family_of(name: str, request: pytest.FixtureRequest) -> Family:
    """A family's base and bundle, made once a session for both test files."""
    if name not in _MADE:
        folder = request.getfixturevalue("tmp_path_factory").mktemp(name)
        base = _base(name, folder / f"tiny-{name}", request)
        bundle = _bundle(name, base, folder / "bundle", request)
        engine = Engine.load(bundle, max_batch=1, max_length=CAPACITY, threads=1)
        _MADE[name] = Family(name=name, base=base, bundle=bundle, engine=engine)
    return _MADE[name]


def _base(name: str, folder: Path, request: pytest.FixtureRequest) -> Path:
    if name in ("gpt2", "llama"):
        found: Path = request.getfixturevalue(f"{name}_base")
        return found
    return save_checkpoint(tiny_model(name), folder)


def _bundle(name: str, base: Path, folder: Path, request: pytest.FixtureRequest) -> Path:
    if name == "llama":
        traced: Path = request.getfixturevalue("llama_bundle")("fp32")
        return traced
    export_decoder(base, folder, verify=False)
    return folder


def torch_base(base: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return model


def train_adapter(base: Path, config: Any, folder: Path, *, steps: int = 3) -> Path:
    """A few steps of peft's own training; gives the folder that save_pretrained wrote."""
    torch.manual_seed(0)
    model = get_peft_model(torch_base(base), config)
    ids = torch.randint(2, VOCABULARY, (2, 10), generator=torch.Generator().manual_seed(1))
    options = task_options(config, rows=2)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids, **options).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0], "peft's training did not move the adapter"
    model.eval().save_pretrained(folder)
    return folder


def load_adapter(base: Path, folder: Path) -> Any:
    """The adapter over its base, as peft loads it."""
    return PeftModel.from_pretrained(torch_base(base), folder).eval()


def task_options(config: Any, *, rows: int = 1) -> dict[str, Any]:
    """What peft wants to be told at every call."""
    return (
        {"task_ids": torch.full((rows,), TASK_ID)}
        if config.peft_type == "MULTITASK_PROMPT_TUNING"
        else {}
    )


def peft_tokens(model: Any, prompt: Ids) -> Ids:
    """Greedy new tokens by peft's generate, without what ends the text."""
    ids, config = torch.tensor([prompt]), model.active_peft_config
    options = {"max_new_tokens": NEW_TOKENS, "do_sample": False, **task_options(config)}
    with torch.no_grad():
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
    new: Ids = out[0, len(prompt) :].tolist()
    return new[: new.index(0)] if 0 in new else new


def peft_logits(model: Any, prompt: Ids) -> Array:
    """Logits [S, V] of the prompt's own tokens."""
    ids = torch.tensor([prompt])
    with torch.no_grad():
        logits = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **task_options(model.active_peft_config),
        ).logits
    found: Array = logits[
        0, -len(prompt) :
    ].numpy()  # embeddings also give logits of the virtual tokens
    return found


def plain_logits(model: Any, prompt: Ids) -> Array:
    """Logits [S, V] of the base without its adapter."""
    with torch.no_grad():
        logits = model.get_base_model()(input_ids=torch.tensor([prompt])).logits
    found: Array = logits[0].numpy()
    return found


def engine_tokens(family: Family, prefix: Prefix, prompt: Ids) -> Ids:
    """Greedy new tokens by our engine."""
    family.engine.load_prefix(prefix, name="task")
    tokens = family.engine.generate(
        prompt, task="task", max_new_tokens=NEW_TOKENS, temperature=0.0
    ).tokens
    return [token for token in tokens if token != 0]


def graph_logits(family: Family, prefix: Prefix, prompt: Ids) -> Array:
    """Logits [S, V] of the prompt's tokens by the bundle's graph, over the prefix."""
    graph = open_graph(family.bundle, Manifest.load(family.bundle), threads=1)
    decoder = Decoder(
        graph, Cache(graph.layers, batch=1, capacity=CAPACITY, dtype=graph.cache_dtype)
    )
    decoder.cache.write(
        0, decoder.cache.pack([(layer.key, layer.value) for layer in prefix.layers])
    )
    return np.stack(list(decoder.feed(0, np.array(prompt), start=prefix.length)))


def assert_same(family: Family, prefix: Prefix, model: Any) -> None:
    """Logits agree to fp32 rounding and greedy tokens are equal, for a short text and one longer
    than any window.
    """
    for prompt in (SHORT, LONG):
        wanted, got = peft_logits(model, prompt), graph_logits(family, prefix, prompt)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=RELATIVE * float(np.abs(wanted).max()))
        assert engine_tokens(family, prefix, prompt) == peft_tokens(model, prompt)
    plain = plain_logits(model, SHORT)
    assert np.abs(peft_logits(model, SHORT) - plain).max() > 100 * RELATIVE * np.abs(plain).max(), (
        "the prefix says nothing"
    )
