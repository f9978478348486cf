"""Weights rounded by a plan, each parameter for itself: merged, reordered and tied, they stand in
the graph as the plan has them, and torch computes with them again.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from zoo import tiny_model

from edgeprefix.base import load_base
from edgeprefix.base.rounding import (
    ZEROS,
    RoundedMatrix,
    StepForm,
    WeightFormat,
    common_form,
    form_of,
    quantise,
)
from edgeprefix.export.bundle import export_decoder
from edgeprefix.export.own_numbers import planned_numbers
from edgeprefix.export.planned import Plan
from edgeprefix.export.verify import verify
from edgeprefix.runtime.errors import ParityError
from tiny import save_checkpoint, tiny_gpt2, tiny_llama

FORMATS = (
    WeightFormat(bits=8, block=16),
    WeightFormat(bits=4, block=32),
    WeightFormat(bits=8, block=32, symmetric=False),
    WeightFormat(bits=4, block=64, symmetric=False),
)
MODELS = {
    "llama, tied": lambda: tiny_llama(),
    "llama, untied": lambda: tiny_llama(tie_word_embeddings=False),
    "gpt2": lambda: tiny_gpt2(),
    "gpt_neox": lambda: tiny_model("gpt_neox"),
    "phi3": lambda: tiny_model("phi3"),
}


def matrix_of(weight: np.ndarray, form: WeightFormat) -> RoundedMatrix:
    """A weight [N, K] to the nearest step."""
    columns = np.ascontiguousarray(weight.T, np.float32)
    block = form.block_for(len(columns))
    packed, scales, zeros = quantise(columns, form.bits, block, symmetric=form.symmetric)
    return RoundedMatrix(
        bits=form.bits,
        block=block,
        packed=packed,
        scales=scales,
        zeros=None if form.symmetric else zeros,
    )


def mixed_plan(model: PreTrainedModel, *, rests: bool = False) -> Plan:
    """Every projection and the head, formats in turn; with `rests` some zero points of projections
    are no whole steps.
    """
    plan: dict[str, RoundedMatrix] = {}
    seen: list[torch.Tensor] = []
    tables = (model.get_input_embeddings().weight, model.get_output_embeddings().weight)
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, torch.Tensor) or weight.dim() != 2 or min(weight.shape) < 32:
            continue
        if isinstance(module, torch.nn.Embedding) and weight is not tables[0]:
            continue  # a table of positions
        if any(weight is other for other in seen):
            continue  # tied
        seen.append(weight)
        form = FORMATS[len(plan) % len(FORMATS)]
        rows = (weight.T if isinstance(module, Conv1D) else weight).detach().float().numpy()
        matrix = matrix_of(rows, form)
        if rests and not form.symmetric and not any(weight is table for table in tables):
            matrix = with_odd_zeros(matrix)
        plan[f"{path}.weight"] = matrix
    return plan


def with_odd_zeros(matrix: RoundedMatrix) -> RoundedMatrix:
    """Zero points between steps, and below and above all of them."""
    zeros = matrix.offsets() + np.linspace(-0.5, 0.5, matrix.blocks, dtype=np.float32)
    zeros[0], zeros[-1] = -3.25, 300.5
    return dataclasses.replace(matrix, zeros=zeros)


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_holds_the_plans_own_numbers(name: str, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(MODELS[name](), tmp_path / "base")
    plan = mixed_plan(load_base(checkpoint).model)
    export_decoder(checkpoint, tmp_path / "bundle", precision="int4", rounding=plan)
    base = load_base(checkpoint)
    own = planned_numbers(tmp_path / "bundle", base.model)
    assert own.strangers == ()
    paths = {module: path for path, module in base.model.named_modules()}
    for module, read in own.readers.items():
        wanted = plan.get(f"{paths[module]}.weight")
        if wanted is not None:
            features = read().shape[1]
            assert np.array_equal(read(), wanted.numbers()[:, :features]), paths[module]
    assert {f"{paths[module]}.weight" for module in own.readers} >= set(plan)
    report = verify(tmp_path / "bundle", base)
    assert report.exact is not None
    assert report.exact.relative < 3e-5, report.to_text()


def test_what_the_plan_leaves_out_goes_to_the_nearest_step(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tiny_llama(), tmp_path / "base")
    whole = mixed_plan(load_base(checkpoint).model)
    plan = {name: matrix for name, matrix in whole.items() if "layers.0.mlp" in name}
    export_decoder(checkpoint, tmp_path / "bundle", precision="int8", rounding=plan)
    own = planned_numbers(tmp_path / "bundle", load_base(checkpoint).model)
    assert len(own.readers) == 3
    report = verify(tmp_path / "bundle", checkpoint)
    assert report.exact is not None
    assert report.exact.relative < 3e-5, report.to_text()


def test_as_stored_rounds_nothing_besides(tmp_path: Path) -> None:
    """A base whose weights are steps already, exported with those: equal to torch to the last
    digits; what the plan does not name stays in floating point.
    """
    model = tiny_llama()
    plan = mixed_plan(model, rests=True)
    plan = {name: matrix for name, matrix in plan.items() if "down_proj" not in name}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in plan:
                numbers = plan[name].numbers()[:, : parameter.shape[1]]
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(numbers)))
    checkpoint = save_checkpoint(model, tmp_path / "base")
    export_decoder(checkpoint, tmp_path / "bundle", precision="as-stored", rounding=plan)
    report = verify(tmp_path / "bundle", checkpoint)
    assert report.exact is not None
    assert report.exact.relative < 3e-5, report.to_text()
    graph = onnx.load(str(tmp_path / "bundle" / "decoder.onnx"), load_external_data=False).graph
    kinds = [node.op_type for node in graph.node]
    assert {"down_proj", "rest"} == {
        part
        for node in graph.node
        if node.op_type == "MatMul"
        for part in ("down_proj", "rest")
        if part in node.input[1]
    }
    assert kinds.count("GatherBlockQuantized") == 1


def test_another_layers_weight_is_a_stranger(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tiny_llama(), tmp_path / "base")
    plan = dict(mixed_plan(load_base(checkpoint).model))
    up = "model.layers.{}.mlp.up_proj.weight"
    plan[up.format(0)] = plan[up.format(1)]
    with pytest.raises(ParityError, match=r"layers\.0\.mlp\.up_proj\.weight is none of the base's"):
        export_decoder(checkpoint, tmp_path / "bundle", precision="int4", rounding=plan)


@given(
    features=st.integers(1, 70),
    rows=st.integers(1, 5),
    forms=st.lists(st.sampled_from(FORMATS), min_size=2, max_size=3),
    floats=st.booleans(),
    seed=st.integers(0, 9),
)
def test_the_common_form_holds_the_same_numbers(
    features: int, rows: int, forms: list[WeightFormat], floats: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    weights = [random.normal(size=(rows, features)) for _ in forms]
    matrices = [matrix_of(*pair) for pair in zip(weights, forms, strict=True)]
    if floats:
        first = form_of(matrices[0])
        numbers = StepForm(bits=first.bits, block=first.block, zeros=ZEROS[2])
        matrices[0] = matrices[0].as_form(numbers, features)
    form = common_form(matrices)
    for matrix in matrices:
        brought = matrix.as_form(form, features)
        assert form_of(brought) == form
        assert brought.blocks == -(-features // form.block)
        assert np.array_equal(brought.numbers()[:, :features], matrix.numbers()[:, :features])
        some = np.array([rows - 1, 0])
        assert np.array_equal(brought.rows(some).numbers(), brought.numbers()[some])
