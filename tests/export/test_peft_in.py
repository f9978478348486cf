"""PEFT in: adapters that peft trained and saved give, as prefix files, what peft's own generate
gives.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import (
    LoraConfig,
    MultitaskPromptTuningConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from peft_side import (
    KINDS,
    LONG,
    MARKED_FAMILIES,
    NEW_TOKENS,
    SHORT,
    TASK_ID,
    Family,
    P,
    assert_same,
    family_of,
    load_adapter,
    torch_base,
    train_adapter,
)
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from edgeprefix.base.identity import checkpoint_identity
from edgeprefix.export import export_prefix
from edgeprefix.export.cli.app import export_app
from edgeprefix.export.prefix import read_prefix
from edgeprefix.runtime.contracts.prefix_file import Prefix
from edgeprefix.runtime.errors import (
    BaseMismatchError,
    CheckpointError,
    EdgePrefixError,
    ExportError,
    TemplateError,
)
from tiny import save_checkpoint, tiny_llama

pytestmark = pytest.mark.filterwarnings(
    "ignore:Position ids are not supported", "ignore:.*gradient_checkpointing"
)

# peft 0.21.2 itself fails to train on xglm (it finds no number of heads) and, with its defaults,
# PREFIX_TUNING on falcon (it takes the query heads for the key/value heads), which is why they are
# not here.
MORE_FAMILIES = [
    "mistral",
    "qwen2",
    "qwen3",
    "gpt_neox",
    "gpt_neo",
    "starcoder2",
    "cohere2",
    "olmo2",
    "stablelm",
    "granite",
]
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture(scope="module", params=MARKED_FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return family_of(request.param, request)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_what_peft_gives(family: Family, kind: str, tmp_path: Path) -> None:
    adapter = train_adapter(family.base, KINDS[kind](), tmp_path / kind)
    prefix = export_prefix(
        adapter, tmp_path / "file", task_id=TASK_ID if kind == "multitask" else None
    )
    assert (prefix.name, prefix.length) == (kind, P)
    assert prefix.base == checkpoint_identity(family.base)
    assert_same(family, Prefix.load(tmp_path / "file"), load_adapter(family.base, adapter))


@pytest.mark.slow
@pytest.mark.parametrize("model_type", MORE_FAMILIES)
def test_more_families(model_type: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    family = family_of(model_type, request)
    for kind in ("prefix", "prompt"):
        adapter = train_adapter(family.base, KINDS[kind](), tmp_path / kind)
        assert_same(family, read_prefix(adapter), load_adapter(family.base, adapter))


@pytest.mark.parametrize("config", [PrefixTuningConfig, PromptTuningConfig])
def test_more_virtual_tokens_than_a_window_holds(
    request: pytest.FixtureRequest, config: Callable[..., Any], tmp_path: Path
) -> None:
    """peft's own cache throws positions away that a window slid past; ours keeps them and does not
    look.
    """
    gemma = family_of("gemma3_text", request)
    adapter = train_adapter(
        gemma.base, config(task_type="CAUSAL_LM", num_virtual_tokens=16), tmp_path / "wide"
    )
    assert_same(gemma, read_prefix(adapter), load_adapter(gemma.base, adapter))


def test_text_by_the_command_line(family: Family, tmp_path: Path) -> None:
    adapter = train_adapter(family.base, KINDS["prefix"](), tmp_path / "adapter")
    out, options = (
        tmp_path / "mail.safetensors",
        ["--task", "mail", "--prompt", "{input}\\n", "--dtype", "fp16"],
    )
    result = CliRunner().invoke(export_app, ["prefix", str(adapter), "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    assert f"task mail, {P} positions, base tiny-{family.name}" in result.output.replace("\n", " ")
    prefix = Prefix.load(out)
    assert (prefix.name, prefix.dtype, prefix.pack.prompt) == ("mail", "fp16", "{input}\n")
    assert prefix.pack.recipe["method"] == "PREFIX_TUNING"


# What is refused ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(llama_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained adapters of the tiny Llama, as peft saves them."""
    folder = tmp_path_factory.mktemp("saved")
    model_of = {
        "prefix": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=P),
        "prompt": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=P),
        "long": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=256),
        "multitask": MultitaskPromptTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=P, num_tasks=3
        ),
        "lora": LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]),
    }
    for name, config in model_of.items():
        get_peft_model(torch_base(llama_base), config).eval().save_pretrained(folder / name)
    return {name: folder / name for name in model_of}


