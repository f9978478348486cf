"""Prefixes in the forms of other runtimes: ONNX Runtime's adapters here; llama.cpp and OpenVINO are
beside.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import safetensors.numpy
import torch
from native_ort import NativeSession, library
from past_graph import export_past_graph
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache
from typer.testing import CliRunner

from edgeprefix.base.identity import checkpoint_identity
from edgeprefix.export.cli.app import export_app
from edgeprefix.export.formats.onnx_adapter import write_onnx_adapter
from edgeprefix.export.formats.openvino import write_openvino
from edgeprefix.export.formats.writers import FORMATS, write_prefix
from edgeprefix.runtime import Prefix
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.runtime.contracts.prefix_file import PrefixLayer
from edgeprefix.runtime.errors import ExportError
from tiny import tiny_llama

BASE = BaseIdentity(
    name="base", weights_sha256="0" * 64, config_sha256="1" * 64, tokenizer_sha256="2" * 64
)
P, PROMPT, COUNT = 6, [5, 80, 200, 33], 12
NAMES = [f"{index}.{kind}" for index in range(2) for kind in ("key", "value")]


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_llama()


@pytest.fixture(scope="module")
def graph(model: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_past_graph(model, tmp_path_factory.mktemp("graph") / "decoder.onnx")


@pytest.fixture(scope="module")
def prefix(model: PreTrainedModel) -> Prefix:
    random = np.random.default_rng(0)
    layers = [
        PrefixLayer(*random.standard_normal((2, 2, P, 16)).astype(np.float32)) for _ in range(2)
    ]
    return Prefix(name="t", base=BASE, layers=tuple(layers))


@pytest.fixture(scope="module")
def adapter(prefix: Prefix, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapter") / "t.onnx_adapter"
    write_prefix(prefix, path, format="onnx-adapter")
    return path


def torch_tokens(model: PreTrainedModel, prefix: Prefix) -> list[int]:
    cache, new, tokens = DynamicCache(), torch.tensor([PROMPT]), []
    for index, layer in enumerate(prefix.layers):
        cache.update(torch.tensor(layer.key[None]), torch.tensor(layer.value[None]), index)
    with torch.no_grad():
        for _ in range(COUNT):
            new = model(new, past_key_values=cache).logits[:, -1:].argmax(-1)
            tokens.append(int(new))
    return tokens


def first_inputs() -> dict[str, np.ndarray]:
    """Of the first run: the prompt stands behind P positions that the adapter fills."""
    S = len(PROMPT)
    return {
        "input_ids": np.array([PROMPT]),
        "attention_mask": np.ones((1, P + S), np.int64),
        "position_ids": np.arange(P, P + S)[None],
    }


def test_an_unmodified_graph_runs_with_the_adapter(
    model: PreTrainedModel, graph: Path, prefix: Prefix, adapter: Path
) -> None:
    """Python wants every input named, so empty pasts are given; the active adapter takes their
    place.
    """
    session, loaded, options = ort.InferenceSession(str(graph)), ort.LoraAdapter(), ort.RunOptions()
    loaded.Load(str(adapter))
    options.add_active_adapter(loaded)
    empty = {f"past_key_values.{name}": np.zeros((1, 2, 0, 16), np.float32) for name in NAMES}
    logits, *present = session.run(None, first_inputs() | empty, options)
    assert present[0].shape == (1, 2, P + len(PROMPT), 16)
    np.testing.assert_array_equal(present[0][0, :, :P], prefix.layers[0].key)
    tokens = [int(logits[0, -1].argmax())]
    while len(tokens) < COUNT:
        length = present[0].shape[2] + 1
        inputs = {
            "input_ids": np.array([tokens[-1:]]),
            "attention_mask": np.ones((1, length), np.int64),
            "position_ids": np.array([[length - 1]]),
        }
        past = {
            f"past_key_values.{name}": array for name, array in zip(NAMES, present, strict=True)
        }
        logits, *present = session.run(None, inputs | past)
        tokens.append(int(logits[0, -1].argmax()))
    assert tokens == torch_tokens(model, prefix)


@pytest.mark.skipif(
    library() is None, reason="this wheel of onnxruntime has no library beside its Python module"
)
def test_the_native_call_needs_no_pasts(
    model: PreTrainedModel, graph: Path, prefix: Prefix, adapter: Path
) -> None:
    """As C#, Java and C++ call it: the C API."""
    logits = NativeSession(graph).run(first_inputs(), "logits", adapter)
    cache = DynamicCache()
    for index, layer in enumerate(prefix.layers):
        cache.update(torch.tensor(layer.key[None]), torch.tensor(layer.value[None]), index)
    with torch.no_grad():
        expected = model(torch.tensor([PROMPT]), past_key_values=cache).logits.numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_an_adapter_in_fp16(prefix: Prefix, tmp_path: Path) -> None:
    write_prefix(prefix, tmp_path / "t", format="onnx-adapter", dtype="fp16")
    parameters = ort.AdapterFormat.read_adapter(str(tmp_path / "t")).get_parameters()
    assert set(parameters) == {f"past_key_values.{name}" for name in NAMES}
    np.testing.assert_array_equal(
        parameters["past_key_values.1.value"].numpy(),
        prefix.layers[1].value[None].astype(np.float16),
    )


