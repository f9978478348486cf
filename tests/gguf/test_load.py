"""A GGUF file as a base: the model that it was written from, number by number, for every
architecture and every kind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_files import MODELS, WITH_STEPS, write_gguf

from edgeprefix.base import load_base
from edgeprefix.base.gguf.stored import stored_matrices
from edgeprefix.runtime.errors import CheckpointError
from tiny import save_checkpoint, tiny_llama

IDS = torch.arange(2, 42)[None]


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(IDS).logits
    return found


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_computes_as_the_model_it_was_written_from(
    name: str, tmp_path: Path
) -> None:
    model = MODELS[name]()
    write_gguf(model, tmp_path / "model.gguf", kind="Q8_0")
    base = load_base(tmp_path / "model.gguf")
    expected = model.state_dict()
    found = base.model.state_dict()
    assert set(found) == set(expected)
    for parameter, tensor in expected.items():
        far = float((found[parameter] - tensor).abs().max())
        assert far <= 2e-7, parameter  # a norm's one is added and taken off again
    torch.testing.assert_close(logits(base.model), logits(model), rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", *WITH_STEPS])
def test_every_kind_is_loaded_bit_for_bit(kind: str, tmp_path: Path) -> None:
    model = MODELS["llama, untied, biases"]()
    write_gguf(model, tmp_path / "model.gguf", kind=kind)
    found = load_base(tmp_path / "model.gguf").model.state_dict()
    for parameter, tensor in model.state_dict().items():
        assert torch.equal(found[parameter], tensor), parameter


@pytest.mark.parametrize("kind", WITH_STEPS)
@pytest.mark.parametrize("name", ["llama", "llama, untied, biases", "gpt2", "gemma3"])
def test_stored_matrices_are_the_model_s_own_numbers(name: str, kind: str, tmp_path: Path) -> None:
    model = MODELS[name]()
    write_gguf(model, tmp_path / "model.gguf", kind=kind)
    base = load_base(tmp_path / "model.gguf")
    matrices = stored_matrices(base)
    parameters = base.model.state_dict()
    matrix_names = {
        name for name, tensor in parameters.items() if tensor.dim() == 2 and "wpe" not in name
    }
    assert set(matrices) == matrix_names
    for parameter, matrix in matrices.items():
        expected = parameters[parameter].numpy()
        expected = expected.T if name == "gpt2" and ".h." in parameter else expected
        found = matrix.numbers()
        assert found.shape == expected.shape
        exact = matrix.zeros is None
        np.testing.assert_allclose(
            found, expected, rtol=0, atol=0 if exact else 1e-5 * np.abs(expected).max()
        )


def test_a_tied_table_stands_under_both_names(tmp_path: Path) -> None:
    write_gguf(MODELS["gemma3"](), tmp_path / "model.gguf", kind="Q8_0")
    base = load_base(tmp_path / "model.gguf")
    matrices = stored_matrices(base)
    table, head = matrices["model.embed_tokens.weight"], matrices["lm_head.weight"]
    np.testing.assert_array_equal(table.packed, head.packed)
    model: Any = base.model
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_what_has_no_steps_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"base base is no GGUF file, so it has no quantised"):
        stored_matrices(load_base(save_checkpoint(tiny_llama(), tmp_path / "base")))
    write_gguf(MODELS["llama"](), tmp_path / "model.gguf", kind="IQ4_XS")
    with pytest.raises(
        CheckpointError, match=r"is of kind IQ4_XS, whose numbers are no even steps"
    ):
        stored_matrices(load_base(tmp_path / "model.gguf"))
    write_gguf(MODELS["llama"](), tmp_path / "plain.gguf", kind="BF16")
    assert not stored_matrices(load_base(tmp_path / "plain.gguf"))


def test_transformers_reads_the_same_numbers(tmp_path: Path) -> None:
    """Its own loader of GGUF files, where it knows the architecture."""
    from transformers import AutoModelForCausalLM, GgufConfig

    write_gguf(MODELS["qwen2"](), tmp_path / "model.gguf", kind="Q4_K")
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )  # fmt: skip
    ours = load_base(tmp_path / "model.gguf", fast_attention=True)
    torch.testing.assert_close(logits(ours.model), logits(theirs), rtol=0, atol=1e-5)