@pytest.fixture
def refuse(saved: dict[str, Path], tmp_path: Path) -> Callable[..., None]:
    """Copies an adapter, damages it, and expects the export to be refused and nothing to be
    written.
    """

    def check(
        kind: str,
        damage: Callable[[Path], object],
        message: str,
        error: type[Exception] = ExportError,
        **options: Any,
    ) -> None:
        folder, out = tmp_path / kind, tmp_path / "task.safetensors"
        shutil.copytree(saved[kind], folder, dirs_exist_ok=True)
        damage(folder)
        with pytest.raises(error, match=message) as caught:
            export_prefix(folder, out, **options)
        assert isinstance(caught.value, EdgePrefixError)
        assert not out.exists()
        shutil.rmtree(folder)

    return check


def settings(**changes: Any) -> Callable[[Path], object]:
    """Changes adapter_config.json."""

    def change(folder: Path) -> None:
        facts = json.loads((folder / CONFIG).read_text()) | changes
        (folder / CONFIG).write_text(json.dumps(facts))

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    """Changes adapter_model.safetensors."""

    def damage(folder: Path) -> None:
        content = load_file(folder / TENSORS)
        change(content)
        save_file(content, folder / TENSORS)

    return damage


def whole(folder: Path) -> None:
    """No damage."""


def test_other_kinds_are_refused_by_name(refuse: Callable[..., None]) -> None:
    refuse(
        "lora",
        whole,
        r"type LORA, which changes the base's own layers.*merge_and_unload\(\).*export decoder",
    )
    refuse(
        "prompt",
        settings(peft_type="ADAPTION_PROMPT"),
        "ADAPTION_PROMPT, whose prompts enter through a gate",
    )
    refuse("prompt", settings(peft_type=None), "names no peft_type")
    refuse("prompt", settings(task_type="SEQ_CLS"), "task_type SEQ_CLS, expected CAUSAL_LM")
    refuse(
        "prompt",
        settings(task_type=None),
        "peft itself runs a model of no task_type without its prompt",
    )
    refuse(
        "prompt", settings(num_transformer_submodules=2), "prompts for 2 transformers, expected 1"
    )
    refuse(
        "prompt",
        settings(modules_to_save=["lm_head"]),
        r"retrained modules of the base as well \(lm_head\)",
    )


def test_half_a_folder(refuse: Callable[..., None]) -> None:
    refuse(
        "prefix",
        lambda folder: (folder / CONFIG).unlink(),
        "has no adapter_config.json: half an adapter",
    )
    refuse(
        "prefix",
        lambda folder: (folder / TENSORS).unlink(),
        "has no adapter_model.safetensors: half an adapter",
    )
    refuse(
        "prefix",
        lambda folder: (folder / CONFIG).write_text("{"),
        "adapter_config.json cannot be read",
    )
    refuse(
        "prefix",
        lambda folder: (folder / CONFIG).write_text("[]"),
        "holds list, expected a JSON object",
    )
    refuse(
        "prefix",
        lambda folder: (folder / TENSORS).write_bytes((folder / TENSORS).read_bytes()[:-9]),
        "truncated or altered",
    )
    refuse("prefix", settings(num_virtual_tokens=None), "lacks num_virtual_tokens")
    refuse(
        "prefix",
        settings(num_virtual_tokens="5"),
        "num_virtual_tokens is '5', expected a whole number from 1",
    )
    refuse("prefix", settings(num_layers=None), "lacks num_layers")


def test_a_pickle_is_never_opened(llama_base: Path, refuse: Callable[..., None]) -> None:
    def pickled(folder: Path) -> None:
        (folder / TENSORS).unlink()
        model = get_peft_model(torch_base(llama_base), KINDS["prefix"]())
        model.save_pretrained(folder, safe_serialization=False)

    refuse(
        "prefix",
        pickled,
        (
            r"adapter_model.bin, a pickle, which can run any code.*save_pretrained\(folder\) "
            r"writes safetensors"
        ),
    )


