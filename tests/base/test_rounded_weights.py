"""Which weights a precision rounds: the trainer and the exporter mean the same ones, and the same
numbers.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from edgeprefix.base import Base
from edgeprefix.base.rounding import dequantise
from edgeprefix.export.bundle import build_graph, write_bundle
from edgeprefix.export.precision import to_precision
from edgeprefix.runtime.contracts.identity import BaseIdentity
from edgeprefix.train.rounding import round_weights
from tiny import VOCABULARY, randomise, tiny_gpt2, tiny_llama

Rows = set[bytes]

EXPERTS = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1,
    "moe_intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "num_experts_per_tok": 2, "max_position_embeddings": 256, "bos_token_id": 0, "eos_token_id": 0,
    "pad_token_id": 1,
}  # fmt: skip


def experts(model_type: str, count: int, **changes: Any) -> PreTrainedModel:
    """A tiny mixture of `count` experts; with 32 and more its router is rounded as well."""
    config = AutoConfig.for_model(model_type, **EXPERTS, **changes)
    names = ("num_local_experts", "num_experts")
    setattr(config, next(name for name in names if hasattr(config, name)), count)
    config.rope_parameters = {"rope_type": "default", "rope_theta": 10000.0}
    return randomise(AutoModelForCausalLM.from_config(config, attn_implementation="eager"))


MODELS = {
    "llama, tied": lambda: tiny_llama(num_hidden_layers=1),
    "llama, untied": lambda: tiny_llama(num_hidden_layers=1, tie_word_embeddings=False),
    "llama, narrow keys": lambda: tiny_llama(num_hidden_layers=1, num_key_value_heads=1),
    "gpt2": lambda: tiny_gpt2(n_layer=1),
    "qwen3_moe": lambda: experts("qwen3_moe", 32),
    "mixtral": lambda: experts("mixtral", 4),
    "gpt_oss": lambda: experts("gpt_oss", 4),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_trainer_rounds_what_the_bundle_rounds(name: str, tmp_path: Path) -> None:
    """Row by row (the exporter merges, transposes and reorders columns): all rows that the bundle
    holds in few bits are the trainer's, and all weights of the trainer stand in the bundle.
    """
    model = MODELS[name]()
    rounded = copy.deepcopy(model)
    round_weights(rounded, "int4")
    few_bits, plain = bundle_rows(export(model, tmp_path))
    changed = [
        own
        for before, after in zip(matrices(model), matrices(rounded), strict=True)
        for was, own in zip(before, after, strict=True)
        if was != own
    ]
    assert set(changed) <= few_bits, "the trainer rounds otherwise than the bundle, or more"
    assert few_bits <= {row for rows in matrices(rounded) for row in rows}, "or it rounds less"
    left = {row for rows in matrices(rounded) for row in rows} - few_bits - plain
    assert not left, f"{len(left)} rows of the trainer's weights stand nowhere in the bundle"


def export(model: PreTrainedModel, folder: Path) -> ir.Graph:
    """The int4 graph of a model, with numbers."""
    unknown = BaseIdentity(name="tiny", weights_sha256="0", config_sha256="0", tokenizer_sha256="0")
    base = Base(folder=folder, identity=unknown, model=model, tokenizer=None)
    layers, graph = build_graph(base)
    write_bundle(base, layers, to_precision(graph, "int4"), folder, precision="int4")
    return ir.load(folder / "decoder.onnx").graph


def matrices(model: PreTrainedModel) -> list[list[bytes]]:
    """The rows along which each matrix of a model is rounded."""
    found = []
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.dim() > 1:
                rows = parameter.T if isinstance(module, Conv1D) else parameter
                found.append(rows_of(rows.detach().numpy()))
    return found


def rows_of(array: npt.NDArray[Any]) -> list[bytes]:
    flat = np.ascontiguousarray(array.reshape(-1, array.shape[-1]), np.float32)
    return [row.tobytes() for row in flat]


def bundle_rows(graph: ir.Graph) -> tuple[Rows, Rows]:
    """Rows that are stored in few bits, and rows and columns that are stored as they are."""
    few_bits: Rows = set()
    packed = set()
    for node in graph:
        if node.op_type in ("MatMulNBits", "GatherBlockQuantized"):
            few_bits |= set(rows_of(unpacked(node)))
            packed |= {value.name for value in node.inputs if value is not None}
    plain: Rows = set()
    for value in graph.initializers.values():
        if value.name not in packed and value.const_value is not None:
            array = value.const_value.numpy()
            if array.ndim > 1 and array.dtype == np.float32:
                plain |= set(rows_of(array)) | set(rows_of(np.swapaxes(array, -1, -2)))
    return few_bits, plain


def unpacked(node: ir.Node) -> npt.NDArray[np.float32]:
    """A weight of few bits as plain numbers [rows, K]."""

    def numbers(index: int) -> npt.NDArray[Any] | None:
        value = node.inputs[index] if index < len(node.inputs) else None
        return None if value is None or value.const_value is None else value.const_value.numpy()

    bits, block = node.attributes["bits"].as_int(), node.attributes["block_size"].as_int()
    projection = node.op_type == "MatMulNBits"
    weight, scales, zeros = numbers(0 + projection), numbers(2), numbers(3)
    assert weight is not None
    assert scales is not None
    columns = block * bits // 8
    packed = weight.reshape(
        -1, weight.shape[-1] // columns if not projection else weight.shape[1], columns
    )
    count = len(packed)
    found = dequantise(
        packed,
        scales.reshape(count, -1),
        None if zeros is None else zeros.reshape(count, -1),
        bits,
    )
    return found[:, : node.attributes["K"].as_int()] if projection else found


def test_a_tied_table_stays_tied() -> None:
    model = tiny_llama()
    once = copy.deepcopy(model)
    round_weights(once, "int4")
    head = once.get_output_embeddings().weight
    assert head is once.get_input_embeddings().weight
    assert not torch.equal(head, model.get_output_embeddings().weight)
