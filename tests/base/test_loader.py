"""One loader for training and for export: the same bases are refused, by name, and the same numbers
are held.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import edit_json, edit_tensors
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import edgeprefix.train
from edgeprefix.base import load_base
from edgeprefix.runtime.errors import CheckpointError, ExportError, TrainingError
from tiny import save_checkpoint, tiny_llama

Loader = Callable[..., Any]


def load_for_training(folder: Path) -> Any:
    return edgeprefix.train.load_base(folder, precision="fp32")


@pytest.fixture(params=[load_base, load_for_training], ids=["export", "train"])
def load(request: pytest.FixtureRequest) -> Loader:
    loader: Loader = request.param
    return loader


def drop_norm(tensors: dict[str, Tensor]) -> None:
    del tensors["model.norm.weight"]


def narrow_norm(tensors: dict[str, Tensor]) -> None:
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:10].clone()


def add_head(tensors: dict[str, Tensor]) -> None:
    tensors["score.weight"] = torch.zeros(2, 64)


def add_layer(tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if ".layers.1." in name]:
        tensors[name.replace(".layers.1.", ".layers.2.")] = tensors[name].clone()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_norm, r"lacks 1 of the model's tensors, model\.norm\.weight; its config\.json"),
        (narrow_norm, r"holds 1 tensors of another shape .*'model\.norm\.weight'"),
        (add_head, r"holds 1 tensors that a llama has no place for, score\.weight;"),
        (add_layer, r"holds 9 tensors .*, such as model\.layers\.2\.input_layernorm\.weight"),
    ],
    ids=["missing", "another shape", "another head", "another layer"],
)
def test_tensors_that_do_not_fit_are_named(
    load: Loader, copy: Path, change: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    edit_tensors(copy, change)
    with pytest.raises(CheckpointError, match=message):
        load(copy)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"is_encoder_decoder": True}, "it is an encoder-decoder"),
        ({"model_type": "mamba"}, "keep a state of another kind than keys and values"),
        ({"model_type": "vit"}, "no causal language model of type 'vit'"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"already quantised \(gptq\)"),
    ],
)
def test_what_is_no_base_is_refused_before_its_weights_are_read(
    load: Loader, copy: Path, facts: dict[str, Any], message: str
) -> None:
    edit_json(copy / "config.json", **facts)
    (copy / "model.safetensors").unlink()
    for kind in (ExportError, TrainingError):  # whoever waits for one of them hears of it
        with pytest.raises(kind, match=message):
            load(copy)


REMOTE = {
    "AutoConfig": "own.OwnConfig",
    "AutoModelForCausalLM": "own.OwnModel",
    "AutoTokenizer": ["own.OwnTokenizer", None],
}
OWN_PYTHON = """
from pathlib import Path
Path(__file__).with_name("was-run").write_text("")
raise SystemExit("the checkpoint's own Python was run")
"""


@pytest.mark.parametrize("known", [True, False], ids=["a known type", "an unknown type"])
def test_python_of_a_checkpoint_is_never_run_nor_asked_for(
    load: Loader, copy: Path, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy / "own.py").write_text(OWN_PYTHON)
    edit_json(copy / "config.json", auto_map=REMOTE, model_type="llama" if known else "own")
    edit_json(copy / "tokenizer_config.json", auto_map=REMOTE, tokenizer_class="OwnTokenizer")
    monkeypatch.setattr("builtins.input", lambda text="": pytest.fail(f"asked: {text}"))
    if known:  # transformers' own code for it is used
        assert load(copy).tokenizer is not None
    else:
        with pytest.raises(ExportError, match="Python that comes with a model is never run"):
            load(copy)
    assert not (copy / "was-run").exists()


def test_python_of_an_older_tokenizer_is_not_run_either(
    load: Loader, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a tokenizer.json transformers converts the older files, by a class of its choice."""
    (copy / "own.py").write_text(OWN_PYTHON)
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer.model").write_bytes(b"\x0a\x05")
    edit_json(copy / "tokenizer_config.json", auto_map=REMOTE, tokenizer_class="OwnTokenizer")
    monkeypatch.setattr("builtins.input", lambda text="": pytest.fail(f"asked: {text}"))
    with pytest.raises(CheckpointError, match=r"has tokenizer\.model and no tokenizer\.json"):
        load(copy)
    assert not (copy / "was-run").exists()


def test_an_adapter_beside_a_model_is_refused(load: Loader, copy: Path) -> None:
    """transformers would load the base that it names, and not the folder's model."""
    edit_json(copy / "adapter_config.json", base_model_name_or_path="org/another")
    with pytest.raises(CheckpointError, match=r"holds an adapter \(adapter_config\.json\)"):
        load(copy)


def test_numbers_are_those_of_the_file_whatever_the_configuration_says(copy: Path) -> None:
    """A configuration that says bf16 over weights in fp32 does not round them."""
    edit_json(copy / "config.json", dtype="bfloat16")
    expected = load_base(copy, hold="fp32").model.state_dict()
    for hold in ("stored", "streamed", "auto"):
        found = load_base(copy, hold=hold).model.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_computes_the_same_over_a_base_in_bf16_and_its_copy_in_fp32(
    precision: str, tmp_path: Path
) -> None:
    """Weights in bf16 lose nothing in fp32, so the two are one base in two files."""
    half, full = tiny_llama().bfloat16(), tiny_llama().bfloat16().float()
    ids = torch.arange(2, 20)[None]
    logits = [
        edgeprefix.train.load_base(
            save_checkpoint(model, tmp_path / name), precision=precision
        ).logits([], ids)
        for name, model in (("half", half), ("full", full))
    ]
    assert torch.equal(*logits)


MEMORY = """
import resource, sys
import edgeprefix.train
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
base = edgeprefix.train.load_base(sys.argv[1], precision="bf16", device="cpu")
print(peak() - before)
"""


def test_a_base_in_bf16_is_loaded_without_a_copy_in_fp32(tmp_path: Path) -> None:
    """More than its own bytes and its embedding in fp32 is not taken, at any moment."""
    config = LlamaConfig(
        vocab_size=384, hidden_size=1024, intermediate_size=4096, num_attention_heads=8,
        num_hidden_layers=2, max_position_embeddings=256, eos_token_id=0,
    )  # fmt: skip
    folder = save_checkpoint(LlamaForCausalLM(config).bfloat16(), tmp_path / "base")
    size = (folder / "model.safetensors").stat().st_size  # 68 MB; in fp32 it would be 136
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, str(folder)], capture_output=True, text=True, check=True
    )
    taken = int(result.stdout)
    assert taken < 1.5 * size, f"{taken / 1e6:.0f} MB for a checkpoint of {size / 1e6:.0f}"


def test_the_old_name_of_the_frozen_model_still_works() -> None:
    with pytest.warns(DeprecationWarning, match="FrozenModel"):
        assert edgeprefix.train.Base is edgeprefix.train.FrozenModel


def test_links_lead_to_a_checkpoint(load: Loader, llama_base: Path, tmp_path: Path) -> None:
    """As in the hub's cache: a folder of links to blobs without a suffix."""
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    folder.mkdir()
    for number, file in enumerate(sorted(llama_base.iterdir())):
        shutil.copyfile(file, blobs / f"{number:064x}")
        (folder / file.name).symlink_to(Path("..") / "blobs" / f"{number:064x}")
    assert load(folder).identity.sha256 == load_base(llama_base).identity.sha256