def test_numbers_that_cannot_be(refuse: Callable[..., None]) -> None:
    def poison(content: dict[str, torch.Tensor]) -> None:
        content["prompt_embeddings"][2, 3] = float("nan")

    refuse(
        "prefix",
        tensors(poison),
        "prompt_embeddings holds NaN or infinity, so its training diverged",
    )
    refuse(
        "multitask",
        tensors(lambda content: content.pop("prefix_task_cols")),
        "lacks prefix_task_cols",
        task_id=0,
    )
    refuse(
        "prompt",
        tensors(lambda content: content.update(lm_head=torch.zeros(2))),
        "also holds lm_head",
    )
    refuse(
        "prompt",
        settings(num_virtual_tokens=7),
        r"shape \[5, 64\], the configuration says 7 virtual tokens",
    )
    refuse(
        "prefix",
        settings(num_layers=3),
        "128 numbers a token, the configuration says 3 layers of 2 x 32 in 2 heads",
    )
    refuse(
        "multitask",
        settings(num_tasks=4),
        "are no factors of 4 tasks for 5 virtual tokens",
        task_id=0,
    )


def test_a_base_that_does_not_fit(
    refuse: Callable[..., None], gpt2_base: Path, tmp_path: Path
) -> None:
    deep = save_checkpoint(tiny_llama(num_hidden_layers=3), tmp_path / "deep")
    narrow = save_checkpoint(tiny_llama(hidden_size=32), tmp_path / "narrow")
    heads = (
        "2 key/value heads of 16, layer 0 of the base has 4 of 16; it was trained on "
        ".*tiny-llama.*--base"
    )
    refuse("prefix", whole, heads, BaseMismatchError, base=gpt2_base)
    refuse("prefix", whole, "2 layers, the base has 3", BaseMismatchError, base=deep)
    refuse(
        "prefix",
        whole,
        "2 key/value heads of 16, layer 0 of the base has 2 of 8",
        BaseMismatchError,
        base=narrow,
    )
    refuse(
        "prompt", whole, "embeddings of width 64, the base has 32", BaseMismatchError, base=narrow
    )
    refuse("long", whole, "256 virtual tokens, the base has 256 positions", BaseMismatchError)


def test_a_base_that_cannot_be_found(
    refuse: Callable[..., None], llama_base: Path, saved: dict[str, Path]
) -> None:
    nowhere = settings(base_model_name_or_path="/nowhere/at all")
    refuse(
        "prompt",
        nowhere,
        "names its base, but .*/nowhere/at all: no such folder.*or give the base with --base",
        CheckpointError,
    )
    refuse(
        "prompt",
        settings(base_model_name_or_path=""),
        "does not say which base it was trained on.*--base",
    )
    refuse("prompt", settings(revision="v2"), "revision v2 of .*tiny-llama, which is a folder")
    assert read_prefix(saved["prompt"], base=llama_base).base == checkpoint_identity(llama_base)


def test_options_that_cannot_be(refuse: Callable[..., None]) -> None:
    refuse("multitask", whole, "holds 3 tasks; choose one with --task-id 0…2")
    refuse("multitask", whole, "has no task 3; it holds 3", task_id=3)
    refuse(
        "prompt",
        whole,
        "of type PROMPT_TUNING and holds one task; leave the task id out",
        task_id=0,
    )
    refuse(
        "prompt",
        whole,
        "only plain names such as {input} are allowed",
        TemplateError,
        prompt="{input.x}",
    )
    refuse("prompt", whole, "task name 'a b' cannot be used", EdgePrefixError, task="a b")


def test_tasks_of_a_multitask_adapter_differ(saved: dict[str, Path]) -> None:
    first, second = (read_prefix(saved["multitask"], task_id=task) for task in (0, 1))
    assert not np.allclose(first.layers[0].key, second.layers[0].key)
    assert second.pack.recipe["task_id"] == 1


def test_a_peft_folder_may_have_any_name(saved: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "mein Präfix (1)"
    shutil.copytree(saved["prefix"], folder)
    assert read_prefix(folder).name == "mein-Pr-fix-1"
    # The texts are what they are meant to be: past a window, and within
    assert len(LONG) > 12 > len(SHORT) + NEW_TOKENS - P