def test_openvino_states_have_the_names_of_the_models_variables(
    prefix: Prefix, tmp_path: Path
) -> None:
    write_prefix(prefix, tmp_path / "t", format="openvino")
    tensors = safetensors.numpy.load_file(tmp_path / "t")
    np.testing.assert_array_equal(
        tensors["past_key_values.1.keypresent.1.key"], prefix.layers[1].key[None]
    )
    assert len(tensors) == 4


def test_what_a_format_cannot_hold(prefix: Prefix, tmp_path: Path) -> None:
    large = Prefix(
        name="t",
        base=BASE,
        layers=tuple(PrefixLayer(1e6 * key, value) for key, value in prefix.layers),
    )
    for write in (write_onnx_adapter, write_openvino):
        with pytest.raises(ExportError, match="fp32 or fp16, not int8"):
            write(prefix, tmp_path / "t", dtype="int8")
        with pytest.raises(
            ExportError, match="layer 0 key reaches .*, more than fp16 holds; write it as fp32"
        ):
            write(large, tmp_path / "t", dtype="fp16")
    with pytest.raises(
        ExportError, match="format 'gguf' is unknown; choose one of edgeprefix, peft, onnx-adapter"
    ):
        write_prefix(prefix, tmp_path / "t", format="gguf")
    with pytest.raises(ExportError, match="give it with --base BASE"):
        write_prefix(prefix, tmp_path / "t", format="llama.cpp")
    with pytest.raises(ExportError, match="PEFT folders are written as fp32, not fp16"):
        write_prefix(prefix, tmp_path / "t", format="peft", dtype="fp16")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_every_format(llama_base: Path, prefix: Prefix, tmp_path: Path) -> None:
    file = tmp_path / "t.safetensors"
    Prefix(name="t", base=checkpoint_identity(llama_base), layers=prefix.layers).save(file)
    for name in FORMATS:
        out = tmp_path / f"out-{name}"
        command = [
            "prefix",
            str(file),
            "--out",
            str(out),
            "--format",
            name,
            "--base",
            str(llama_base),
        ]
        done = CliRunner().invoke(export_app, command)
        assert done.exit_code == 0, done.output
        assert f"task t, {P} positions" in done.output
        assert out.exists()
    config = json.loads((tmp_path / "out-peft" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(llama_base)
    again = CliRunner().invoke(
        export_app, ["prefix", str(file), "--out", str(tmp_path / "out-peft"), "--format", "peft"]
    )
    assert "exists already" in str(again.exception)
